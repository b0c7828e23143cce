"""Compare the speed of extraction with panns-inference, and measure its parts. `make bench` runs this.

    python benchmarks/bench.py --dataset dataset

Input: a folder of step 1 with real clips; stand-in weights of Cnn14 and mn04 in ../shared, otherwise random weights of
the same shapes. Output: benchmarks/results.md and benchmarks/results.png.

Whole processes are timed, including start, loading and writing. Runs alternate and medians are compared, because
machines are noisy. Memory is that of the process and its children together.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from matplotlib.figure import Figure
from parts import PARTS, measure_parts

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
SIZES = (36, 144, 500, 2_000)  # numbers of clips, to measure how time and memory grow


def main() -> None:
    args = parse()
    manifest = (args.dataset / "manifest.csv").read_text(encoding="utf-8").splitlines()
    clips = len(manifest) - 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["DANGER_SAFE_CACHE"] = str(folder / "cache")
        checkpoint, mn04 = make_checkpoint(folder), find_mn04(folder)
        environment = panns_home(folder)
        panns = [sys.executable, ROOT / "benchmarks/panns_loop.py", args.dataset, checkpoint, folder / "panns.csv"]
        print("Converting the checkpoints (once per computer; not part of the runs)")
        networks = {"cnn14": checkpoint, "mn04": mn04, "compact": "compact"}
        first_run_s = {name: time_run(extraction(args.dataset, name, folder))[0] for name in networks.values()}

        runs: dict[str, list[tuple[float, float, float]]] = {"panns-inference": [], **{name: [] for name in networks}}
        for number in range(args.runs):
            print(f"Round {number + 1} of {args.runs}: panns-inference, Cnn14, mn04 and compact")
            runs["panns-inference"].append(time_run(panns, environment))
            for name, network in networks.items():
                runs[name].append(time_run(extraction(args.dataset, network, folder)))
        print("Parts")
        parts = measure_parts(args.dataset, checkpoint, mn04)
        print("Growth: " + ", ".join(map(str, SIZES)) + " clips; 1 and 2 cores")
        growth = {n: time_run(extraction(repeat(args.dataset, n, folder), "compact", folder)) for n in SIZES}
        cores = {n: time_run([*extraction(args.dataset, "compact", folder), "--jobs", str(n)]) for n in (1, 2)}
    write_report(args.output, clips, runs, parts, growth, cores, first_run_s[checkpoint])
    draw(args.output.with_suffix(".png"), clips, runs, parts, growth)
    print(args.output.read_text(encoding="utf-8"))


def extraction(dataset: Path, checkpoint: object, folder: Path) -> list:
    """Return the command of an extraction into a new table."""
    output = Path(tempfile.mkdtemp(dir=folder)) / "table.csv"
    script = ROOT / "extractEmbeddingCnn14.py"
    return [sys.executable, script, "--dataset", dataset, "--checkpoint", checkpoint, "--output", output]


def time_run(command: list, environment: dict | None = None) -> tuple[float, float, float]:
    """Run a command; return seconds, peak memory in MB (children included), and processor use (1.0: one core)."""
    started = time.monotonic()
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - a progress bar would fill a pipe and block
    process = subprocess.Popen(
        [str(part) for part in command], env=os.environ | (environment or {}), stdout=subprocess.DEVNULL, stderr=stderr
    )
    root, peak, cpu_s = psutil.Process(process.pid), 0, {}
    while process.poll() is None:
        total = 0
        for member in [root, *_children(root)]:
            try:
                total += member.memory_info().rss
                cpu_s[member.pid] = sum(member.cpu_times()[:2])
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.25)  # polling costs processor time, too
    seconds = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{command[1]} failed:\n{stderr.seek(0) or stderr.read().decode(errors='replace')[-2000:]}")
    return seconds, peak / 2**20, sum(cpu_s.values()) / seconds


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def make_checkpoint(folder: Path) -> Path:
    """Write a Cnn14 checkpoint that panns-inference can load: stand-in weights, otherwise random ones."""
    import torch

    path, whole = folder / "Cnn14.pth", folder / "whole.pth"
    if (SHARED / "cnn14_reference").is_dir():
        maker = SHARED / "cnn14_reference" / "weights.py"
        subprocess.run([sys.executable, maker, "make-checkpoint", whole], check=True)
        sys.path.insert(0, str(ROOT))
        from models.checkpoints import load_model

        model, _ = load_model(str(whole))
    else:
        sys.path.insert(0, str(ROOT))
        from models.models import Cnn14

        model = Cnn14()
    torch.save({"model": model.state_dict()}, path)
    whole.unlink(missing_ok=True)
    return path


def find_mn04(folder: Path) -> Path:
    """Return a checkpoint of mn04: the official one, otherwise random weights, which take the same time."""
    official = SHARED / "mn04" / "mn04_as_mAP_432.pt"
    if official.is_file():
        return official
    import torch

    from models.mn04 import Mn04

    torch.save(Mn04().state_dict(), path := folder / "mn04.pt")
    return path


def panns_home(folder: Path) -> dict[str, str]:
    """Return the environment of a home folder with the label file, which panns-inference would download with wget."""
    labels = SHARED / "audioset" / "class_labels_indices.csv"
    home = folder / "home" / "panns_data"
    home.mkdir(parents=True)
    if labels.is_file():
        text = labels.read_text(encoding="utf-8")
    else:  # the names do not affect the time
        text = "index,mid,display_name\n" + "".join(f'{n},/m/{n},"class {n}"\n' for n in range(527))
    (home / labels.name).write_text(text, encoding="utf-8")
    return {"HOME": str(home.parent), "USERPROFILE": str(home.parent)}


def repeat(dataset: Path, clips: int, folder: Path) -> Path:
    """Make a dataset of ``clips`` links to the given clips, which are repeated as needed."""
    target = folder / f"clips-{clips}"
    (target / "Danger").mkdir(parents=True)
    (target / "Safe").mkdir()
    found = sorted(path for name in ("Danger", "Safe") for path in (dataset / name).rglob("*.wav"))
    for number in range(clips):
        source = found[number % len(found)]
        label = source.relative_to(dataset).parts[0]
        os.symlink(source.resolve(), target / label / f"{number:05d}.wav")
    return target


def write_report(output: Path, clips: int, runs, parts, growth, cores, first_run_s: float) -> None:
    """Write the tables of results.md.

    Args:
        output: the Markdown file.
        clips: number of clips of the whole processes.
        runs: by name, results of ``time_run`` for each round.
        parts: milliseconds by key of PARTS.
        growth: result of ``time_run`` by number of clips.
        cores: result of ``time_run`` by number of cores.
        first_run_s: seconds of the first run with Cnn14, which converts it.
    """
    median = {name: statistics.median(run[0] for run in timed) for name, timed in runs.items()}
    lines = [
        "# Speed", "",
        f"Written by `make bench` on {os.cpu_count()} cores ({platform.machine()}, {platform.system()}), "
        f"{clips} real clips of five seconds, {len(runs['cnn14'])} rounds. Whole processes, "
        f"including loading and writing.", "",
        "| whole process | seconds (each round) | clips per second | against panns-inference (each round) "
        "| peak memory | processor use |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    names = {
        "panns-inference": "`panns-inference` 0.1.1, one clip at a time", "cnn14": "this project, Cnn14",
        "mn04": "this project, mn04", "compact": "this project, compact",
    }  # fmt: skip
    pairs = {
        name: [f"{a[0] / b[0]:.1f}" for a, b in zip(runs["panns-inference"], timed, strict=True)]
        for name, timed in runs.items()
    }
    for name, timed in runs.items():
        lines.append(
            f"| {names[name]} | {', '.join(f'{run[0]:.1f}' for run in timed)} | {clips / median[name]:.1f} "
            f"| {median['panns-inference'] / median[name]:.1f} times its speed ({', '.join(pairs[name])}) | "
            f"{max(run[1] for run in timed):.0f} MB "
            f"| {statistics.median(run[2] for run in timed):.0%} |"
        )
    lines += [
        "", f"The first run with a Cnn14 checkpoint took {first_run_s:.0f} s, including the conversion.", "",
        "| part, one clip, median | ms |", "| --- | --- |",
    ]  # fmt: skip
    lines += [f"| {PARTS[name]} | {milliseconds:.1f} |" for name, milliseconds in parts.items()]
    lines += ["", "| compact, clips | seconds | clips per second | peak memory |", "| --- | --- | --- | --- |"]
    lines += [f"| {n} | {run[0]:.1f} | {n / run[0]:.1f} | {run[1]:.0f} MB |" for n, run in growth.items()]
    lines += ["", "| compact, `--jobs` | seconds |", "| --- | --- |"]
    lines += [f"| {n} | {run[0]:.1f} |" for n, run in cores.items()]
    output.write_text("\n".join(lines) + "\n\n![Speed](results.png)\n", encoding="utf-8")


def draw(output: Path, clips: int, runs, parts, growth) -> None:
    """Draw the same numbers; arguments as in ``write_report``."""
    figure = Figure(figsize=(15, 4.2), layout="constrained")  # not pyplot, which needs a backend
    left, middle, right = figure.subplots(1, 3)
    names = {
        "panns-inference": "panns-inference",
        "cnn14": "this project, Cnn14",
        "mn04": "this project, mn04",
        "compact": "this project, compact",
    }
    speeds = [clips / statistics.median(run[0] for run in timed) for timed in runs.values()]
    bars = left.barh([names[name] for name in runs], speeds, color=["#9a9a9a", "#1f6fb2", "#8a5fb2", "#2a9d5c"])
    left.bar_label(bars, [f"{speed:.1f}" for speed in speeds], padding=3)
    left.set(title=f"{clips} clips, whole process", xlabel="clips per second")
    left.margins(x=0.2)
    left.invert_yaxis()
    bars = middle.barh([PARTS[name] for name in parts], list(parts.values()), color="#1f6fb2")
    middle.bar_label(bars, [f"{value:.1f}" for value in parts.values()], padding=3)
    middle.set(title="One clip of five seconds, median", xlabel="milliseconds")
    middle.margins(x=0.2)
    middle.invert_yaxis()
    sizes = np.array(list(growth))
    right.plot(sizes, [run[0] for run in growth.values()], "o-", color="#1f6fb2")
    right.set(title="Compact checkpoint: growth", xlabel="clips", ylabel="seconds (blue)")
    right.set_ylim(bottom=0)
    memory = right.twinx()
    memory.plot(sizes, [run[1] for run in growth.values()], "s--", color="#c2571a")
    memory.set_ylabel("peak memory, MB (orange)")
    memory.set_ylim(0, 1.3 * max(run[1] for run in growth.values()))
    figure.savefig(output, dpi=110)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", type=Path, default=ROOT / "dataset", help="folder of step 1, with manifest.csv")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results.md")
    args = parser.parse_args()
    if not (args.dataset / "manifest.csv").is_file():
        parser.error(f"{args.dataset} has no manifest.csv: run filterAudioToDangerousAndSafe.py first")
    return args


if __name__ == "__main__":
    main()
