"""make bench: extraction against panns-inference, side by side in one run, and where the time goes.

    python benchmarks/bench.py --dataset dataset

In:   a folder of step 1 with real clips; Cnn14's stand-in and mn04 from ../shared, or random weights of their shapes
Out:  benchmarks/results.md, benchmarks/results.png

Whole processes are timed: start, loading and writing included. Runs take turns, A B A B, and the ratio is that of the
medians, because machines are noisy. Memory is that of the process and its children together.
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
SIZES = (36, 144, 500, 2_000)  # clips, for how time and memory grow


def main() -> None:
    args = parse()
    manifest = (args.dataset / "manifest.csv").read_text(encoding="utf-8").splitlines()
    clips = len(manifest) - 1
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.environ["DANGER_SAFE_CACHE"] = str(folder / "cache")
        checkpoint, mn04 = make_checkpoint(folder), find_mn04(folder)
        environment = panns_home(folder)
        panns = [sys.executable, ROOT / "benchmarks/panns_loop.py", args.dataset, checkpoint, folder / "panns.csv"]
        print("Preparing the checkpoints (once for a computer; not part of the runs)")
        ours = {"ours": checkpoint, "mn04": mn04, "compact": "compact"}
        prepared = {name: time_run(extraction(args.dataset, name, folder))[0] for name in ours.values()}

        runs: dict[str, list[tuple[float, float, float]]] = {"panns-inference": [], **{name: [] for name in ours}}
        for number in range(args.runs):
            print(f"Round {number + 1} of {args.runs}: panns-inference, ours with Cnn14, mn04 and compact")
            runs["panns-inference"].append(time_run(panns, environment))
            for name, network in ours.items():
                runs[name].append(time_run(extraction(args.dataset, network, folder)))
        print("Parts")
        parts = measure_parts(args.dataset, checkpoint, mn04)
        print("Growth: " + ", ".join(map(str, SIZES)) + " clips; 1 and 2 cores")
        growth = {n: time_run(extraction(repeat(args.dataset, n, folder), "compact", folder)) for n in SIZES}
        cores = {n: time_run([*extraction(args.dataset, "compact", folder), "--jobs", str(n)]) for n in (1, 2)}
    write_report(args.output, clips, runs, parts, growth, cores, prepared[checkpoint])
    draw(args.output.with_suffix(".png"), clips, runs, parts, growth)
    print(args.output.read_text(encoding="utf-8"))


def extraction(dataset: Path, checkpoint: object, folder: Path) -> list:
    """The command of a whole extraction that finds nothing done."""
    output = Path(tempfile.mkdtemp(dir=folder)) / "table.csv"
    script = ROOT / "extractEmbeddingCnn14.py"
    return [sys.executable, script, "--dataset", dataset, "--checkpoint", checkpoint, "--output", output]


def time_run(command: list, environment: dict | None = None) -> tuple[float, float, float]:
    """Seconds, peak memory in MB of the process with its children, and processor use (1.0: one core)."""
    started = time.monotonic()
    said = tempfile.TemporaryFile()  # noqa: SIM115 - no pipe: a progress bar would fill it, and wait for ever
    process = subprocess.Popen(
        [str(part) for part in command], env=os.environ | (environment or {}), stdout=subprocess.DEVNULL, stderr=said
    )
    watched, peak, used = psutil.Process(process.pid), 0, {}
    while process.poll() is None:
        total = 0
        for member in [watched, *_children(watched)]:
            try:
                total += member.memory_info().rss
                used[member.pid] = sum(member.cpu_times()[:2])
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.25)  # looking costs time too
    seconds = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{command[1]} failed:\n{said.seek(0) or said.read().decode(errors='replace')[-2000:]}")
    return seconds, peak / 2**20, sum(used.values()) / seconds


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def make_checkpoint(folder: Path) -> Path:
    """A Cnn14 file that panns-inference can load: the stand-in's weights, else random ones of the same shapes."""
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
    """mn04's weights, else random ones of the same shapes: the time is the same."""
    official = SHARED / "mn04" / "mn04_as_mAP_432.pt"
    if official.is_file():
        return official
    import torch

    from models.mn04 import Mn04

    torch.save(Mn04().state_dict(), path := folder / "mn04.pt")
    return path


def panns_home(folder: Path) -> dict[str, str]:
    """A home folder with the label file, which panns-inference would otherwise fetch with wget."""
    labels = SHARED / "audioset" / "class_labels_indices.csv"
    home = folder / "home" / "panns_data"
    home.mkdir(parents=True)
    if labels.is_file():
        text = labels.read_text(encoding="utf-8")
    else:  # the names do not matter for the time
        text = "index,mid,display_name\n" + "".join(f'{n},/m/{n},"class {n}"\n' for n in range(527))
    (home / labels.name).write_text(text, encoding="utf-8")
    return {"HOME": str(home.parent), "USERPROFILE": str(home.parent)}


def repeat(dataset: Path, clips: int, folder: Path) -> Path:
    """A dataset of so many clips: links to the given ones, again and again."""
    target = folder / f"clips-{clips}"
    (target / "Danger").mkdir(parents=True)
    (target / "Safe").mkdir()
    found = sorted(path for name in ("Danger", "Safe") for path in (dataset / name).rglob("*.wav"))
    for number in range(clips):
        source = found[number % len(found)]
        label = source.relative_to(dataset).parts[0]
        os.symlink(source.resolve(), target / label / f"{number:05d}.wav")
    return target


def write_report(output: Path, clips: int, runs, parts, growth, cores, prepared: float) -> None:
    median = {name: statistics.median(run[0] for run in timed) for name, timed in runs.items()}
    lines = [
        "# Speed", "",
        f"Written by `make bench` on {os.cpu_count()} cores ({platform.machine()}, {platform.system()}), "
        f"{clips} real clips of five seconds, {len(runs['ours'])} rounds. Whole processes, loading and writing "
        f"included.", "",
        "| whole process | seconds (each round) | clips a second | against panns-inference (each round) | peak memory "
        "| processor use |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    names = {
        "panns-inference": "`panns-inference` 0.1.1, one clip at a time", "ours": "ours, Cnn14",
        "mn04": "ours, mn04", "compact": "ours, compact checkpoint",
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
        "", f"The first run with a Cnn14 checkpoint took {prepared:.0f} s: the network is converted once.", "",
        "| part, one clip, median | ms |", "| --- | --- |",
    ]  # fmt: skip
    lines += [f"| {PARTS[name]} | {milliseconds:.1f} |" for name, milliseconds in parts.items()]
    lines += ["", "| compact checkpoint, clips | seconds | clips a second | peak memory |", "| --- | --- | --- | --- |"]
    lines += [f"| {n} | {run[0]:.1f} | {n / run[0]:.1f} | {run[1]:.0f} MB |" for n, run in growth.items()]
    lines += ["", "| compact checkpoint, `--jobs` | seconds |", "| --- | --- |"]
    lines += [f"| {n} | {run[0]:.1f} |" for n, run in cores.items()]
    output.write_text("\n".join(lines) + "\n\n![Speed](results.png)\n", encoding="utf-8")


def draw(output: Path, clips: int, runs, parts, growth) -> None:
    figure = Figure(figsize=(15, 4.2), layout="constrained")  # not pyplot, which needs a backend
    left, middle, right = figure.subplots(1, 3)
    names = {
        "panns-inference": "panns-inference",
        "ours": "ours, Cnn14",
        "mn04": "ours, mn04",
        "compact": "ours, compact",
    }
    speeds = [clips / statistics.median(run[0] for run in timed) for timed in runs.values()]
    bars = left.barh([names[name] for name in runs], speeds, color=["#9a9a9a", "#1f6fb2", "#8a5fb2", "#2a9d5c"])
    left.bar_label(bars, [f"{speed:.1f}" for speed in speeds], padding=3)
    left.set(title=f"{clips} clips, whole process", xlabel="clips a second")
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=ROOT / "dataset", help="folder of step 1, with manifest.csv")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results.md")
    args = parser.parse_args()
    if not (args.dataset / "manifest.csv").is_file():
        parser.error(f"{args.dataset} has no manifest.csv: run filterAudioToDangerousAndSafe.py first")
    return args


if __name__ == "__main__":
    main()
