"""Write the outputs of compare_models.py: a table, pictures, the page of mistakes."""

from pathlib import Path

import pandas as pd

from danger_safe.core.atomic import atomic_path, escape_formula
from danger_safe.core.paths import PathOrUrl
from danger_safe.embeddings.table import EmbeddingTable, describe_data
from danger_safe.evaluation.compared_models import ComparedModel, comparison_row
from danger_safe.evaluation.intervals import Estimate
from danger_safe.evaluation.metrics import category_table, matrices_side_by_side
from danger_safe.evaluation.model_comparison import HourlyRates, recommend
from danger_safe.reports.comparison_plots import draw_comparison, draw_confusions
from danger_safe.reports.mistakes_page import write_mistakes


def write_comparison(
    folder: Path, table: EmbeddingTable, models: list[ComparedModel], dataset: PathOrUrl | None
) -> list[Path]:
    """Print and draw the comparison; return the files that were written."""
    comparison = pd.DataFrame([comparison_row(model) for model in models]).sort_values("roc_auc", ascending=False)
    names = ("model_comparison.png", "model_comparison.csv", "model_confusion_matrices.png")
    picture, table_file, matrices = (folder / name for name in names)
    with atomic_path(table_file) as part:
        comparison.map(escape_formula).to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    results = {model.title: model.result for model in models}
    draw_comparison(picture, describe_data(table), results)
    draw_confusions(matrices, describe_data(table), results)

    counts = [name for name in comparison if name[:3] in ("TN@", "FP@", "FN@", "TP@") or name.startswith("recall of ")]
    metrics = comparison.drop(columns=["file", *counts]).set_index("model").T  # metrics down, models across
    print(metrics.to_string(header=True, float_format=lambda value: f"{value:.3f}"))
    at_half = {model.title: model.report.at_half.confusion for model in models}
    at_threshold = {model.title: model.report.at_threshold.confusion for model in models}
    print(matrices_side_by_side(at_half, at_threshold))
    saved_models = [model for model in models if not model.is_baseline]
    print(category_table({model.title: model.report.categories for model in saved_models}))
    per_hour = {
        model.title: HourlyRates(
            minutes=model.per_hour["minutes"],
            at_min_recall=Estimate(*model.per_hour["at_min_recall"]),
            at_threshold=Estimate(*model.per_hour["false_alarms_per_hour"]),
        )
        for model in saved_models
        if model.per_hour
    }
    titles = [model.title for model in saved_models]
    recommendation = recommend(results, titles, per_hour)
    for line in [*recommendation.differences, recommendation.sentence]:
        print(line)
    print(f"majority baseline: {models[-1].report.majority_baseline:.1%} accuracy")
    return [picture, table_file, matrices, *write_mistakes(folder, table, results, titles, dataset)]
