"""Kill every script at many moments and check its output: python tests/kill_moments.py [CASE ...] --moments 20

Half of the moments are just after a file operation in the output folder, the others are spread over the run's time.
After each kill, every file with its final name must be complete. The same command must then succeed, leave no temporary
files, and give the same output as an uninterrupted run. tests/core/test_faults.py tests a few moments.

Scripts run in forks of this process, which has loaded the heavy libraries, so a moment takes seconds. POSIX only.
"""

import argparse
import contextlib
import csv
import functools
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kill_cases import LIGHT, Case, cases, prepare  # noqa: E402 - found where the line above says

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}
EXACT = (".csv", ".json", ".png", ".wav", ".txt", ".toml")


def run(case: Case, out: Path, kill: tuple[int, float] | None = None) -> tuple[int, str, float, int]:
    """Run the case in a fork: (exit status or minus the signal, output, seconds, file operations).

    ``kill``: number of the file operation (0: the start), and the seconds after it at which the process gets SIGKILL.
    """
    output = out.with_name(out.name + ".said")
    output.touch()
    started = time.monotonic()
    process = os.fork()
    if not process:
        with open(output, "w", encoding="utf-8") as file:
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
    return status, output.read_text(encoding="utf-8", errors="replace"), time.monotonic() - started, operations


def _watch(out: Path, counter: Path, kill: tuple[int, float] | None) -> None:
    """Count file operations under ``out``, as bytes in ``counter``; send SIGKILL at the given moment."""
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
    """Return the files under ``out`` that have their final name and are not complete."""
    found = []
    for path in sorted(out.rglob("*")):
        parts = path.relative_to(out).parts
        hidden = any(part.startswith(".") or part.endswith((".part", ".download")) for part in parts)
        if hidden or path.is_dir() or path.name.endswith(("-wal", "-shm")):
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{path.name}: {type(error).__name__} {error}")
    return found


def _read(path: Path) -> None:
    """Raise an exception if a file is not complete."""
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
    """Return the differences from an uninterrupted run."""
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
    """Return whether the models' outputs differ; pickles of equal models can have different bytes."""
    import joblib
    import numpy as np

    models = [joblib.load(file) for file in (one, other)]
    rows = np.random.default_rng(0).standard_normal((50, models[0]["dimensions"]))
    answers = []
    for model in models:
        novelty = model.pop("unknown")
        distances, _ = novelty.pop("rule").kneighbors(rows)
        answers.append(
            np.hstack([model.pop("pipeline").predict_proba(rows), distances, np.full((50, 1), novelty["level"])])
        )
        model["out_of_fold"] = {name: np.asarray(kept).tolist() for name, kept in model["out_of_fold"].items()}
    same = models[0] == models[1] and np.array_equal(*answers)
    return [] if same else [f"{one.name}: another model"]


def _other_weights(one: Path, other: Path) -> list[str]:
    import torch

    states = [torch.load(file, weights_only=True)["model"] for file in (one, other)]
    worst = max((a.float() - b.float()).abs().max().item() for a, b in zip(*(s.values() for s in states), strict=True))
    return [] if worst < 1e-3 else [f"{one.name}: weights differ by {worst:.1e}"]


def attack(name: str, case: Case, work: Path, moments: int) -> list[str]:
    """Kill a case at ``moments`` moments; return the failures."""
    reference = work / f"{name}-whole"
    reference.mkdir()
    status, output, seconds, operations = run(case, reference)
    assert status == 0, output
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
        status, output, _, _ = run(case, out)
        if status:
            wrong.append(f"{where}: the next run ends with {status}: {output[-300:]}")
        wrong += [f"{where}: after the next run: {words}" for words in differences(case, out, reference)]
        words |= {
            phrase for phrase in ("done before", "Going on after", "already there", "goes on") if phrase in output
        }
        shutil.rmtree(out)
    print(
        f"{name}: {moments} moments in a run of {seconds:.1f} s and {operations} operations on files; {ended} had "
        f"ended "
        f"before, {clean_slate} had written nothing; the next runs said: {', '.join(sorted(words)) or 'nothing'}; "
        f"{len(wrong)} wrong",
        flush=True,
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--moments", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        wrong = attack_all(Path(folder), args.cases, args.moments)
    print("\n".join(wrong))
    return 1 if wrong else 0


def attack_all(work: Path, names: list[str], moments: int) -> list[str]:
    """Kill several cases (default: all); return the failures."""
    heavy = ["numpy", "scipy.signal"]
    if not names or set(names) - LIGHT:
        heavy += ["torch", "pandas", "matplotlib.figure", "sklearn.ensemble", "sklearn.neural_network"]
    for name in heavy:
        importlib.import_module(name)
    os.environ.setdefault("DANGER_SAFE_CACHE", str(work / "cache"))
    known = cases(work)
    prepare(work, names or known)
    if "extract" in (names or known):  # converted beforehand; the case "convert" kills the conversion
        assert run(known["extract"], work / "unused")[0] == 0
    return [line for name in names or known for line in attack(name, known[name], work, moments)]


if __name__ == "__main__":
    sys.exit(main())
