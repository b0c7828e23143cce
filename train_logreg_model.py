"""Step 3: train a Logistic Regression on the embeddings. The simplest of the three, and often the best.

    python train_logreg_model.py
    python train_logreg_model.py --embeddings my.csv --output-dir results --min-recall 0.98

In:   audio_embeddings.csv
Out:  logreg_model.skops           scaler and classifier, with the chosen threshold and all that was measured
      logreg_model.joblib          the same, for notebooks; opening it can run code
      logreg_confusion_matrix.png  what it gets right and wrong, at 0.5 and at the chosen threshold
      logreg_category_recall.png   which dangers are missed?
      logreg_reliability.png       are its scores probabilities?
      logreg_metrics.json          the same numbers, for programs

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
    """Strongly regularised: there are more dimensions than clips."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000, random_state=seed)
    return make_pipeline(StandardScaler(), classifier)


def main(arguments: list[str]) -> int:
    flags = training_flags(arguments, __doc__)
    from danger_safe.training import run_training  # scikit-learn takes seconds to load: once the flags are right

    return run_training(flags, "logreg", "Logistic Regression", build)


if __name__ == "__main__":
    cli.run(main)
