"""Compare the train scripts' estimates for new recordings with the results on held-out folds of ESC-50.

    python benchmarks/estimates.py --esc50 dataset/ESC-50-master --checkpoint mn04 --output estimates

Each fold is held out in turn: the scripts run on the other folds, and their models and thresholds are applied to the
held-out fold. Prints estimated and observed values, with 95 % intervals over recordings. The network must not have been
trained on ESC-50.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from danger_safe.embeddings.table import EmbeddingTable, read_table
from danger_safe.evaluation.calibration import calibration, danger_scores
from danger_safe.evaluation.intervals import fraction_with_interval

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("logreg", "mlp", "rf")


def main() -> None:
    args = parse()
    meta = pd.read_csv(args.esc50 / "meta" / "esc50.csv")
    for fold in np.unique(meta["fold"]):
        folder = args.output / f"fold_{fold}"
        for name, rows in (("train", meta[meta["fold"] != fold]), ("test", meta[meta["fold"] == fold])):
            embed(args, folder / name, rows)
        for model in MODELS:
            run(f"train_{model}_model.py", "--embeddings", folder / "train" / "table.csv", "--output-dir", folder)
        report(fold, folder, read_table(folder / "test" / "table.csv"))


def embed(args: argparse.Namespace, folder: Path, rows: pd.DataFrame) -> None:
    """Run steps 1 and 2 on some of ESC-50's clips; write the table into ``folder``."""
    (folder / "esc50" / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "esc50" / "audio").mkdir(exist_ok=True)
    rows.to_csv(folder / "esc50" / "meta" / "esc50.csv", index=False)
    for name in rows["filename"]:
        shutil.copy(args.esc50 / "audio" / name, folder / "esc50" / "audio" / name)
    run("filterAudioToDangerousAndSafe.py", "--esc50", folder / "esc50", "--categories", args.categories,
        "--output", folder / "dataset")  # fmt: skip
    run("extractEmbeddingCnn14.py", "--dataset", folder / "dataset", "--checkpoint", args.checkpoint,
        "--output", folder / "table.csv")  # fmt: skip


def run(script: str, *arguments) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / script, *map(str, arguments)], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise SystemExit(f"{script}: {done.stderr}")


def report(fold: int, folder: Path, table: EmbeddingTable) -> None:
    """Print one line per model: estimated and observed values, and whether the latter are in the 95 % intervals."""
    labels, sources = table.labels, table.clips["source"].to_numpy()
    for name in MODELS:
        saved = joblib.load(folder / f"{name}_model.joblib")
        metrics, threshold = saved["metrics"], saved["threshold"]
        scores = danger_scores(saved["pipeline"], table.features)
        alarms = scores >= threshold
        pairs = {
            "dangers found": (metrics["estimate"]["danger_recall"], fraction(alarms, labels == 1, sources)),
            "safe clips with an alarm": (metrics["estimate"]["false_alarms"], fraction(alarms, labels == 0, sources)),
        }
        errors = [metrics["calibration"]["after"]["calibration_error"], calibration(labels, scores).calibration_error]
        line = {"fold": int(fold), "model": name, "threshold": threshold}
        line["calibration error"] = errors
        for measure, (estimated, observed) in pairs.items():
            inside = estimated[1] <= observed[0] <= estimated[2]
            line[measure] = {"estimated": estimated, "observed": observed, "inside": inside}
        print(json.dumps(line), flush=True)


def fraction(alarms: np.ndarray, clips: np.ndarray, sources: np.ndarray) -> list[float]:
    """Return the fraction of ``clips`` with an alarm, and its 95 % interval."""
    return fraction_with_interval(alarms[clips], sources[clips]).as_list()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--esc50", type=Path, default=ROOT / "dataset" / "ESC-50-master")
    parser.add_argument("--checkpoint", default="mn04", help="a network that was not trained on ESC-50")
    parser.add_argument("--categories", type=Path, default=ROOT / "dataset" / "categories.toml")
    parser.add_argument("--output", type=Path, required=True, help="folder to work in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
