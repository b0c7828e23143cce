"""What compare_models.py prints and writes: one table, pictures, the page of mistakes."""

from pathlib import Path

import pandas as pd

from danger_safe.core.atomic import atomic_path, without_formula
from danger_safe.core.paths import PathOrUrl
from danger_safe.embeddings.table import EmbeddingTable, describe_data
from danger_safe.evaluation.compared_models import ComparedModel, comparison_row
from danger_safe.evaluation.intervals import Estimate
from danger_safe.evaluation.metrics import category_table, matrices_side_by_side
from danger_safe.evaluation.model_comparison import recommend
from danger_safe.reports.comparison_plots import draw_comparison, draw_confusions
from danger_safe.reports.mistakes_page import write_mistakes


def write_comparison(
    folder: Path, table: EmbeddingTable, contestants: list[ComparedModel], dataset: PathOrUrl | None
) -> list[Path]:
    """Print and draw the comparison; returns the files that were written."""
    comparison = pd.DataFrame([comparison_row(contestant) for contestant in contestants]).sort_values(
        "roc_auc", ascending=False
    )
    names = ("model_comparison.png", "model_comparison.csv", "model_confusion_matrices.png")
    picture, table_file, matrices = (folder / name for name in names)
    with atomic_path(table_file) as part:
        comparison.map(without_formula).to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    results = {contestant.title: contestant.result for contestant in contestants}
    draw_comparison(picture, describe_data(table), results)
    draw_confusions(matrices, describe_data(table), results)

    counted = [name for name in comparison if name[:3] in ("TN@", "FP@", "FN@", "TP@") or name.startswith("recall of ")]
    shown = comparison.drop(columns=["file", *counted]).set_index("model").T  # measures down, models across
    print(shown.to_string(header=True, float_format=lambda value: f"{value:.3f}"))
    at_half = {contestant.title: contestant.report.at_half.confusion for contestant in contestants}
    at_threshold = {contestant.title: contestant.report.at_threshold.confusion for contestant in contestants}
    print(matrices_side_by_side(at_half, at_threshold))
    own = [contestant for contestant in contestants if contestant.file]
    print(category_table({contestant.title: contestant.report.categories for contestant in own}))
    per_hour = {c.title: Estimate(*c.per_hour["at_min_recall"]) for c in own if c.per_hour}
    titles = [contestant.title for contestant in own]
    recommendation = recommend(results, titles, per_hour)
    for line in [*recommendation.differences, recommendation.sentence]:
        print(line)
    print(f"majority baseline: {contestants[-1].report.majority_baseline:.1%} accuracy")
    return [picture, table_file, matrices, *write_mistakes(folder, table, results, titles, dataset)]
