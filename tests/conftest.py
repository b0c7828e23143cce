"""Shared fixtures. Slow ones are made once for all processes of make test."""

import compileall
import gc
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
sys.path.insert(0, str(ROOT))
gc.disable()  # until all is imported: among modules there is no garbage, and looking for it takes a fifth of the time

from helpers import REFERENCE, run, run_in_process, tree  # noqa: E402 - found where the line above says
from warm import WARM_ADDRESS, WarmServer  # noqa: E402 - likewise

# Files with few slow tests, the slowest first; processes that finish them run the many quick ones.
LONGEST = (
    "test_engine", "test_resume", "test_train", "test_faults", "test_false_alarms", "test_finetune", "test_cluster",
    "test_mn04", "test_listen", "test_predict", "test_offline", "test_mistakes", "test_detector",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Run the slow files first (make test keeps this order), so that no process ends with one."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish():
    """Collect garbage from now on, but never look at the modules again."""
    gc.freeze()
    gc.enable()


def pytest_configure(config):
    """Compile the project, and start the warm process once for all processes, while they collect the tests."""
    if "PYTEST_XDIST_WORKER" not in os.environ:  # if PYTHONDONTWRITEBYTECODE is set, every script would compile it anew
        for package in ("danger_safe", "models", "tools"):
            compileall.compile_dir(ROOT / package, quiet=2)
    if sys.platform == "linux" and getattr(config.option, "numprocesses", None):
        server = WarmServer()
        os.environ[WARM_ADDRESS] = server.address
        config.add_cleanup(server.close)


def pytest_xdist_auto_num_workers():
    """Use one process more than there are cores, because some tests wait for a camera, a broker or a browser."""
    return (os.cpu_count() or 1) + 1


def common_folder(tmp_path_factory):
    """Return the temporary folder that all processes of this test run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextmanager
def once(tmp_path_factory, name):
    """Yield (folder, whether it must be filled): the first process fills it while the others wait."""
    folder = common_folder(tmp_path_factory) / name
    with FileLock(folder.with_name(f"{name}.lock")):
        made = folder.with_name(f"{name}.made")
        folder.mkdir(exist_ok=True)
        yield folder, not made.exists()
        made.touch()


@pytest.fixture(scope="session")
def offline(tmp_path_factory):
    """The environment that forbids a script the network; NO_NETWORK_LOG names the record (test_offline.py)."""
    log = common_folder(tmp_path_factory) / "offline.log"
    return {"PYTHONPATH": Path(__file__).with_name("no_network"), "NO_NETWORK_LOG": log}


@pytest.fixture(scope="session")
def sample(tmp_path_factory, offline):
    """The sample dataset of step 1. Only ``embeddings`` writes into this folder."""
    with once(tmp_path_factory, "sample") as (folder, new):
        if new:
            run("filterAudioToDangerousAndSafe.py", "--sample", "--output", folder, env=offline)
    return folder


@pytest.fixture(scope="session")
def embeddings(sample, offline, tmp_path_factory):
    """The path of the table with compact embeddings of the sample sounds."""
    with once(tmp_path_factory, "embeddings") as (folder, new):
        table = folder / "audio_embeddings.csv"
        if new:
            run(
                "extractEmbeddingCnn14.py",
                "--dataset",
                sample,
                "--checkpoint",
                "compact",
                "--output",
                table,
                env=offline,
            )
    return table


@pytest.fixture(scope="session")
def trained(sample, embeddings, offline, tmp_path_factory):
    """All three models of a quarter of the sample sounds and their comparison, made with the network forbidden: (folder
    with the table and the sounds in ``dataset``, output of compare_models.py). Tests must not write into the folder."""
    with once(tmp_path_factory, "trained") as (folder, new):
        said = folder / "said.txt"
        if new:
            take_quarter(sample, embeddings, folder)
            flags = ["--embeddings", folder / "audio_embeddings.csv", "--output-dir", folder]
            for key in ("rf", "logreg", "mlp"):
                run(f"train_{key}_model.py", *flags, "--jobs", 1, env=offline, own_process=key == "rf")
            said.write_text(run("compare_models.py", *flags, env=offline).stdout, encoding="utf-8")
    return folder, said.read_text(encoding="utf-8")


def take_quarter(dataset, table, folder):
    """Copy a clip of each category and fold: its sound, and its rows of the manifest and of the table."""
    import pandas as pd

    clips = pd.read_csv(dataset / "manifest.csv", dtype=str).groupby(["category", "fold"], sort=False).head(1)
    for file in clips["file"]:
        (folder / "dataset" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset / file, folder / "dataset" / file)
    clips.to_csv(folder / "dataset" / "manifest.csv", index=False)
    rows = pd.read_csv(table, dtype=str)
    rows[rows["file"].isin(clips["file"])].to_csv(folder / table.name, index=False)
    info = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
    info["made_of"]["dataset"] = str(folder / "dataset")
    dangers = int((clips["label"] == "1").sum())
    info["counts"] |= {"clips": len(clips), "danger": dangers, "safe": len(clips) - dangers}
    (folder / table.name).with_suffix(".json").write_text(json.dumps(info), encoding="utf-8")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Keep converted networks in a folder with a name like those of Windows users' folders."""
    os.environ["DANGER_SAFE_CACHE"] = str(common_folder(tmp_path_factory) / "Bộ nhớ đệm")


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory):
    """A network with other weights and large activations."""
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


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    if BROWSER is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync",
                "--autoplay-policy=no-user-gesture-required"]  # fmt: skip
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=switches)
        yield opened
        opened.close()


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Run a script that must fail with a one-line error and must not change the test's folder."""
    monkeypatch.chdir(tmp_path)

    def run_script(script, *arguments, status=1, words=""):
        before = tree(tmp_path)
        printed = run_in_process(script, *arguments, status=status).stderr
        lines = [line for line in printed.splitlines() if "error: " in line]
        assert len(lines) == 1, printed
        assert words in lines[0]
        assert "Traceback" not in printed
        assert tree(tmp_path) == before

    return run_script


@pytest.fixture(scope="session")
def opened_detector():
    """The engine and the built-in detector, (engine, detector), on one core."""
    from danger_safe.detection.loading import open_detector

    with open_detector(cores=1) as opened:
        yield opened


@pytest.fixture
def predict(opened_detector, monkeypatch, capsys):
    """Run predict_danger.py in this process, with ``opened_detector`` unless --model is given; ``stdin`` are the bytes
    of the stream. Assert the exit status and return (out, err)."""
    import predict_danger
    from danger_safe.core import cli

    def run_script(*arguments, status=0, stdin=b""):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(raw=io.BytesIO(stdin))))
            if "--model" not in arguments:
                patched.setattr(predict_danger, "open_detector", lambda *_: nullcontext(opened_detector))
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.run(predict_danger.main, [str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert ended.value.code == status, printed.err
        assert "Traceback" not in printed.err
        return printed

    return run_script


@pytest.fixture(scope="session")
def standin(tmp_path_factory):
    """The stand-in checkpoint in the official file's layout."""
    with once(tmp_path_factory, "standin") as (folder, new):
        path = folder / "Cnn14_standin.pth"
        if new:
            subprocess.run([sys.executable, REFERENCE / "weights.py", "make-checkpoint", path], check=True)
    return path
