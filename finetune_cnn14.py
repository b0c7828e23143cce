"""Optional: train the network itself on your own sounds, starting from a checkpoint or from scratch.

    python finetune_cnn14.py --dataset my_sounds --checkpoint compact --output my_cnn14.pth
    python finetune_cnn14.py --dataset my_sounds --checkpoint compact --target label
    python finetune_cnn14.py --dataset dataset/ESC-50-master --checkpoint none --epochs 200

In:   folders of sounds: ESC-50, what step 1 wrote, Danger/ and Safe/, or one folder a category
Out:  my_cnn14.pth            a checkpoint for extractEmbeddingCnn14.py --checkpoint my_cnn14.pth, which carries its
                              settings, scores, licence and fingerprints of its training clips
      my_cnn14_learning.png   loss and validation score of every epoch

From a checkpoint, the new last layer is trained alone first, then all layers at a lower learning rate. The epoch with
the best score on held-out recordings is kept; training stops after --patience epochs without a better one. After an
interruption the same command resumes from the state beside the output.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

from danger_safe.core import cli  # first: names the missing package, if one is

# isort: split
import os
from collections import Counter
from statistics import median

from tqdm import tqdm

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.core.commands import command_line
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite
from danger_safe.data.categories import read_dangers, read_same
from danger_safe.data.clips import LABEL_NAMES, Clip, read_clips
from danger_safe.data.fingerprint import fingerprint
from danger_safe.data.splits import split
from models.checkpoint_files import checkpoint_path, expected_path

SCRATCH_LEARNING_RATE, FINETUNE_LEARNING_RATE = 2e-3, 2e-4  # peak values
MN04_LEARNING_RATE = 6e-5  # peak value; the one that EfficientAT's authors fine-tune with
HEAD_EPOCHS = 5  # epochs that train the last layer alone, from a checkpoint
DROPOUT = (0.0, 0.2)
DANGER_WEIGHT = 0.5  # weight of the danger loss, with --dangers
HALF_SAMPLE_RATE = SAMPLE_RATE // 2  # Hz; enough for networks whose mel bands end at 8 kHz
MIN_CLIPS_PER_CATEGORY = 32  # clips of one category in an epoch, by default


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    picture = args.output.with_name(args.output.stem + "_learning.png")
    state_file = args.output.with_name(args.output.name + ".training")
    for file in (args.output, picture, state_file):
        check_overwrite(file)

    # Clips, classes and the held-out recordings
    clips = [clip for folder in args.dataset for clip in read_clips(folder)]
    names = class_names(clips, args.target, read_same(args.same))
    scratch = args.checkpoint == "none"
    if args.checkpoint == "mfcc":
        raise UserError("--checkpoint mfcc is not a network: nothing in it can learn")
    if not scratch:
        checkpoint_path(args.checkpoint)
    train_clips, val_clips = split(clips, names, args.holdout_fold, args.seed)
    classes = sorted({names[clip] for clip in train_clips})
    dangerous = read_dangers(args.dangers, classes)
    if len(classes) < 2:
        raise UserError(f"one class only ({classes[0]}): a network cannot learn to tell it from anything")
    if args.holdout_fold == "auto" and not val_clips:
        cli.warn("too few recordings to hold some out: all epochs are done, and no score tells how good the result is")

    # after the clips are checked: PyTorch and matplotlib load for seconds
    import numpy as np
    import torch

    from danger_safe.finetuning.config import Settings, best_precision
    from danger_safe.finetuning.trainer import Training
    from danger_safe.finetuning.validation import ValidationSet
    from danger_safe.finetuning.waveform_store import WaveformStore
    from danger_safe.reports.learning_curve import draw_learning
    from models.checkpoints import load_model, save_checkpoint
    from models.compact import CompactNet
    from models.torch_network import choose_device

    # The network
    torch.manual_seed(args.seed)
    fingerprints: set[str] = set()
    same_classes = False  # whether the checkpoint has these classes, so that its last layer is kept
    if scratch:
        model = CompactNet(len(classes), args.width, dropout=DROPOUT)
    else:
        model, info = load_model(args.checkpoint)
        fingerprints |= info.fingerprints
        if info.names_only:
            cli.warn(f"{args.checkpoint} is of an older version: which sounds it was trained on will not be known")
        same_classes = list(info.categories) == classes
        if same_classes:
            model.dropout = DROPOUT
        else:
            model.replace_last_layer(len(classes))

    # Settings
    counts = Counter(names[clip] for clip in train_clips)
    device = choose_device(args.device)
    precision = best_precision(device) if args.precision == "auto" else args.precision
    settings = Settings(
        epochs=args.epochs, seed=args.seed, batch_size=args.batch_size,
        per_category=args.per_category or max(MIN_CLIPS_PER_CATEGORY, round(median(counts.values()))),
        learning_rate=args.learning_rate or default_learning_rate(scratch, model.settings),
        head_epochs=0 if scratch or same_classes else min(HEAD_EPOCHS, args.epochs - 1), frozen_norms=not scratch,
        class_weights=args.balance == "weights", patience=args.patience if val_clips else 0, precision=precision,
        danger_weight=DANGER_WEIGHT if dangerous else 0.0, corruption_p=args.bad_recordings,
    )  # fmt: skip

    # Waveforms
    sample_rate = HALF_SAMPLE_RATE if model.front_end.supports_half_rate else SAMPLE_RATE
    store = WaveformStore(train_clips, sample_rate)
    val_store = WaveformStore([clip for clip in val_clips if names[clip] in classes], sample_rate, "held-out sounds")
    if empty_classes := set(classes) - {names[clip] for clip in store.clips}:
        file, reason = store.failures[0]
        raise UserError(f"no clip of {', '.join(sorted(empty_classes))} could be read to learn from; {file} {reason}")
    targets = np.array([classes.index(names[clip]) for clip in store.clips])
    val = None
    if len(val_store):
        val = ValidationSet(val_store, np.array([classes.index(names[clip]) for clip in val_store.clips]))
    print(f"{len(store)} clips, {len(classes)} classes, {len(val_store)} clips held out, {precision} on {device}")

    # Training
    dangers = np.isin(classes, sorted(dangerous)) if dangerous else None
    training = Training(model, store, targets, settings, state_file, device, val, dangers)
    if training.epoch:
        print(f"Going on after epoch {training.epoch}, from {state_file}")
    with tqdm(total=args.epochs, initial=training.epoch, desc="Training", unit="epoch", file=sys.stderr) as bar:

        def after_epoch(training: Training) -> None:
            bar.update(training.epoch - bar.n)
            labels = {"loss": "loss", "held_out_balanced_accuracy": "held out"}
            latest = training.history[-1]
            bar.set_postfix({label: f"{latest[key]:.3f}" for key, label in labels.items() if key in latest})

        network = training.run(after_epoch)
        bar.total = training.epoch  # 100 %, also if --patience ended the training early
        bar.refresh()

    # Results
    fingerprints |= {fingerprint(clip.path) for clip in store.clips}
    save_checkpoint(
        args.output, network.to("cpu"), categories=classes, fingerprints=fingerprints,
        licence=args.licence, training=training.describe() | {"started_from": Path(args.checkpoint).name},
    )  # fmt: skip
    draw_learning(picture, training.history, training.best_epoch, len(classes))
    state_file.unlink(missing_ok=True)
    failures = store.failures + val_store.failures
    for file, reason in failures:
        cli.warn(f"{file} {reason}")
    if val:
        best = training.history[training.best_epoch - 1]
        print(
            f"best epoch {training.best_epoch}: {best['held_out_balanced_accuracy']:.1%} balanced accuracy on "
            f"{len(val_store)} clips of other recordings, {len(classes)} classes (chance: {1 / len(classes):.1%})"
        )
    minutes = sum(epoch["seconds"] for epoch in training.history) / 60
    print(f"Wrote {args.output} and {picture} after {training.epoch} epochs, {minutes:.1f} minutes")
    print(f"Next: {command_line('extract')} --checkpoint {args.output}")
    return cli.SOME_FAILED if failures else cli.DONE


def default_learning_rate(scratch: bool, settings: dict) -> float:
    """Return the peak learning rate for a network with these settings."""
    if scratch:
        return SCRATCH_LEARNING_RATE
    return MN04_LEARNING_RATE if settings.get("network") == "mn04" else FINETUNE_LEARNING_RATE


def class_names(clips: list[Clip], target: str, same: dict[str, str]) -> dict[Clip, str]:
    """Return the class of each clip: Safe or Danger, or its category, renamed by ``same`` if that has it."""
    if target == "category":
        return {clip: same.get(clip.category, clip.category) for clip in clips}
    unlabelled = [clip.file for clip in clips if clip.label is None]
    if unlabelled:
        raise UserError(f"--target label: {unlabelled[0]} is neither Danger nor Safe; run step 1, or --target category")
    return {clip: LABEL_NAMES[clip.label] for clip in clips if clip.label is not None}


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=Path, nargs="+", default=[Path("dataset")], metavar="DIR", help="folders of sounds")
    add("--checkpoint", default="compact", metavar="NAME|FILE",
        help="where to start: compact, mn04, cnn14, a file, or none")  # fmt: skip
    add("--output", type=Path, default=Path("my_cnn14.pth"), metavar="FILE", help="checkpoint to write")
    add("--epochs", type=cli.whole_number(1), default=60, metavar="N", help="passes through the clips, at most")
    add("--width", type=cli.whole_number(1, 256), default=16, metavar="N",
        help="channels of the first block (from scratch)")  # fmt: skip
    add("--target", choices=("label", "category"), default="category", help="what to learn")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one")
    add("--holdout-fold", type=fold, default="auto", metavar="N",
        help="fold to hold out, auto (the last, or a fifth of the recordings), or none")  # fmt: skip
    add("--patience", type=cli.whole_number(0), default=20, metavar="N",
        help="stop after so many epochs without a better score; 0: do all epochs")  # fmt: skip
    add("--balance", choices=("clips", "weights"), default="clips",
        help="clips: as many clips of every category in an epoch; "
             "weights: every clip once an epoch, small categories weigh more")  # fmt: skip
    add("--bad-recordings", type=cli.fraction, default=0.5, metavar="R",
        help="fraction of the sounds that are made as bad as phones, noise, small rooms and MP3 make them")  # fmt: skip
    add("--dangers", type=Path, nargs="+", default=[], metavar="FILE",
        help="TOML files like dataset/categories.toml: "
             "to take one of their dangers for a safe sound counts more than other mistakes")  # fmt: skip
    add("--same", type=Path, default=None, metavar="FILE", help='TOML: categories that mean another, dog_bark = "dog"')
    add("--per-category", type=cli.whole_number(1, 100_000), default=None, metavar="N",
        help="clips of one category in an epoch "
             f"(default: the median over the categories, at least {MIN_CLIPS_PER_CATEGORY})")  # fmt: skip
    add("--batch-size", type=cli.whole_number(2), default=32, metavar="N", help="clips in one step")
    add("--learning-rate", "--rate", type=cli.fraction, default=None, metavar="R",
        help=f"peak learning rate (default: {SCRATCH_LEARNING_RATE} from scratch, {FINETUNE_LEARNING_RATE} from a "
             f"checkpoint, {MN04_LEARNING_RATE} from mn04)")  # fmt: skip
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="auto: bfloat16 where it is fast")
    add("--seed", type=cli.whole_number(0), default=0, metavar="N", help="seed of everything random")
    add("--licence", default="unstated", metavar="TEXT", help="licence of the result, kept in the checkpoint")
    args = parser.parse_args(arguments)
    if args.output.suffix != ".pth":
        parser.error(f"--output {args.output}: the checkpoint must be named .pth")
    if args.output.is_dir() or not args.output.absolute().parent.is_dir():
        parser.error(f"--output {args.output}: cannot be written there; make the folder first")
    if not os.access(args.output.absolute().parent, os.W_OK):
        parser.error(f"--output {args.output}: this user may not write into the folder")
    if args.output.resolve() == expected_path(args.checkpoint).resolve():
        parser.error(f"--output {args.output} is where the training starts from: give another")
    return args


def fold(text: str) -> str:
    """Parse a fold's number, ``auto`` or ``none`` (an argparse type)."""
    return text if text in ("auto", "none") else str(int(text))


if __name__ == "__main__":
    cli.run(main)
