"""The picture of a training: loss and held-out score, pass by pass."""

from pathlib import Path

import matplotlib.pyplot as plt

from danger_safe.reports.plots import save


def draw_learning(path: Path, history: list[dict[str, float]], best_epoch: int) -> None:
    """``history`` is Training.history; ``best_epoch`` is marked where clips were held out (0: none were)."""
    passes = [entry["epoch"] for entry in history]
    figure, loss = plt.subplots(figsize=(8, 4.5), layout="constrained")
    loss.plot(passes, [entry["loss"] for entry in history], color="#9a9a9a", label="loss, training (with augmentation)")
    loss.set(xlabel="pass", ylabel="loss", title="Learning curve")
    loss.set_ylim(bottom=0)
    if best_epoch:
        loss.plot(passes, [entry["held_out_loss"] for entry in history], color="#c2571a", label="loss, held out")
        score = loss.twinx()
        values = [entry["held_out_balanced_accuracy"] for entry in history]
        score.plot(passes, values, color="#1f6fb2", label="balanced accuracy, held out (right)")
        score.plot(best_epoch, values[best_epoch - 1], "o", color="#1f6fb2")
        score.annotate(
            f"kept: pass {best_epoch}, {values[best_epoch - 1]:.1%}", (best_epoch, values[best_epoch - 1]),
            xytext=(0, -16), textcoords="offset points", ha="center", color="#1f6fb2",
        )  # fmt: skip
        score.set(ylabel="balanced accuracy", ylim=(0, 1.05))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)
