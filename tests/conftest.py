"""Sounds and helpers of the tests. Scripts are run as users run them: in a process of their own."""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
REFERENCE = SHARED / "cnn14_reference"
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # scripts run side by side, each test file in a process: make test


def run(script, *arguments, cwd=None, status=0, env=None):
    """Run a script; assert its exit status and that no traceback is shown. Returns the finished process."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        cwd=cwd or ROOT, capture_output=True, encoding="utf-8", timeout=280,
        env=os.environ | {name: str(value) for name, value in (env or {}).items()},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def write_esc50(folder, clips, seconds=0.5):
    """A small ESC-50 folder: ``clips`` are (category, fold, source) and each gets noise of its own."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for number, (category, fold, source) in enumerate(clips):
        name = f"{fold}-{source}-A-{number}.wav"
        noise = np.random.default_rng(number).standard_normal(int(44_100 * seconds)) * 0.1
        soundfile.write(folder / "audio" / name, noise, 44_100, subtype="PCM_16")
        rows.append(f"{name},{fold},{number},{category},False,{source},A")
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def offline(tmp_path_factory):
    """The environment of a script that is forbidden the network, and NO_NETWORK_LOG, the record: test_offline.py."""
    log = tmp_path_factory.mktemp("offline") / "log"
    return {"PYTHONPATH": Path(__file__).with_name("no_network"), "NO_NETWORK_LOG": log}


@pytest.fixture(scope="session")
def sample(tmp_path_factory, offline):
    """The sample sounds, filtered: the folder that --output names."""
    folder = tmp_path_factory.mktemp("sample")
    run("filterAudioToDangerousAndSafe.py", "--sample", "--output", folder, env=offline)
    return folder


@pytest.fixture(scope="session")
def embeddings(sample, offline):
    """Compact embeddings of the sample sounds: the table's path."""
    table = sample / "audio_embeddings.csv"
    run("extractEmbeddingCnn14.py", "--dataset", sample, "--checkpoint", "compact", "--output", table, env=offline)
    return table


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Converted networks go to a folder of the tests, with a name as Windows users' folders have it; one for all of make
    test's processes, since the large network takes half a minute."""
    folder = tmp_path_factory.getbasetemp()
    os.environ["DANGER_SAFE_CACHE"] = str(
        (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "Bộ nhớ đệm"
    )


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory):
    """A network of other weights, whose activations are large."""
    import torch

    from models.checkpoints import save_checkpoint
    from models.models import Cnn14

    torch.manual_seed(0)
    model = Cnn14(classes=3, width=8, fmax=7000.0, floor=10**-3.5, normalise=True)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.fill_(0.05)
    path = tmp_path_factory.mktemp("other") / "other.pth"
    save_checkpoint(path, model, categories=["a", "b", "c"], licence="", training={})
    return path


def tree(folder):
    """Every file under a folder, with its content where it has one."""
    return {p: p.read_bytes() if p.is_file() and not p.is_symlink() else None for p in folder.rglob("*")}


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A script that has to fail: one line of error, and everything in the test's folder as it was."""
    monkeypatch.chdir(tmp_path)

    def run_script(script, *arguments, status=1, words=""):
        before = tree(tmp_path)
        from danger_safe.core import cli

        main = importlib.import_module(script).main
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.run(main, [str(argument) for argument in arguments])
        printed = capsys.readouterr().err
        lines = [line for line in printed.splitlines() if "error: " in line]
        assert len(lines) == 1, printed
        assert words in lines[0]
        assert "error: unexpected" not in lines[0]
        assert "Traceback" not in printed
        assert ended.value.code == status
        assert tree(tmp_path) == before

    return run_script


def reference_module():
    """The stand-in's weights and test signals, from ../shared."""
    spec = importlib.util.spec_from_file_location("reference_weights", REFERENCE / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def standin(tmp_path_factory):
    """The stand-in checkpoint, in the official file's layout."""
    path = tmp_path_factory.mktemp("standin") / "Cnn14_standin.pth"
    subprocess.run([sys.executable, REFERENCE / "weights.py", "make-checkpoint", path], check=True)
    return path


needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared (real clips, reference network) is not here")
