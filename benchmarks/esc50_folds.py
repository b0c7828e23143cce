"""Compare networks on ESC-50's own folds: all 50 categories, and Danger or Safe in both mappings.

    python benchmarks/esc50_folds.py --esc50 dataset/ESC-50-master --checkpoints mn04 compact mfcc

Every clip is scored once, by a classifier that was trained on the other folds, on embeddings of whole clips. Prints a
Markdown table, and a warning if a network was trained on some of the clips.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import train_logreg_model
import train_mlp_model
import train_rf_model
from danger_safe.data.categories import read_categories
from danger_safe.data.clips import Clip, read_clips
from danger_safe.data.fingerprint import seen_clips
from danger_safe.embeddings.extractor import Extractor, group
from danger_safe.embeddings.plan import plan_extraction
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.evaluation.cross_validation import evaluate
from danger_safe.evaluation.metrics import confusion, ranking
from danger_safe.evaluation.thresholds import ThresholdRule
from models.engine import open_engine

ROOT = Path(__file__).resolve().parent.parent
MAPPINGS = {"default": "categories.toml", "wide": "categories_all.toml"}
CLASSIFIERS = {"Logistic Regression": train_logreg_model, "Random Forest": train_rf_model, "MLP": train_mlp_model}
C = 0.01  # inverse regularisation of the regression for 50 categories; fixed beforehand on mn04's features


def main() -> None:
    args = parse()
    clips = read_clips(args.esc50)
    print("| checkpoint | clips | measure | result |\n| --- | --- | --- | --- |")
    for checkpoint in args.checkpoints:
        features = embed(checkpoint, clips)
        folds, categories = np.array([c.fold for c in clips]), np.array([c.category for c in clips])
        right = out_of_fold(features, categories, folds) == categories
        by_fold = ", ".join(f"{right[folds == fold].mean():.1%}" for fold in np.unique(folds))
        show(checkpoint, len(clips), f"{len(np.unique(categories))} categories", f"{right.mean():.1%} ({by_fold})")
        for name, file in MAPPINGS.items():
            labels = read_categories(ROOT / "dataset" / file, set(categories))
            used = np.isin(categories, list(labels))
            table = as_table([c for c, use in zip(clips, used, strict=True) if use], labels, features[used])
            for title, script in CLASSIFIERS.items():
                result = evaluate(script.build(0), table, ThresholdRule(), 0, jobs=args.jobs)
                (safe, alarms), (missed, found) = confusion(result.labels, (result.scores >= 0.5).astype(int)).tolist()
                line = f"ROC-AUC {ranking(result.labels, result.scores)['roc_auc']:.4f}; at 0.5 {found} of "
                line += f"{found + missed} dangers, {alarms} of {safe + alarms} safe clips in alarm"
                show(checkpoint, len(result.labels), f"{name} mapping, {title}", line)


def show(*cells) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def embed(checkpoint: str, clips: list[Clip]) -> np.ndarray:
    """Return the embeddings of clips, (clips, dimensions)."""
    jobs = os.cpu_count() or 1
    with open_engine(checkpoint, "auto", jobs) as engine:
        if seen := sum(seen_clips(clips, engine.info.fingerprints, jobs)):
            print(f"warning: {checkpoint} was trained on {seen} of these clips: its scores are too high")
        with Extractor(engine, jobs, batch := engine.network.batch_size) as extractor:
            tasks = plan_extraction(clips, {}, jobs).tasks
            results = {result.file: result for part in extractor.results(group(tasks, batch)) for result in part}
    return np.stack([results[clip.file].embedding for clip in clips])


def out_of_fold(features: np.ndarray, categories: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return each clip's category as predicted by a Logistic Regression that was trained on the other folds."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2_000, class_weight="balanced"))
    predicted = np.empty_like(categories)
    for fold in np.unique(folds):
        val = folds == fold
        predicted[val] = clone(model).fit(features[~val], categories[~val]).predict(features[val])
    return predicted


def as_table(clips: list[Clip], labels: dict[str, int], features: np.ndarray) -> EmbeddingTable:
    """Return the embeddings as a table for ``evaluate``."""
    rows = [(c.file, labels[c.category], c.category, c.fold, c.source, False) for c in clips]
    columns = ["file", "label", "category", "fold", "source", "seen"]
    return EmbeddingTable(pd.DataFrame(rows, columns=columns), features, {}, Path())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--esc50", type=Path, default=ROOT / "dataset" / "ESC-50-master")
    parser.add_argument("--checkpoints", nargs="+", default=["mn04", "compact", "mfcc"])
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
