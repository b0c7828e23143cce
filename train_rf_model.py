"""Step 3: train a Random Forest on the embeddings.

    python train_rf_model.py
    python train_rf_model.py --embeddings my.csv --output-dir results --jobs 4

In:   audio_embeddings.csv
Out:  rf_model.skops           the forest, with the chosen threshold and all metrics
      rf_model.joblib          the same, for notebooks; opening it can run code
      rf_confusion_matrix.png  what it gets right and wrong, at 0.5 and at the chosen threshold
      rf_category_recall.png   which dangers are missed?
      rf_reliability.png       are its scores probabilities?
      rf_metrics.json          the same numbers, for programs

Scores are out of fold: every clip is scored by a model that was not trained on its recording.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

from danger_safe.core import cli  # first: names the missing package, if one is

# isort: split
from typing import TYPE_CHECKING

from danger_safe.core.flags import training_flags

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def build(seed: int) -> "Pipeline":
    """Return an unfitted Random Forest. Trees split on one feature at a time, so no scaler is needed."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    return make_pipeline(RandomForestClassifier(class_weight="balanced", random_state=seed))


def main(arguments: list[str]) -> int:
    flags = training_flags(arguments, __doc__)
    with cli.loading_libraries():  # after the flags are checked: scikit-learn loads for seconds
        from danger_safe.training import run_training

    return run_training(flags, "rf", "Random Forest", build)


if __name__ == "__main__":
    cli.run(main)
