"""Step 3: train a Logistic Regression on the embeddings. The simplest of the three, and often the best.

    python train_logreg_model.py
    python train_logreg_model.py --embeddings my.csv --output-dir results --min-recall 0.98

In:   audio_embeddings.csv
Out:  logreg_model.skops           scaler and classifier, with the chosen threshold and all metrics
      logreg_model.joblib          the same, for notebooks; opening it can run code
      logreg_confusion_matrix.png  what it gets right and wrong, at 0.5 and at the chosen threshold
      logreg_category_recall.png   which dangers are missed?
      logreg_reliability.png       are its scores probabilities?
      logreg_metrics.json          the same numbers, for programs

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
    """Return an unfitted Logistic Regression, strongly regularised: embeddings have more dimensions than there are
    clips."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000, random_state=seed)
    return make_pipeline(StandardScaler(), classifier)


def main(arguments: list[str]) -> int:
    flags = training_flags(arguments, __doc__)
    with cli.loading_libraries():  # after the flags are checked: scikit-learn loads for seconds
        from danger_safe.training import run_training

    return run_training(flags, "logreg", "Logistic Regression", build)


if __name__ == "__main__":
    cli.run(main)
