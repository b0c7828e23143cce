"""Evaluate a network: Logistic Regression on its embeddings, tested on a held-out fold of ESC-50.

    python benchmarks/judge_network.py --checkpoint my_cnn14.pth --esc50 dataset/ESC-50-master --holdout-fold 5

Prints the accuracy for 50 categories, and ROC-AUC, Danger recall and false alarms at 0.5 for the default and the wide
mapping, on clean and on corrupted clips (danger_safe/audio/corruptions.py). The classifiers are trained on clean clips
of the other folds. A warning counts held-out clips that the network was trained on, recognised by fingerprints.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from danger_safe.audio.corruptions import CORRUPTIONS, corrupt
from danger_safe.audio.decode import read_clip
from danger_safe.data.categories import read_categories
from danger_safe.data.clips import read_clips
from danger_safe.data.fingerprint import seen_clips
from models.engine import Engine, open_engine

ROOT = Path(__file__).resolve().parent.parent
MAPPINGS = {"default": "categories.toml", "wide": "categories_all.toml"}
BATCH = 16


def main() -> None:
    args = parse()
    clips = read_clips(args.esc50)
    held_out = np.array([clip.fold == args.holdout_fold for clip in clips])
    categories = np.array([clip.category for clip in clips])
    with open_engine(args.checkpoint, "cpu", os.cpu_count() or 1) as engine:
        test_clips = [clip for clip, is_test in zip(clips, held_out, strict=True) if is_test]
        seen = sum(seen_clips(test_clips, engine.info.fingerprints, os.cpu_count() or 1))
        if seen:
            print(f"warning: the network was trained on {seen} of the held-out clips: these scores are too high")
        train = embed(engine, [clip.path for clip, is_test in zip(clips, held_out, strict=True) if not is_test])
        paths = [clip.path for clip in test_clips]
        tests = {"clean": embed(engine, paths)} | {name: embed(engine, paths, name) for name in CORRUPTIONS}
    train_categories, test_categories = categories[~held_out], categories[held_out]
    report = {"checkpoint": args.checkpoint, "held-out clips": len(test_categories), "conditions": {}}
    all_categories = classifier().fit(train, train_categories)
    mappings = {}  # name -> (dangerous categories, all categories of the mapping)
    for name, file in MAPPINGS.items():
        labels = read_categories(ROOT / "dataset" / file, set(categories))
        mappings[name] = ([category for category, label in labels.items() if label], list(labels))
    danger_models = {}
    for name, (danger, used) in mappings.items():
        is_used = np.isin(train_categories, used)
        danger_models[name] = classifier().fit(train[is_used], np.isin(train_categories[is_used], danger))
    for condition, features in tests.items():
        scores = {"accuracy": float((all_categories.predict(features) == test_categories).mean())}
        for name, (danger, used) in mappings.items():
            is_used = np.isin(test_categories, used)
            truth = np.isin(test_categories[is_used], danger)
            danger_score = danger_models[name].predict_proba(features[is_used])[:, 1]
            scores[name] = {
                "auc": float(roc_auc_score(truth, danger_score)),
                "recall": float((danger_score[truth] >= 0.5).mean()),
                "false alarms": float((danger_score[~truth] >= 0.5).mean()),
            }
        report["conditions"][condition] = scores
    print_table(report)
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def classifier():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000, class_weight="balanced"))


def embed(engine: Engine, paths: list[Path], corruption: str | None = None) -> np.ndarray:
    """Return embeddings, (clips, dimensions), of clips with the given corruption."""

    def transform(numbered: tuple[int, Path]) -> np.ndarray:
        number, path = numbered
        samples = read_clip(path)
        if corruption:
            samples = corrupt(corruption, samples, np.random.default_rng(number))
        return engine.front_end(samples)

    with ThreadPoolExecutor(max(1, engine.max_concurrency)) as pool:
        logmels = list(tqdm(pool.map(transform, enumerate(paths)), corruption or "clean", len(paths), leave=False))
        order = sorted(range(len(paths)), key=lambda i: len(logmels[i]))  # all clips of a batch have the same length
        batches = []
        for _, same in groupby(order, key=lambda i: len(logmels[i])):
            same = list(same)
            batches += [same[i : i + BATCH] for i in range(0, len(same), BATCH)]
        results = pool.map(engine.embed, (np.stack([logmels[i] for i in batch]) for batch in batches))
        embeddings = np.empty((len(paths), engine.info.dimensions), np.float32)
        for batch, result in zip(batches, results, strict=True):
            embeddings[batch] = result
    return embeddings


def print_table(report: dict) -> None:
    print(f"\n{report['checkpoint']}, {report['held-out clips']} held-out clips\n")
    print(
        "| condition | 50 categories | default AUC | Danger recall | false alarms | wide AUC | recall | false alarms |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, scores in report["conditions"].items():
        cells = [f"{scores['accuracy']:.1%}"]
        for mapping in ("default", "wide"):
            cells += [f"{scores[mapping]['auc']:.3f}"]
            cells += [f"{scores[mapping][key]:.0%}" for key in ("recall", "false alarms")]
        print(f"| {name} | {' | '.join(cells)} |")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--checkpoint", required=True, help="compact, cnn14 or a file")
    parser.add_argument("--esc50", type=Path, default=Path("dataset/ESC-50-master"))
    parser.add_argument("--holdout-fold", type=int, default=5)
    parser.add_argument("--output", type=Path, default=None, help="file for the numbers as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
