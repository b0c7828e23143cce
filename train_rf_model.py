"""Step 3: train a Random Forest on the embeddings.

    python train_rf_model.py
    python train_rf_model.py --embeddings my.csv --output-dir results --jobs 4

In:   audio_embeddings.csv
Out:  rf_model.skops           the forest, with the chosen threshold and all that was measured
      rf_model.joblib          the same, for notebooks; opening it can run code
      rf_confusion_matrix.png  what it gets right and wrong, at 0.5 and at the chosen threshold
      rf_category_recall.png   which dangers are missed?
      rf_reliability.png       are its scores probabilities?
      rf_metrics.json          the same numbers, for programs

Scores are out of fold: no clip is judged by a model that knew its recording.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where python -I does not look by itself

from danger_safe.core import cli  # first: where a package is missing, it says what to do

# isort: split
from typing import TYPE_CHECKING

from danger_safe.core.flags import training_flags

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def build(seed: int, jobs: int) -> "Pipeline":
    """Trees split on one number at a time: no scaler needed."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        RandomForestClassifier(n_estimators=200, class_weight="balanced", random_state=seed, n_jobs=jobs)
    )


def main(arguments: list[str]) -> int:
    flags = training_flags(arguments, __doc__)
    from danger_safe.training import run_training  # scikit-learn takes seconds to load: once the flags are right

    return run_training(flags, "rf", "Random Forest", build)


if __name__ == "__main__":
    cli.run(main)
