"""Measure the parts of extraction (decoding, log-mel, network) and of the reference implementation, for bench.py."""

import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from danger_safe.audio.decode import read_clip
from models.checkpoints import load_model
from models.converted import find_or_convert
from models.mnn_network import MnnNetwork
from models.torch_network import TorchNetwork

BATCH = 16
PARTS = {
    "decode": "decode and resample, 1 core",
    "logmel": "log-mel, 1 core",
    "torch logmel": "log-mel by convolutions in PyTorch, as torchlibrosa does it",
    "mnn": "network, MNN, batch of 16",
    "pytorch": "network, PyTorch folded, batch of 16",
    "reference": "network, models.py, one clip",
    "mn04 logmel": "mn04's log-mel, 1 core",
    "mn04 mnn": "mn04, MNN, batch of 16",
    "mn04 pytorch": "mn04, PyTorch folded, batch of 16",
    "compact mnn": "compact network, MNN, batch of 16",
    "compact pytorch": "compact network, PyTorch folded, batch of 16",
}


def measure_parts(dataset: Path, checkpoint: Path, mn04: Path) -> dict[str, float]:
    """Return the milliseconds that each of PARTS takes for one clip of five seconds."""
    cores = os.cpu_count() or 1
    files = sorted((dataset / "Danger").rglob("*.wav"))[:BATCH]
    clips = [read_clip(file) for file in files]
    milliseconds = {"decode": _median(lambda: read_clip(files[0]), 20)}
    for name, prefix in ((str(checkpoint), ""), (str(mn04), "mn04 "), ("compact", "compact ")):
        model, _ = load_model(name)
        converted = find_or_convert(name)
        logmel = np.stack([converted.front_end(clip) for clip in clips])
        if not prefix:
            waveform = torch.from_numpy(clips[0])[None]
            with torch.inference_mode():
                milliseconds["logmel"] = _median(lambda c=converted: c.front_end(clips[0]), 20)
                milliseconds["torch logmel"] = _median(lambda m=model, w=waveform: m.logmel(w), 20)
                one = torch.from_numpy(logmel[:1])[:, None]
                milliseconds["reference"] = _median(lambda m=model, x=one: m.embed(x), 10)
        elif prefix == "mn04 ":
            milliseconds["mn04 logmel"] = _median(lambda c=converted: c.front_end(clips[0]), 20)
        mnn = MnnNetwork(converted.file, cores, converted.winograd)
        with ThreadPoolExecutor(mnn.max_concurrency) as pool:
            all_batches = _median(lambda n=mnn, x=logmel: list(pool.map(n.embed, [x] * n.max_concurrency)), 5)
        milliseconds[prefix + "mnn"] = all_batches / BATCH / mnn.max_concurrency
        mnn.close()
        pytorch = TorchNetwork(model, "cpu", cores)
        milliseconds[prefix + "pytorch"] = _median(lambda n=pytorch, x=logmel: n.embed(x), 5) / BATCH
    return {name: milliseconds[name] for name in PARTS}


def _median(run: Callable[[], object], times: int) -> float:
    """Return the median time of ``run`` in milliseconds."""
    run()  # warm-up
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return 1_000 * statistics.median(seconds)
