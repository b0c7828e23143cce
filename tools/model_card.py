"""Write the evaluation of models/detector.npz into its model card, models/README.md. ``make detector`` runs this.

    python -m tools.model_card

The text between the comments BEGIN and END is replaced. The numbers in README.md and README.vi.md are written by hand;
tests/test_documentation.py finds those that are out of date.
"""

from itertools import zip_longest
from pathlib import Path

from danger_safe.core import cli
from danger_safe.core.atomic import atomic_write_text
from danger_safe.data.categories import read_mappings
from danger_safe.detection.detector import SENSITIVITIES, load_builtin

ROOT = Path(__file__).resolve().parent.parent
MAPPINGS = (ROOT / "dataset" / "categories_all.toml", ROOT / "models" / "detector_categories.toml")
CARD = ROOT / "models" / "README.md"
BEGIN, END = "<!-- numbers: python -m tools.model_card -->", "<!-- end of numbers -->"
MIN_CLIPS = 40  # of a collection; smaller ones are not listed
MIN_ALARM_RATE = 0.05  # of a safe category; those with a lower rate are listed in one line


def main(arguments: list[str]) -> int:
    cli.new_parser(__doc__).parse_args(arguments)
    before, rest = CARD.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    atomic_write_text(CARD, before + BEGIN + "\n" + numbers(load_builtin().about) + END + after)
    print(f"Wrote {CARD}")
    return cli.DONE


def numbers(about: dict) -> str:
    """Return Markdown tables of the evaluation that the detector's file states."""
    left_out, ordinary = about["left_out"], about["ordinary"]
    normal = about["sensitivities"]["normal"]
    clips = f"{left_out['clips']:,} clips of {left_out['collections']} collections"
    hours = f"{ordinary['hours']:.1f} hours of {len(ordinary['collections'])} collections of rooms, streets and nature"
    lines = [
        f"{clips}, {left_out['danger']:,} of them dangers: ROC-AUC {left_out['roc_auc']:.3f}. False alarms per hour "
        f"were counted in {hours}. In brackets: 95 % intervals.",
        "",
        "| `--sensitivity` | threshold | dangers found | safe clips in alarm | false alarms per hour |",
        "| --- | --- | --- | --- | --- |",
        *(_operating_point(name, about["sensitivities"][name]) for name in SENSITIVITIES),
        "",
        *_categories(normal["alarms_by_category"]),
        "",
        *_collections(normal["alarms_by_collection"]),
    ]
    return "\n".join(lines) + "\n"


def _operating_point(name: str, point: dict) -> str:
    recall, alarms = (
        "{:.0f} % ({:.0f}–{:.0f} %)".format(*(100 * value for value in point[key]))
        for key in ("danger_recall", "false_alarms")
    )
    per_hour = "{:.1f} ({:.1f}–{:.1f})".format(*point["false_alarms_per_hour"])
    return f"| {name} | {point['threshold']:.2f} | {recall} | {alarms} | {per_hour} |"


def _categories(alarms: dict[str, str]) -> list[str]:
    labels = read_mappings(MAPPINGS)
    counts = {name: tuple(map(int, text.split(" of "))) for name, text in alarms.items()}
    order = sorted(counts, key=lambda name: (-counts[name][0] / counts[name][1], name))
    dangers = [name for name in reversed(order) if labels[name]]
    worst = [name for name in order if not labels[name] and counts[name][0] / counts[name][1] >= MIN_ALARM_RATE]
    few = [name for name in order if not labels[name] and name not in worst]
    lines = ["At `normal`, the dangers that are missed most and the safe sounds with most false alarms come first:", ""]
    lines += ["| danger | found | safe | in alarm |", "| --- | --- | --- | --- |"]
    for danger, safe in zip_longest(dangers, worst, fillvalue=""):
        lines.append(f"| {danger} | {alarms.get(danger, '')} | {safe} | {alarms.get(safe, '')} |")
    listed = ", ".join(f"{name} {alarms[name].replace(' of ', '/')}" for name in few)
    return [*lines, "", f"Under {MIN_ALARM_RATE:.0%} of the other safe categories' clips are in alarm: {listed}."]


def _collections(alarms: dict[str, str]) -> list[str]:
    lines = [f"By collection (those with {MIN_CLIPS} clips or more):", ""]
    lines += ["| collection | dangers found | safe clips in alarm |", "| --- | --- | --- |"]
    counts: dict[str, dict[str, str]] = {}
    for name, text in alarms.items():
        collection, kind = name.removesuffix(")").rsplit(" (", 1)
        counts.setdefault(collection, {})[kind] = text
    sizes = {name: sum(int(text.split(" of ")[1]) for text in kinds.values()) for name, kinds in counts.items()}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if sizes[name] >= MIN_CLIPS:
            lines.append(f"| {name} | {counts[name].get('danger', '')} | {counts[name].get('safe', '')} |")
    return lines


if __name__ == "__main__":
    cli.run(main)
