"""All engines give the same embeddings as the reference, models/models.py."""

import json
import shutil

import librosa
import numpy as np
import pytest
import soundfile
import torch
from helpers import needs_shared, reference_module, run
from torchlibrosa.stft import LogmelFilterBank, Spectrogram

from danger_safe.audio.decode import SAMPLE_RATE, read_clip
from danger_safe.core.errors import UserError
from models import converted, engine
from models.checkpoints import load_model
from models.converted import ConversionError, find_or_convert
from models.engine import open_engine
from models.logmel import HOP_LENGTH, MEL_BINS, MIN_SAMPLES, N_FFT, mel_bank
from models.models import Cnn14
from models.network import prepare
from models.numpy_network import NumpyNetwork
from models.onnx_network import OnnxNetwork
from models.parity import MAX_ENGINE_ERROR, PROBE_LENGTHS_S, largest_error
from models.torch_network import TorchNetwork
from models.weights import read_weights

SETTINGS = [{}, {"fmax": 7000.0, "floor": 10**-3.5, "normalise": True}]


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def engines_of(checkpoint):
    """Return the engines available on this computer by name, each as a function of one clip."""
    model, _ = load_model(checkpoint)
    front_end = model.front_end
    pytorch, weights = TorchNetwork(model), read_weights(checkpoint)
    others = {"PyTorch": pytorch, "NumPy": NumpyNetwork(weights), "ONNX Runtime": OnnxNetwork(weights, 1)}
    with open_engine(checkpoint, "cpu", 2) as mnn:
        assert mnn.name.startswith("MNN"), "the fast engine is not running"
        yield "MNN", lambda clip: mnn.embed(mnn.front_end(clip)[None])[0]
        for name, network in others.items():
            yield name, lambda clip, network=network: network.embed(front_end(clip)[None])[0]


def check(checkpoint, clips):
    model, _ = load_model(checkpoint)
    with torch.inference_mode():
        expected = [model(torch.from_numpy(clip)[None])["embedding"][0].numpy() for clip in clips]
    for name, embed in engines_of(checkpoint):
        for number, (clip, want) in enumerate(zip(clips, expected, strict=True)):
            got = embed(clip)
            assert cosine(got, want) >= 0.99999, (name, number)
            assert largest_error(got[None], want[None]) <= MAX_ENGINE_ERROR, (name, number)


@needs_shared
def test_engines_agree_on_the_compact_checkpoint_and_the_signals():
    check("compact", list(reference_module().signals().values()))


def test_engines_agree_on_sounds(sample):
    check("compact", [read_clip(path) for path in sorted(sample.glob("*/*.wav"))[::20]])


def test_engines_agree_on_other_weights(other_checkpoint):
    clips = [0.1 * np.random.default_rng(n).standard_normal(20_000 * n).astype(np.float32) for n in (1, 3, 8)]
    check(str(other_checkpoint), clips)


def torchlibrosa_modules(fmin=50.0, fmax=14_000.0, floor=1e-10, normalise=False):
    """Return PANNs' own front end, without the normalisation, which theirs lacks."""
    return Spectrogram(n_fft=N_FFT, hop_length=HOP_LENGTH), LogmelFilterBank(
        sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=MEL_BINS, fmin=fmin, fmax=fmax, amin=floor, top_db=None
    )


@pytest.mark.parametrize("settings", SETTINGS)
def test_log_mel_equals_torchlibrosa_s(settings):
    model = Cnn14(classes=2, width=1, **settings)
    waveform = 0.1 * torch.randn(2, 40_000, generator=torch.Generator().manual_seed(0))
    fast = model.front_end(waveform.numpy())
    assert np.abs(fast - model.logmel(waveform)[:, 0].numpy()).max() < 1e-4
    spectrogram, mel_filters = torchlibrosa_modules(**settings)
    reference = mel_filters(spectrogram(prepare(waveform, model.normalise)))
    assert torch.allclose(model.logmel(waveform), reference, atol=1e-5)
    for ours, theirs in ((model.spectrogram_extractor, spectrogram), (model.logmel_extractor, mel_filters)):
        for name, tensor in theirs.state_dict().items():
            assert torch.allclose(ours.state_dict()[name], tensor, rtol=1e-6, atol=1e-7), name
    short = waveform[0, : MIN_SAMPLES // 2]
    assert np.abs(model.front_end(short.numpy()) - model.logmel(short[None])[0, 0].numpy()).max() < 1e-4


@pytest.mark.parametrize("settings", SETTINGS)
@needs_shared
def test_log_mel_is_as_exact_as_torchlibrosa(settings):
    """Next to a pure tone, 32-bit arithmetic leaves noise in empty bins; the error may not exceed torchlibrosa's."""
    model = Cnn14(classes=2, width=1, **settings)
    spectrogram, mel_filters = torchlibrosa_modules(**settings)
    for name, clip in reference_module().signals().items():
        with torch.inference_mode():
            waveform = prepare(torch.from_numpy(clip)[None], model.normalise)
            reference = mel_filters(spectrogram(waveform))[0, 0].numpy()
        exact = _exact_log_mel(model.front_end, clip)
        ours = np.abs(model.front_end(clip) - exact).max()
        assert ours <= max(1e-4, np.abs(reference - exact).max()), name


def _exact_log_mel(front_end, clip):
    """Return the log-mel in 64 bits, computed frame by frame."""
    clip = clip.astype(np.float64)
    if front_end.normalise:
        clip = clip / max(np.abs(clip).max(), 1e-4)
    padded = np.pad(clip, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::320] * np.hanning(N_FFT + 1)[:-1]
    power = np.abs(np.fft.rfft(frames)) ** 2
    return 10 * np.log10(np.maximum(power @ front_end.mel_bank.astype(np.float64), front_end.floor))


def test_batches_equal_single_clips(sample):
    clips = [read_clip(path) for path in sorted(sample.glob("*/*.wav"))[::30]]
    with open_engine("compact", "cpu", 2) as engine:
        logmel = np.stack([engine.front_end(clip) for clip in clips])
        together = engine.embed(logmel)
        alone = np.concatenate([engine.embed(one[None]) for one in logmel])
    assert largest_error(together, alone) < MAX_ENGINE_ERROR / 5


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache folder for one test, with the converted compact network."""
    original = find_or_convert("compact").file.parent
    shutil.copytree(original, tmp_path / "cache" / original.name)
    monkeypatch.setenv("DANGER_SAFE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / original.name


def test_killed_child_process_is_restarted_once(kept):
    with open_engine("compact", "cpu", 1) as engine:
        silence = np.zeros((1, 101, 64), np.float32)
        expected = engine.embed(silence)
        for _ in range(2):
            engine.network._processes[0]._process.kill()
            assert (engine.embed(silence) == expected).all()


def test_converted_network_is_cached_and_replaced_when_damaged(kept):
    network = kept / "network.mnn"
    made = network.stat().st_mtime_ns
    with open_engine("compact", "cpu", 1) as engine:
        expected = engine.embed(np.zeros((1, 101, 64), np.float32))
    assert network.stat().st_mtime_ns == made
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    with open_engine("compact", "cpu", 1) as engine:
        assert engine.name.startswith("MNN")
        assert (engine.embed(np.zeros((1, 101, 64), np.float32)) == expected).all()
    assert find_or_convert("compact").is_intact()
    assert [path.name for path in kept.parent.iterdir()] == [kept.name], "something was left over"


def test_unloadable_conversion_is_not_retried_forever(kept, monkeypatch):
    def not_loaded(*arguments):
        raise ValueError("damaged")

    def make(checkpoint, folder):
        made.append(folder)
        shutil.copytree(kept.parent.parent / "copy", folder)

    made = []
    shutil.copytree(kept, kept.parent.parent / "copy")
    monkeypatch.setattr(converted, "_load", not_loaded)
    monkeypatch.setattr(converted, "_convert", make)
    with pytest.raises(ConversionError, match="damaged"):
        find_or_convert("compact")
    assert len(made) == 1


def test_without_mnn_pytorch_is_used_and_reported(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('MNN', 'onnxruntime') else find(name, *rest)\n"
    )
    for label, seed in (("Danger", 1), ("Safe", 2)):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        noise = 0.1 * np.random.default_rng(seed).standard_normal(40_000)
        soundfile.write(tmp_path / "sounds" / label / "a.wav", noise, 32_000)
    table = tmp_path / "table.csv"
    done = run(
        "extractEmbeddingCnn14.py", "--dataset", tmp_path / "sounds", "--checkpoint", "compact", "--output", table,
        env={"PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert "PyTorch" in done.stdout.splitlines()[-1]
    assert json.loads(table.with_suffix(".json").read_text())["engine"].startswith("PyTorch")


@pytest.mark.parametrize(
    ("installed", "name"), [({"onnxruntime", "torch"}, "ONNX Runtime"), ({"torch"}, "PyTorch"), ({}, "NumPy")]
)
def test_without_mnn_an_installed_engine_is_used(monkeypatch, installed, name):
    monkeypatch.setattr(engine, "is_installed", lambda package: package in installed)
    with open_engine("compact", "cpu", 1) as opened:
        assert opened.name.startswith(name)
        assert opened.embed(np.zeros((2, 101, 64), np.float32)).shape == (2, 768)
    if "torch" not in installed:
        with pytest.raises(UserError, match="needs PyTorch"):
            open_engine("compact", "cuda")


def test_another_engine_is_used_if_mnn_changes_the_embeddings(kept, capsys):
    known = json.loads((kept / "info.json").read_text())
    (kept / "info.json").write_text(json.dumps(known | {"winograd": None, "error": 0.01}))
    with open_engine("compact", "cpu", 1) as engine:
        assert engine.name.startswith("ONNX Runtime")
    assert "1.0e-02 away from the reference" in capsys.readouterr().err


def test_fastest_setting_with_equal_embeddings_is_chosen(kept, tmp_path, monkeypatch):
    import models.converted

    logmel = np.random.default_rng(0).standard_normal((2, 201, 64)).astype(np.float32) * 10
    model, _ = load_model("compact")
    with torch.inference_mode():
        embedding = model.embed(torch.from_numpy(logmel)[:, None]).numpy()
    for seconds in PROBE_LENGTHS_S:
        np.savez(kept / f"probes_{seconds}.npz", logmel=logmel, embedding=embedding)
    chosen = []
    for limit in (1.0, 0.0):
        monkeypatch.setattr(models.converted, "MAX_PROBE_ERROR", limit)
        chosen.append(models.converted._fastest_with_parity(kept))
    assert chosen[0][0] == 3
    assert chosen[1][0] is None
    assert chosen[1][1] < MAX_ENGINE_ERROR


@pytest.mark.parametrize(("fmin", "fmax"), [(50, 14_000), (50, 7_000), (0, 16_000)])
def test_mel_bank_equals_librosa_s(fmin, fmax):
    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=64, fmin=fmin, fmax=fmax)
    assert np.allclose(mel_bank(fmin, fmax), bank.T, rtol=1e-6, atol=1e-12)


def test_short_recording_does_not_wait_for_the_conversion(sample, tmp_path):
    """NumPy processes it, then the network is converted. The next run uses MNN, with the same result."""
    recording, cache = next((sample / "Danger").iterdir()), {"DANGER_SAFE_CACHE": tmp_path}
    first, second = (run("predict_danger.py", recording, "--format", "json", env=cache) for _ in range(2))
    assert "NumPy" in first.stderr and "MNN" in second.stderr
    answers = [json.loads(done.stdout) for done in (first, second)]
    assert answers[0]["score"] == pytest.approx(answers[1]["score"], abs=1e-3)
    assert answers[0]["verdict"] == answers[1]["verdict"]


def test_gpu_that_pytorch_cannot_use_is_ignored(monkeypatch, capsys):
    """PyTorch's CPU build on a computer with a GPU, which is common on Windows."""
    monkeypatch.setattr(engine, "has_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with open_engine("compact", "auto", 1) as opened:
        assert opened.name.startswith("MNN")
    assert "cannot use it" in capsys.readouterr().err


def test_gpu_code_on_the_cpu(monkeypatch):
    """Without a GPU: half precision is refused if it changes the embeddings, and memory limits the batch."""
    torch.manual_seed(0)
    model = Cnn14(classes=3, width=4).eval()
    network = TorchNetwork(model)
    logmel = np.random.default_rng(0).standard_normal((5, 101, 64)).astype(np.float32) * 20 - 30
    expected = network.embed(logmel)
    sizes = []
    monkeypatch.setattr(network, "_largest_batch", lambda frames: 2)
    original = network._run
    monkeypatch.setattr(network, "_run", lambda batch: sizes.append(len(batch)) or original(batch))
    assert np.allclose(network.embed(logmel), expected, atol=1e-6)
    assert sizes == [2, 2, 1]
    network._try_half_precision(logmel)
    assert network.embed(logmel).shape == (5, 128)
    assert largest_error(network.embed(logmel), expected) <= MAX_ENGINE_ERROR
