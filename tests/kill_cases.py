"""The cases of kill_moments.py: scripts with their flags, small inputs, a server with a small ESC-50."""

import contextlib
import http.server
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIGHT = {"filter", "download"}  # cases that need no network


@dataclass
class Case:
    """A script with its flags; ``OUT`` stands for the output folder, ``varies`` are files that differ between runs."""

    script: str
    flags: list[str]
    before: Callable[[Path], None] = lambda out: None  # runs in the fork before the script
    varies: tuple[str, ...] = ()


def cases(work: Path) -> dict[str, Case]:
    """Return the cases, with inputs in ``work``."""
    inputs = work / "inputs"
    flags = ["--embeddings", str(inputs / "table.csv"), "--output-dir", "OUT"]
    train = {f"train_{key}": Case(f"train_{key}_model.py", flags) for key in ("logreg", "mlp")}
    train["train_rf"] = Case("train_rf_model.py", [*flags, "--jobs", "1"], _few_trees)
    sounds, tone = str(inputs / "sounds"), str(inputs / "sounds" / "Danger" / "0.wav")
    tiny = str(inputs / "tiny.pth")
    return {
        "filter": Case("filterAudioToDangerousAndSafe.py", ["--sample", "--copy", "--output", "OUT"], _few_samples),
        "download": Case(
            "filterAudioToDangerousAndSafe.py",
            ["--copy", "--output", "OUT/dataset", "--categories", str(inputs / "c.toml")], _small_esc50,
        ),
        "extract": Case(
            "extractEmbeddingCnn14.py", ["--dataset", sounds, "--checkpoint", tiny, "--batch-size", "1", "--output",
            "OUT/t.csv"]
        ),
        **train,
        "compare": Case(
            "compare_models.py", [*flags, "--models", str(inputs / "logreg_model.joblib")],
            varies=("model_comparison.csv",)
        ),
        "predict": Case("predict_danger.py", [tone, "--plot", "OUT/p.png"]),
        "finetune": Case(
            "finetune_cnn14.py",
            ["--dataset", sounds, "--checkpoint", "none", "--width", "1", "--epochs", "6", "--target", "label",
             "--per-category", "8", "--batch-size", "8", "--output", "OUT/mine.pth"], _save_often,
            varies=("mine_learning.png",),  # rounding of sums
        ),
        "convert": Case(
            "extractEmbeddingCnn14.py", ["--dataset", sounds, "--checkpoint", tiny, "--output", "OUT/t.csv"],
            lambda out: os.environ.__setitem__("DANGER_SAFE_CACHE", str(out / "cache")),
            varies=("info.json",),  # MNN writes a random number into each file
        ),
    }  # fmt: skip


def _few_samples(out: Path) -> None:
    from danger_safe.data import synthetic

    synthetic.CLIPS_PER_CATEGORY = 1


def _few_trees(out: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier

    fit = RandomForestClassifier.fit

    def fit_few(self, *arguments, **named):
        self.n_estimators = 5
        return fit(self, *arguments, **named)

    RandomForestClassifier.fit = fit_few


def _save_often(out: Path) -> None:
    from danger_safe.finetuning import trainer

    trainer.MAX_SAVING_FRACTION = 1e9


def _small_esc50(out: Path) -> None:
    from danger_safe.data import esc50

    esc50.CLIPS, esc50.CLIP_BYTES, esc50.URL = 40, 44_144, os.environ["SMALL_ESC50_URL"]
    os.chdir(out)  # the downloaded file


def prepare(work: Path, names: Iterable[str]) -> None:
    """Make small inputs (sounds, a network, a table, a model if needed) and a server with a small ESC-50."""
    import numpy as np
    import soundfile

    inputs = work / "inputs"
    rng = np.random.default_rng(0)
    for label in ("Danger", "Safe"):
        (inputs / "sounds" / label).mkdir(parents=True)
        for n in range(10):
            tone = np.sin(np.arange(48_000 + 800 * n) * rng.uniform(0.05, 0.5))
            noise = rng.standard_normal(48_000 + 800 * n) / 4
            soundfile.write(
                inputs / "sounds" / label / f"{n}.wav", 0.5 * (tone if label == "Danger" else noise), 32_000
            )
    (inputs / "c.toml").write_text('Danger = ["dog"]\nSafe = ["rain"]\n')
    os.environ["SMALL_ESC50_URL"] = _serve(rng)
    if set(names) <= LIGHT:
        return
    import torch

    from models.checkpoints import save_checkpoint
    from models.compact import CompactNet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    save_checkpoint(inputs / "tiny.pth", CompactNet(2, 1), categories=["a", "b"], licence="", training={})
    rows = rng.standard_normal((60, 16))
    rows[:30, 0] += 2
    lines = ["file,label,category,fold,source,seen," + ",".join(f"feat_{n:04d}" for n in range(16))]
    lines += [
        f"{n}.wav,{int(n < 30)},{'dog' if n < 30 else 'rain'},{n % 5 + 1},{n},False,"
        + ",".join(f"{v:.6g}" for v in row)
        for n, row in enumerate(rows)
    ]
    (inputs / "table.csv").write_text("\n".join(lines) + "\n")
    if "compare" not in names:
        return
    flags = ["--embeddings", inputs / "table.csv", "--output-dir", inputs]
    subprocess.run([sys.executable, "train_logreg_model.py", *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _serve(rng) -> str:
    import numpy as np
    import soundfile

    data, rows = io.BytesIO(), ["filename,fold,target,category,esc10,src_file,take"]
    with zipfile.ZipFile(data, "w") as zipped:
        for n in range(40):
            sound = io.BytesIO()
            soundfile.write(sound, (8_000 * rng.standard_normal(22_050)).astype(np.int16), 44_100, format="WAV")
            zipped.writestr(f"ESC-50-master/audio/{n}.wav", sound.getvalue())
            rows.append(f"{n}.wav,{n % 5 + 1},0,{'dog' if n % 2 else 'rain'},True,{n},A")
        zipped.writestr("ESC-50-master/meta/esc50.csv", "\n".join(rows) + "\n")
    content = data.getvalue()

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            with contextlib.suppress(OSError):
                for at in range(start, len(content), 100_000):
                    self.wfile.write(content[at : at + 100_000])
                    time.sleep(0.01)

        def log_message(self, *arguments):
            pass

    # The socket listens before the fork, so no request is too early; a child process sends the responses.
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    parent = os.getpid()
    if not os.fork():
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)
    httpd.socket.close()
    return f"http://127.0.0.1:{httpd.server_port}/esc50.zip"
