"""The figure of a fine-tuning: validation score and loss by epoch."""

from pathlib import Path

from matplotlib.ticker import MaxNLocator, PercentFormatter

from danger_safe.reports.canvas import BLUE, GREY, VERMILION, frame, new_figure, percent, save, styled


@styled
def draw_learning(path: Path, history: list[dict[str, float]], best_epoch: int, classes: int) -> None:
    """Draw validation score and loss by epoch.

    Args:
        path: the PNG.
        history: Training.history.
        best_epoch: the epoch that was kept; 0 if no clips were held out.
        classes: number of classes.
    """
    epochs = [entry["epoch"] for entry in history]
    dots = {"marker": "o", "markersize": 4} if len(epochs) < 40 else {}
    figure = new_figure(6.0 if best_epoch else 3.6)
    if best_epoch:
        scores = [entry["held_out_balanced_accuracy"] for entry in history]
        best = scores[best_epoch - 1]
        answer = (
            f"Kept: epoch {best_epoch} of {len(epochs)}, with a balanced accuracy of {percent(best)} on recordings "
            f"that it was not trained on (guessing: {percent(1 / classes)})."
        )
    else:
        answer = "No recordings were held out: how well it does on new ones is not known."
    note = (
        "Training loss is on sounds that were mixed and made worse on purpose, so it may stay above the held-out loss. "
        "A held-out loss that rises again means overfitting: the network learns its clips by heart."
    )
    frame(figure, "Learning curve: did the network learn?", [answer], [note])
    *above, loss = figure.subplots(2 if best_epoch else 1, 1, sharex=True, squeeze=False)[:, 0]
    for axis in above:
        axis.plot(epochs, scores, color=BLUE, linewidth=2, **dots)
        axis.plot(best_epoch, best, "o", color=BLUE, markersize=11, mec="black", label="kept")
        axis.axhline(1 / classes, color=GREY, linestyle=":", label="guessing")
        axis.set(ylabel="balanced accuracy,\nheld-out recordings", ylim=(-0.02, 1.05))
        axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    loss.plot(epochs, [entry["loss"] for entry in history], "--", color=GREY, linewidth=2, label="training", **dots)
    if best_epoch:
        held_out = [entry["held_out_loss"] for entry in history]
        loss.plot(epochs, held_out, color=VERMILION, linewidth=2, label="held-out recordings", **dots)
    loss.set(xlabel="epoch (once through the clips)", ylabel="loss")
    loss.set_ylim(bottom=0)
    loss.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    loss.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    for axis in (*above, loss):
        axis.grid()
        axis.legend()
    save(figure, path)
