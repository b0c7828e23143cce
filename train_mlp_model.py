"""Step 3: train a Multi-Layer Perceptron, a small neural network, on the embeddings.

    python train_mlp_model.py
    python train_mlp_model.py --embeddings my.csv --output-dir results --seed 1

In:   audio_embeddings.csv
Out:  mlp_model.skops           scaler and network, with the chosen threshold and all metrics
      mlp_model.joblib          the same, for notebooks; opening it can run code
      mlp_confusion_matrix.png  what it gets right and wrong, at 0.5 and at the chosen threshold
      mlp_category_recall.png   which dangers are missed?
      mlp_reliability.png       are its scores probabilities?
      mlp_metrics.json          the same numbers, for programs

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
    """Return an unfitted MLP with one hidden layer and strong weight decay.

    The principal components hold all of the information in at most as many numbers as there are clips, which makes the
    training several times as fast. Early stopping is off: scikit-learn would split clips of one recording at random.
    """
    from sklearn.decomposition import PCA
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = MLPClassifier((64,), alpha=1.0, max_iter=1000, tol=1e-3, learning_rate_init=1e-3, random_state=seed)
    return make_pipeline(StandardScaler(), PCA(), classifier)


def main(arguments: list[str]) -> int:
    flags = training_flags(arguments, __doc__)
    with cli.loading_libraries():  # after the flags are checked: scikit-learn loads for seconds
        from danger_safe.training import run_training

    return run_training(flags, "mlp", "MLP", build)


if __name__ == "__main__":
    cli.run(main)
