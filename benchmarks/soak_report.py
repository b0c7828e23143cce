"""What came of benchmarks/soak.py: memory, and the events against those that predict_danger.py finds in the recordings.

python benchmarks/soak_report.py soak        # the --folder of a run that is over, goes on, or was killed
"""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.core import cli
from danger_safe.detection.scorer import HOP_S

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 1 / 8  # of the run, which does not count for the growth
JOIN_BEFORE_S, JOIN_AFTER_S = 6.0, 14.0  # so near to where two recordings meet, one changes the other's events


def expect(folder: Path, names: list[str], recordings: list[np.ndarray]) -> list[list[list[float]]]:
    """[start, end] of the events that predict_danger.py finds in each recording."""
    (folder / "recordings_played").mkdir(exist_ok=True)
    files = [folder / "recordings_played" / f"{n:02}-{name}.wav" for n, name in enumerate(names)]
    for file, samples in zip(files, recordings, strict=True):
        soundfile.write(file, samples, SAMPLE_RATE, subtype="PCM_16")
    command = [sys.executable, ROOT / "predict_danger.py", "--quiet", "--format", "json", *files]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [[[event["start"], event["end"]] for event in json.loads(line)["events"]] for line in answer.splitlines()]


def place(start: float, lengths: list[float]) -> tuple[int, float, int]:
    """(recording, seconds into it, loop) of a time since a source was connected."""
    loop, rest = divmod(start, sum(lengths))
    ends = np.cumsum(lengths)
    number = min(int(np.searchsorted(ends, rest, "right")), len(lengths) - 1)
    return number, float(rest - ends[number] + lengths[number]), int(loop)


def compare(events: list[dict], plan: dict) -> dict[str, int]:
    """Events of whole loops against those of the recordings: how many are the same within one hop."""
    lengths, counts = plan["lengths"], dict.fromkeys(("loops", "same", "moved", "lost", "more", "taught", "of"), 0)
    by_source: dict[str, list[dict]] = {}
    for event in events:
        by_source.setdefault(event["source"], []).append(event)
    for source, heard in by_source.items():
        ends = [n for n, (a, b) in enumerate(pairwise(heard), 1) if b["start"] < a["start"]]
        for begin, end in pairwise([0, *ends, len(heard)]):
            loops = int(heard[end - 1]["start"] // sum(lengths))
            if source != "source 1" and end < len(heard):
                loops = plan["loops"]
            counts["loops"] += loops
            found: dict[tuple[int, int], list[list[float]]] = {}
            for event in heard[begin:end]:
                number, start, loop = place(event["start"], lengths)
                found.setdefault((loop, number), []).append([start, start + event["end"] - event["start"]])
            for loop in range(loops):
                for number, expected in enumerate(plan["events"]):
                    _count(counts, expected, found.get((loop, number), []), lengths[number],
                           number in plan["false_alarms"])  # fmt: skip
    return counts


def _count(counts: dict[str, int], expected: list, found: list, length: float, is_taught: bool) -> None:
    """Compare the events of one recording, but for those at its ends."""
    expected, found = (
        [event for event in some if event[0] > JOIN_AFTER_S and event[1] < length - JOIN_BEFORE_S]
        for some in (expected, found)
    )
    if is_taught:
        counts["taught"], counts["of"] = counts["taught"] + len(found), counts["of"] + len(expected)
        return
    for event in expected:
        near = [other for other in found if other[0] < event[1] and other[1] > event[0]]
        is_same = any(np.abs(np.subtract(other, event)).max() <= HOP_S + 0.01 for other in near)
        counts["same" if is_same else "moved" if near else "lost"] += 1
    counts["more"] += sum(all(other[0] >= b or other[1] <= a for a, b in expected) for other in found)


def report(folder: Path) -> str:
    """What is known of a run by now, as Markdown."""
    samples, plan = read_lines(folder / "samples.jsonl"), json.loads((folder / "plan.json").read_text("utf-8"))
    events = read_lines(folder / "events.jsonl")
    warm = [sample for sample in samples if sample["hours"] >= WARM_UP * samples[-1]["hours"]]
    last, hours = samples[-1], np.array([sample["hours"] for sample in warm])
    memory = {name: np.array([sample[name] for sample in warm]) for name in ("listen_mb", "network_mb")}
    both = sum(memory.values())
    growth = [24 * np.polyfit(hours, values, 1)[0] for values in (both, *memory.values())]
    count, spans = compare(events, plan), {n: [s[n] for s in warm] for n in ("descriptors", "threads")}
    learnt = sum(" learnt from " in line for line in (folder / "stderr.txt").read_text("utf-8").splitlines())
    rows = {
        "sources, hours of audio, of time": f"{plan['sources']}, {last['hours']:.1f}, {last['seconds'] / 3600:.2f}",
        "memory, MB: mean, highest": f"{both.mean():.0f}, {both.max():.0f}",
        "of that, listen.py, the network": f"{memory['listen_mb'].mean():.0f}, {memory['network_mb'].mean():.0f}",
        f"growth after {WARM_UP:.0%} of the run, MB in 24 hours of audio":
            f"{growth[0]:+.1f} (listen.py {growth[1]:+.1f}, the network {growth[2]:+.1f})",
        "file descriptors, threads": ", ".join(f"{min(span)} to {max(span)}" for span in spans.values()),
        "events; verdicts, times learnt": f"{len(events)}; {last['verdicts']}, {learnt}",
        "kept, MB: sounds, windows": f"{last['recordings_mb']:.1f}, {last['windows_mb']:.1f}",
        "whole loops of the recordings": str(count["loops"]),
        "events as in the recordings, within one hop": f"{count['same']}; moved {count['moved']}, lost "
            f"{count['lost']}, more {count['more']}",
        "of what was called a false alarm now and then": f"{count['taught']} of {count['of']}",
    }  # fmt: skip
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def read_lines(path: Path) -> list[dict]:
    """Of a file of JSON lines that may be being written."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def main(arguments: list[str]) -> int:
    parser = cli.new_parser(__doc__)
    parser.add_argument("folder", type=Path)
    print(report(parser.parse_args(arguments).folder))
    return cli.DONE


if __name__ == "__main__":
    cli.run(main)
