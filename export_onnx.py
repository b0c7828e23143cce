"""Export a network to one ONNX file, from sound to embedding and tags, for phones, boards and other programs.

    python export_onnx.py                                      # the small network: compact.onnx, 16 MB
    python export_onnx.py --checkpoint mn04 --seconds 3        # of a fixed length, which some accelerators require
    python export_onnx.py --checkpoint my_network.pth --output my_network.onnx

In:   a checkpoint, by name or file
Out:  an ONNX file (opset 18, basic operations only: the spectrogram is a convolution). Its input is waveform: float32,
      mono, 32,000 samples a second, full scale 1, (batch, samples). Its outputs are embedding, (batch, dimensions), and
      tags, (batch, classes), each from 0 to 1. The file's metadata describe this, too, and name the tags

The file is written only if ONNX Runtime computes the same from it as PyTorch, on sounds of several kinds, levels and
lengths. The built-in detector (models/detector.npz) classifies the embedding of compact.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

from danger_safe.core import cli  # first: names the missing package, if one is

# isort: split
import argparse
import json
from collections.abc import Callable, Iterator

import numpy as np

from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.core.atomic import atomic_path
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite
from danger_safe.core.packages import is_installed
from models.checkpoint_files import checkpoint_name
from models.graph import waveform_graph
from models.logmel import MIN_SAMPLES
from models.numpy_network import NumpyNetwork
from models.onnx_file import write_onnx
from models.parity import MAX_ENGINE_ERROR, largest_error, probe_sounds
from models.weights import Weights, read_info, read_weights

TEST_LENGTHS_S = (0.2, 1.0, 5.0)  # seconds; lengths of the sounds that are tested; the first is padded with silence
MAX_TAG_ERROR = 1e-3  # largest difference of a tag's score
AUDIOSET_CLASSES = 527

Reference = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # waveforms (sounds, samples) -> (embeddings, tags)


def main(arguments: list[str]) -> int:
    args = parse_arguments(arguments)
    if not is_installed("onnxruntime"):
        raise UserError("ONNX Runtime, which tries what is written, is missing: pip install -r requirements/export.txt")
    output = args.output or Path(f"{Path(checkpoint_name(args.checkpoint)).stem}.onnx")
    check_overwrite(output)
    weights = read_weights(args.checkpoint)
    samples = None if args.seconds is None else round(args.seconds * SAMPLE_RATE)
    name, reference = open_reference(args.checkpoint, weights)
    with atomic_path(output) as part:
        with open(part, "wb") as file:
            write_onnx(waveform_graph(weights, samples), file, describe(weights, samples))
        lengths = [round(seconds * SAMPLE_RATE) for seconds in TEST_LENGTHS_S] if samples is None else [samples]
        error, tag_error = compare(part, reference, [probe_sounds(length) for length in lengths])
        megabytes = part.stat().st_size / 1e6
        if not (error <= MAX_ENGINE_ERROR and tag_error <= MAX_TAG_ERROR):
            raise UserError(f"nothing was written: ONNX Runtime's embeddings are {error:.1e} away from {name}'s")
    length = "any length" if args.seconds is None else f"{args.seconds:g} s"
    print(f"{output} written, {megabytes:.1f} MB: waveform of {length} at 32 kHz → embedding and tags")
    print(
        f"ONNX Runtime's embeddings are within {error:.1e} of {name}'s (of their mean), its tags within {tag_error:.1e}"
    )
    return cli.DONE


def open_reference(checkpoint: str, weights: Weights) -> tuple[str, Reference]:
    """Return the name and the function of the reference: PyTorch or, if it is not installed, NumPy."""
    if not is_installed("torch"):
        cli.warn("PyTorch is not installed: the file is held against this project's network in NumPy instead")
        return "NumPy", _numpy_reference(weights)
    import torch

    from models.checkpoints import load_model  # PyTorch takes seconds to import

    model, _ = load_model(checkpoint)

    def reference(sounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            output = model(torch.from_numpy(sounds))
        return output["embedding"].numpy(), output["clipwise_output"].numpy()

    return "PyTorch", reference


def _numpy_reference(weights: Weights) -> Reference:
    """Return the reference in NumPy."""
    network, multilabel = NumpyNetwork(weights), weights.info.settings["multilabel"]

    def reference(sounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        embeddings = network.embed(weights.front_end(sounds))
        logits = weights.head(embeddings)
        if multilabel:
            return embeddings, np.exp(-np.logaddexp(0, -logits))
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return embeddings, exponentials / exponentials.sum(axis=1, keepdims=True)

    return reference


def compare(file: Path, reference: Reference, groups: list[np.ndarray]) -> tuple[float, float]:
    """Run the exported network in ONNX Runtime and compare it with the reference.

    Args:
        file: the exported network.
        reference: the function that it has to agree with.
        groups: groups of sounds of equal length, (sounds, samples) each.

    Returns:
        The largest error of an embedding, as a fraction of its mean absolute value, and of a tag.
    """
    from models.onnx_network import open_session  # ONNX Runtime may not be installed

    session = open_session(file.read_bytes(), 1)  # not the path: on Windows an open file cannot be renamed
    has_fixed_batch = isinstance(session.get_inputs()[0].shape[0], int)
    errors = []
    for sounds in groups:
        for batch in _batches(sounds, 1 if has_fixed_batch else len(sounds)):
            embeddings, tags = session.run(["embedding", "tags"], {"waveform": batch})
            expected, expected_tags = reference(batch)
            errors.append((largest_error(embeddings, expected), float(np.abs(tags - expected_tags).max())))
    return float(np.max([e for e, _ in errors])), float(np.max([e for _, e in errors]))


def _batches(sounds: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (sounds[start : start + size] for start in range(0, len(sounds), size))


def describe(weights: Weights, samples: int | None) -> dict[str, str]:
    """Return the metadata of the ONNX file: its input, its outputs, and the origin of the weights."""
    info = weights.info
    is_dynamic = samples is None
    tag_names = info.categories
    if not tag_names and info.settings["classes"] == AUDIOSET_CLASSES:  # official checkpoints do not have the names
        tag_names = read_info("compact").categories
    return {
        "made_by": "danger-safe",
        "input": "waveform, float32, mono, full scale 1, (batch, samples)"
        + ("" if is_dynamic else ", of one shape only"),
        "sample_rate": str(SAMPLE_RATE),
        "batch": "any" if is_dynamic else "1",
        "samples": "any" if is_dynamic else str(samples),
        "seconds": "any" if is_dynamic else f"{samples / SAMPLE_RATE:g}",
        "output": f"embedding, (batch, {info.dimensions}); tags, (batch, {info.settings['classes']}), from 0 to 1",
        "tags_are": "independent of each other" if info.settings["multilabel"] else "fractions of 1",
        "tag_names": json.dumps(tag_names, ensure_ascii=False),
        "checkpoint": json.dumps({"name": info.name, "sha256": info.sha256}),
        "licence": info.licence or "not known",
    }


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--checkpoint", default="compact", metavar="NAME|FILE",
        help="compact: the small network of this repository; mn04 (4 MB) and cnn14 (327 MB): downloaded when absent; "
             "or a file")  # fmt: skip
    add("--output", type=Path, default=None, metavar="FILE",
        help="what is written (default: the checkpoint's name.onnx)")  # fmt: skip
    add("--seconds", type=cli.number(MIN_SAMPLES / SAMPLE_RATE), default=None, metavar="S",
        help=f"one length of sound, in batches of one; at least {MIN_SAMPLES / SAMPLE_RATE:g} (default: any length, "
             "any batch; short sounds are padded with silence)")  # fmt: skip
    args = parser.parse_args(arguments)
    if args.checkpoint == "mfcc":
        parser.error("--checkpoint mfcc is not a network")
    if args.output and args.output.suffix != ".onnx":
        parser.error("--output writes an .onnx")
    return args


if __name__ == "__main__":
    cli.run(main)
