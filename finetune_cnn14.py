"""Optional: train the network itself, from scratch or on from a checkpoint, on your own sounds or ESC-50's 50 categories.

    python finetune_cnn14.py --dataset dataset/ESC-50-master --output my_cnn14.pth --holdout-fold 5
    python finetune_cnn14.py --dataset my_sounds --checkpoint compact --target label --output my_cnn14.pth

In:   folders of sounds: ESC-50, what step 1 wrote, or one folder a category
Out:  a checkpoint for extractEmbeddingCnn14.py --checkpoint my_cnn14.pth, which carries its settings, licence and the
      names of its training clips

Without a GPU expect half a minute a pass for 2,000 clips at width 16. The state is saved every two minutes beside the
output; the same command goes on from it. models/cnn14_compact.pth was made with this script: models/README.md.
"""

import sys
import tomllib
from pathlib import Path

from tqdm import tqdm

from danger_safe import cli
from danger_safe.clips import LABEL_NAMES, Clip, read_clips
from danger_safe.errors import UserError

# One common denominator for recordings of all kinds: benchmarks/compact.md tells how it was found.
COMPACT_FRONT_END = {"fmax": 7_000.0, "floor": 10**-3.5, "normalise": True}


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    if args.output.suffix != ".pth":
        raise UserError(f"{args.output}: the checkpoint must be named .pth")
    clips = [clip for folder in args.dataset for clip in read_clips(folder)]
    names = class_names(clips, args.target, read_same(args.same))
    training = [clip for clip in clips if not args.holdout_fold or clip.fold != args.holdout_fold]
    held_out = [clip for clip in clips if args.holdout_fold and clip.fold == args.holdout_fold]
    if args.holdout_fold and not held_out:
        raise UserError(f"no clip has fold {args.holdout_fold}: nothing to hold out")
    classes = sorted({names[clip] for clip in training})
    if len(classes) < 2:
        raise UserError(f"one class only ({classes[0]}): a network cannot learn to tell it from anything")

    import numpy as np
    import torch

    from danger_safe.finetuning import Settings, Training, best_precision, held_out_accuracy
    from danger_safe.sound_store import SoundStore
    from models.checkpoints import load_model, save_checkpoint
    from models.models import Cnn14
    from models.torch_network import choose_device

    device = choose_device(args.device)
    precision = best_precision(device) if args.precision == "auto" else args.precision
    settings = Settings(
        epochs=args.epochs, seed=args.seed, batch_size=args.batch_size, per_category=args.per_category,
        rate=args.rate, precision=precision,
    )  # fmt: skip
    torch.manual_seed(args.seed)
    if args.checkpoint == "none":
        model = Cnn14(len(classes), args.width, **COMPACT_FRONT_END, multilabel=False, dropout=(0.0, 0.2))
    else:
        model, _ = load_model(args.checkpoint)
        model.replace_classes(len(classes))
    store, held_out_store = SoundStore(training), SoundStore(held_out)
    targets = np.array([classes.index(names[clip]) for clip in store.clips])
    held_out_targets = np.array([classes.index(names[clip]) for clip in held_out_store.clips])
    print(f"{len(store)} clips, {len(classes)} classes, {len(held_out_store)} clips held out, {precision} on {device}")

    with tqdm(total=args.epochs, desc="Training", unit="pass", file=sys.stderr) as bar:

        def after_epoch(run: Training) -> None:
            last = run.history[-1]
            if len(held_out_store) and (run.epoch % 5 == 0 or run.epoch == args.epochs):
                last["accuracy"] = held_out_accuracy(run.average, held_out_store, held_out_targets, device)
            bar.update(run.epoch - bar.n)
            bar.set_postfix({k: f"{v:.3f}" for k, v in last.items() if k in ("loss", "accuracy")})

        state_file = args.output.with_name(args.output.name + ".training")
        run = Training(model, store, targets, settings, state_file, device)
        network = run.run(after_epoch)

    save_checkpoint(
        args.output, network.to("cpu"), categories=classes, clips=[clip.path.name for clip in store.clips],
        licence=args.licence, training=run.describe() | {"started_from": args.checkpoint},
    )  # fmt: skip
    state_file.unlink(missing_ok=True)
    failures = store.failures + held_out_store.failures
    for file, reason in failures:
        cli.warn(f"{file} {reason}")
    accuracy = run.history[-1].get("accuracy")
    if accuracy is not None:
        print(f"accuracy on the {len(held_out_store)} held-out clips: {accuracy:.1%} of {len(classes)} classes")
    minutes = sum(epoch["seconds"] for epoch in run.history) / 60
    print(f"Wrote {args.output} after {args.epochs} passes, {minutes:.1f} minutes")
    print(f"Next: python extractEmbeddingCnn14.py --checkpoint {args.output}")
    return cli.SOME_FAILED if failures else cli.DONE


def class_names(clips: list[Clip], target: str, same: dict[str, str]) -> dict[Clip, str]:
    """The class that each clip teaches: Safe or Danger, or its category (by its other name, where it has one)."""
    if target == "category":
        return {clip: same.get(clip.category, clip.category) for clip in clips}
    unlabelled = [clip.file for clip in clips if clip.label is None]
    if unlabelled:
        raise UserError(f"--target label: {unlabelled[0]} is neither Danger nor Safe; run step 1, or --target category")
    return {clip: LABEL_NAMES[clip.label] for clip in clips}


def read_same(path: Path | None) -> dict[str, str]:
    """Names of one folder's categories that mean another's: ``dog_bark = "dog"``, from a TOML file."""
    if path is None:
        return {}
    try:
        same = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f'{path}: expected lines like dog_bark = "dog": {error}') from error
    if not all(isinstance(value, str) for value in same.values()):
        raise UserError(f'{path}: expected lines like dog_bark = "dog"')
    return same


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=Path, nargs="+", default=[Path("dataset")], metavar="DIR", help="folders of sounds")
    add("--checkpoint", default="none", metavar="NAME|FILE", help="where to start: cnn14, compact, a file, or none")
    add("--output", type=Path, default=Path("my_cnn14.pth"), metavar="FILE", help="checkpoint to write")
    add("--epochs", type=cli.whole_number(1), default=60, metavar="N", help="passes through the clips")
    add("--width", type=cli.whole_number(1), default=16, metavar="N", help="channels of the first block (from scratch)")
    add("--target", choices=("label", "category"), default="category", help="what to learn")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one")
    add("--holdout-fold", type=cli.whole_number(0), default=0, metavar="N", help="score on this fold, do not learn it")
    add("--same", type=Path, default=None, metavar="FILE", help='TOML: categories that mean another, dog_bark = "dog"')
    add("--per-category", type=cli.whole_number(1), default=32, metavar="N", help="clips of one category in a pass")
    add("--batch-size", type=cli.whole_number(2), default=32, metavar="N", help="clips in one step")
    add("--rate", type=float, default=2e-3, metavar="R", help="learning rate at its highest")
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="auto: bfloat16 where it is fast")
    add("--seed", type=cli.whole_number(0), default=0, metavar="N", help="of everything random")
    add("--licence", default="unstated", metavar="TEXT", help="licence of the result, kept in the checkpoint")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
