"""How many clips of each category do one's own sounds need? The learning curve, on recordings of other sources.

    python benchmarks/clips_needed.py --checkpoint my_cnn14.pth --dataset my_sounds --finetune 3

In:   a folder that steps 1 or 2 read, with a label and a source for every clip; best of categories that the
      network never heard, for that is what one's own are
Out:  benchmarks/clips_needed.png and .json: accuracy over the categories, and Danger/Safe ROC-AUC, against clips

Again and again the recordings are dealt anew: a third to test on, and of the rest 2, 5, 10, 20, 32 clips of each
category for a Logistic Regression on the embeddings, or for finetune_cnn14.py first. No recording is on both sides.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from judge_network import classifier, embed
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from danger_safe.data.clips import Clip, read_clips
from danger_safe.reports.canvas import COLOURS, new_figure, save
from models.engine import open_engine

ROOT = Path(__file__).resolve().parent.parent
SIZES = (2, 5, 10, 20, 32)
TEST_SHARE = 1 / 3  # of the recordings of each category
MEASURES = {"accuracy": "accuracy over the categories", "auc": "Danger/Safe ROC-AUC"}


def main() -> None:
    args = parse()
    clips = read_clips(args.dataset)
    with open_engine(args.checkpoint, "cpu", os.cpu_count() or 1) as engine:
        heard = sorted({clip.category for clip in clips} & set(engine.info.categories or ()))
        name = engine.info.name
        embeddings = embed(engine, [clip.path for clip in clips])
    results = {"embeddings as they are": {size: [] for size in SIZES}}
    for number in tqdm(range(args.draws), "embeddings as they are"):
        for size, learn, test in deal(clips, number):
            scores = judge(clips, embeddings, learn, test)
            results["embeddings as they are"][size].append(scores)
    if args.finetune:
        results["fine-tuned first"] = {size: [] for size in SIZES}
        with tqdm(total=args.finetune * len(SIZES), desc="fine-tuned first") as bar:
            for number in range(args.finetune):
                for size, learn, test in deal(clips, number):
                    tuned = finetune(args.checkpoint, clips, learn, args.epochs)
                    results["fine-tuned first"][size].append(judge(clips, tuned, learn, test))
                    bar.update()
    report = {
        "checkpoint": name,
        "categories": sorted({clip.category for clip in clips}),
        "categories the network was trained on": heard,
        "clips": len(clips),
        "recordings": len({clip.source for clip in clips}),
        "results": results,
    }
    args.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(report, args.output)
    for way, sizes in results.items():
        for size, draws in sizes.items():
            middle = {key: np.median([scores[key] for scores in draws]) for key in MEASURES}
            print(f"{way}, {size} clips: accuracy {middle['accuracy']:.1%}, ROC-AUC {middle['auc']:.3f}")


def deal(clips: list[Clip], number: int):
    """(size, clips to learn from, clips to test on) for every size: indices, the larger sizes hold the smaller."""
    rng = np.random.default_rng(number)
    rest, test = [], []
    for category in sorted({clip.category for clip in clips}):
        members = np.array([i for i, clip in enumerate(clips) if clip.category == category])
        sources = np.array([clips[i].source for i in members])
        unique = rng.permutation(np.unique(sources))
        out = np.isin(sources, unique[: round(len(unique) * TEST_SHARE)])
        test.extend(members[out])
        rest.append(rng.permutation(members[~out]))
    for size in SIZES:
        yield size, np.concatenate([members[:size] for members in rest]), np.array(test)


def judge(clips: list[Clip], embeddings: np.ndarray, learn: np.ndarray, test: np.ndarray) -> dict[str, float]:
    category = np.array([clip.category for clip in clips])
    label = np.array([clip.label for clip in clips])
    answers = classifier().fit(embeddings[learn], category[learn]).predict(embeddings[test])
    danger = classifier().fit(embeddings[learn], label[learn]).predict_proba(embeddings[test])[:, 1]
    return {
        "accuracy": float(balanced_accuracy_score(category[test], answers)),
        "auc": float(roc_auc_score(label[test], danger)),
    }


def finetune(checkpoint: str, clips: list[Clip], learn: np.ndarray, epochs: int) -> np.ndarray:
    """The embeddings of all clips by a network fine-tuned on some of them, as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        for i in learn:
            target = Path(folder, "sounds", clips[i].category, f"{i}{Path(clips[i].file).suffix}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clips[i].path, target)
        output = Path(folder, "tuned.pth")
        flags = ["--checkpoint", checkpoint, "--epochs", str(epochs), "--holdout-fold", "none", "--output", output]
        command = [sys.executable, ROOT / "finetune_cnn14.py", "--dataset", Path(folder, "sounds"), *flags]
        subprocess.run(command, check=True, capture_output=True)
        with open_engine(str(output), "cpu", os.cpu_count() or 1) as engine:
            return embed(engine, [clip.path for clip in clips])


def draw(report: dict, path: Path) -> None:
    figure = new_figure(5, 11)
    axes = figure.subplots(1, 2, sharex=True)
    known = report["categories the network was trained on"]
    novelty = f"{len(known)} of them known to the network" if known else "none of which the network ever heard"
    figure.suptitle(f"How many clips do my own sounds need?\n{len(report['categories'])} categories, {novelty}")
    for axis, (key, words) in zip(axes, MEASURES.items(), strict=True):
        for colour, (way, sizes) in zip(COLOURS, report["results"].items(), strict=False):
            values = [np.array([scores[key] for scores in draws]) for draws in sizes.values()]
            middle = [np.median(v) for v in values]
            axis.plot(list(sizes), middle, "o-", color=colour, label=f"{way} ({len(values[0])} draws)")
            low, high = ([np.quantile(v, q) for v in values] for q in (0.1, 0.9))
            axis.fill_between(list(sizes), low, high, color=colour, alpha=0.15, linewidth=0)
            if colour == COLOURS[0]:
                for size, value in zip(sizes, middle, strict=True):
                    text = f"{value:.0%}" if key == "accuracy" else f"{value:.2f}"
                    axis.annotate(text, (size, value), (0, 8), textcoords="offset points", ha="center", color=colour)
        axis.set_xscale("log")
        axis.set_xticks(SIZES, [str(size) for size in SIZES])
        axis.minorticks_off()
        chance = 1 / len(report["categories"]) if key == "accuracy" else 0.5
        axis.axhline(chance, color="grey", linewidth=1, label="guessing")
        axis.set(xlabel="clips of each category", title=words, ylim=(0, 1.04))
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize=9, title="line: median; band: 10–90 % of the draws", title_fontsize=8)
    save(figure, path)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="compact", help="compact, cnn14 or a file")
    parser.add_argument("--dataset", type=Path, required=True, help="clips with labels and sources")
    parser.add_argument("--draws", type=int, default=30, help="how often the recordings are dealt anew")
    parser.add_argument("--finetune", type=int, default=0, help="draws on which the network is fine-tuned as well")
    parser.add_argument("--epochs", type=int, default=40, help="passes of such a fine-tuning")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "clips_needed.png")
    return parser.parse_args()


if __name__ == "__main__":
    main()
