"""Kills every script at many moments and looks at what is left: python tests/kill_moments.py [CASE ...] --moments 20

Half of the moments are just after an operation on a file of the output (the n-th of those that a whole run does), half are
spread over the run's time. After each kill every file with a real name must be whole; the same command, run again,
must end well, leave nothing behind, and give what a run that nobody killed gives. tests/test_faults.py does a few.

Scripts run in forks of this process, which has loaded the heavy libraries: a moment costs seconds. POSIX only.
"""

import argparse
import contextlib
import csv
import functools
import http.server
import importlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}
LIGHT = {"filter", "download"}  # cases that need no network
EXACT = (".csv", ".json", ".png", ".wav", ".txt", ".toml")


@dataclass
class Case:
    """A script with its flags, ``OUT`` in the place of the output folder; ``varies``: files that no two runs share."""

    script: str
    flags: list[str]
    before: Callable[[Path], None] = lambda out: None  # in the fork, before the script
    varies: tuple[str, ...] = ()


def run(case: Case, out: Path, kill: tuple[int, float] | None = None) -> tuple[int, str, float, int]:
    """The case in a fork: (exit status or minus the signal, what it printed, seconds, operations on files).

    ``kill``: the number of the operation on a file after which, and the seconds after it (or after the start, for
    number 0), the process ends by SIGKILL.
    """
    said = out.with_name(out.name + ".said")
    said.touch()
    started = time.monotonic()
    process = os.fork()
    if not process:
        with open(said, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
        counter = out.with_name(out.name + ".count")
        _watch(out, counter, kill)
        case.before(out)
        sys.argv = [case.script, *(flag.replace("OUT", str(out)) for flag in case.flags)]
        status = 0
        try:
            runpy.run_path(str(ROOT / case.script), run_name="__main__")
        except SystemExit as end:
            status = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    counter = out.with_name(out.name + ".count")
    operations = counter.stat().st_size if counter.exists() else 0
    counter.unlink(missing_ok=True)
    return status, said.read_text(encoding="utf-8", errors="replace"), time.monotonic() - started, operations


def _watch(out: Path, counter: Path, kill: tuple[int, float] | None) -> None:
    """Count what is done to files under ``out``, a byte each in ``counter``, and end by SIGKILL at the moment given."""
    end = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
    if kill and kill[0] == 0:
        threading.Timer(kill[1], end).start()
    count = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event == "open":
            writes = (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        elif event not in CHANGES:
            return
        else:
            writes = True
        if writes and str(arguments[0]).startswith(str(out)):
            seen += 1
            os.write(count, b".")
            if kill and seen == kill[0]:
                if kill[1]:
                    threading.Timer(kill[1], end).start()
                else:
                    end()

    sys.addaudithook(hook)


def broken(out: Path) -> list[str]:
    """Files under ``out`` that have their real name and are not whole."""
    found = []
    for path in sorted(out.rglob("*")):
        hidden = any(part.startswith(".") or part.endswith(".part") for part in path.relative_to(out).parts)
        if hidden or path.is_dir() or path.name.endswith(("-wal", "-shm")):
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{path.name}: {type(error).__name__} {error}")
    return found


def _read(path: Path) -> None:
    """Raise something where a file is not whole."""
    data = path.read_bytes()
    if path.suffix == ".csv":
        assert data.endswith(b"\n"), "no end"
        widths = {len(row) for row in csv.reader(io.StringIO(data.decode()))}
        assert len(widths) == 1, widths
    elif path.suffix == ".json":
        json.loads(data)
    elif path.suffix == ".png":
        assert data.endswith(b"IEND\xaeB`\x82"), "no end"
    elif path.suffix == ".joblib":
        import joblib

        joblib.load(path)
    elif path.suffix == ".pth":
        from models.checkpoints import load_model

        load_model(str(path))
    elif path.suffix == ".training":
        import torch

        torch.load(path, weights_only=True)
    elif path.suffix == ".wav":
        import soundfile

        assert len(soundfile.read(path)[0]) == int.from_bytes(data[40:44], "little") // 2 > 0
    elif path.suffix == ".journal":
        with tempfile.TemporaryDirectory() as copy:
            for file in path.parent.glob(path.name + "*"):
                shutil.copy(file, copy)
            with contextlib.closing(sqlite3.connect(Path(copy, path.name))) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    elif path.suffix == ".zip":
        assert zipfile.ZipFile(path).testzip() is None
    elif path.name == "network.mnn":
        known = json.loads((path.parent / "info.json").read_text())
        assert known["sizes"]["network.mnn"] == len(data)


def differences(case: Case, out: Path, reference: Path) -> list[str]:
    """What is not as in a run that nobody killed."""
    lists = [sorted(str(p.relative_to(f)) for p in f.rglob("*") if not p.is_dir()) for f in (out, reference)]
    if lists[0] != lists[1]:
        return [f"files: {set(lists[0]) ^ set(lists[1])}"]
    found = []
    for name in lists[0]:
        one, other = out / name, reference / name
        if one.suffix == ".pth":
            found += _other_weights(one, other)
        elif one.suffix == ".joblib":
            found += _other_model(one, other)
        elif one.suffix in EXACT and one.name not in case.varies and one.read_bytes() != other.read_bytes():
            found.append(name)
    return found


def _other_model(one: Path, other: Path) -> list[str]:
    """A pickle's bytes tell which objects were one object; what counts is what the model answers."""
    import joblib
    import numpy as np

    models = [joblib.load(file) for file in (one, other)]
    rows = np.random.default_rng(0).standard_normal((50, models[0]["dimensions"]))
    scores = [model.pop("pipeline").predict_proba(rows) for model in models]
    same = models[0] == models[1] and np.array_equal(*scores)
    return [] if same else [f"{one.name}: another model"]


def _other_weights(one: Path, other: Path) -> list[str]:
    import torch

    states = [torch.load(file, weights_only=True)["model"] for file in (one, other)]
    worst = max((a.float() - b.float()).abs().max().item() for a, b in zip(*(s.values() for s in states), strict=True))
    return [] if worst < 1e-3 else [f"{one.name}: weights differ by {worst:.1e}"]


def attack(name: str, case: Case, work: Path, moments: int) -> list[str]:
    """Kill a case ``moments`` times; returns what was wrong."""
    reference = work / f"{name}-whole"
    reference.mkdir()
    status, said, seconds, operations = run(case, reference)
    assert status == 0, said
    wrong, ended, clean_slate, words = [], 0, 0, set()
    rng = random.Random(name)
    for number in range(moments):
        out = work / f"{name}-{number}"
        out.mkdir()
        by_time = number % 2
        place = (number + 0.5) / moments
        kill = (
            (0, place * seconds) if by_time else (max(1, round(place * operations)), rng.choice((0, 0.0, 0.002, 0.02)))
        )
        status, _, _, _ = run(case, out, kill)
        ended += status != -signal.SIGKILL
        clean_slate += not any(out.iterdir())
        where = f"{name}, killed {'at ' + format(kill[1], '.2f') + ' s' if by_time else f'after operation {kill[0]}'}"
        wrong += [f"{where}: not whole: {file}" for file in broken(out)]
        status, said, _, _ = run(case, out)
        if status:
            wrong.append(f"{where}: the next run ends with {status}: {said[-300:]}")
        wrong += [f"{where}: after the next run: {words}" for words in differences(case, out, reference)]
        words |= {phrase for phrase in ("done before", "Going on after", "already there", "goes on") if phrase in said}
        shutil.rmtree(out)
    print(
        f"{name}: {moments} moments in a run of {seconds:.1f} s and {operations} operations on files; {ended} had ended "
        f"before, {clean_slate} had written nothing; the next runs said: {', '.join(sorted(words)) or 'nothing'}; "
        f"{len(wrong)} wrong",
        flush=True,
    )
    return wrong


def cases(work: Path) -> dict[str, Case]:
    """The scripts, on inputs made under ``work``."""
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
            ["--esc50", "OUT/ESC", "--copy", "--output", "OUT/dataset", "--categories", str(inputs / "c.toml")], _small_esc50,
        ),
        "extract": Case(
            "extractEmbeddingCnn14.py", ["--dataset", sounds, "--checkpoint", tiny, "--batch-size", "1", "--output", "OUT/t.csv"]
        ),
        **train,
        "compare": Case(
            "compare_models.py", [*flags, "--models", str(inputs / "logreg_model.joblib")], varies=("model_comparison.csv",)
        ),
        "predict": Case("predict_danger.py", [tone, "--plot", "OUT/p.png"]),
        "finetune": Case(
            "finetune_cnn14.py",
            ["--dataset", sounds, "--checkpoint", "none", "--width", "1", "--epochs", "6", "--target", "label",
             "--per-category", "8", "--batch-size", "8", "--output", "OUT/mine.pth"], _save_often,
            varies=("mine_learning.png",),  # the rounding of sums
        ),
        "convert": Case(
            "extractEmbeddingCnn14.py", ["--dataset", sounds, "--checkpoint", tiny, "--output", "OUT/t.csv"],
            lambda out: os.environ.__setitem__("DANGER_SAFE_CACHE", str(out / "cache")),
        ),
    }  # fmt: skip


def _few_samples(out: Path) -> None:
    from danger_safe import samples

    samples.CLIPS_PER_CATEGORY = 2


def _few_trees(out: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier

    fit = RandomForestClassifier.fit

    def fit_few(self, *arguments, **named):
        self.n_estimators = 5
        return fit(self, *arguments, **named)

    RandomForestClassifier.fit = fit_few


def _save_often(out: Path) -> None:
    from danger_safe import finetuning

    finetuning.SAVING_SHARE = 1e9


def _small_esc50(out: Path) -> None:
    from danger_safe import esc50

    esc50.CLIPS, esc50.CLIP_BYTES, esc50.URL = 40, 44_144, os.environ["SMALL_ESC50_URL"]


def prepare(work: Path, names: Iterable[str]) -> None:
    """Small inputs: sounds, a network, a table, a model where it is needed; and a server with a small ESC-50."""
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
    save_checkpoint(inputs / "tiny.pth", CompactNet(2, 1), categories=["a", "b"], clips=[], licence="", training={})
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
    trained = Case("train_logreg_model.py", ["--embeddings", str(inputs / "table.csv"), "--output-dir", str(inputs)])
    status, said, _, _ = run(trained, inputs / "unused")
    assert status == 0, said


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

    # Listening begins before the fork, so that nobody asks too early; the answers are given by a process of its own.
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    parent = os.getpid()
    if not os.fork():
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)
    httpd.socket.close()
    return f"http://127.0.0.1:{httpd.server_port}/esc50.zip"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--moments", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        wrong = attack_all(Path(folder), args.cases, args.moments)
    print("\n".join(wrong))
    return 1 if wrong else 0


def attack_all(work: Path, names: list[str], moments: int) -> list[str]:
    """Kill several cases (all where none is named); returns what was wrong."""
    heavy = ["numpy", "scipy.signal"]
    if not names or set(names) - LIGHT:
        heavy += ["torch", "pandas", "matplotlib.pyplot", "sklearn.ensemble", "sklearn.neural_network"]
    for name in heavy:
        importlib.import_module(name)
    os.environ.setdefault("DANGER_SAFE_CACHE", str(work / "cache"))
    known = cases(work)
    prepare(work, names or known)
    if "extract" in (names or known):  # converted beforehand; the case convert kills that
        assert run(known["extract"], work / "unused")[0] == 0
    return [line for name in names or known for line in attack(name, known[name], work, moments)]


if __name__ == "__main__":
    sys.exit(main())
