"""The architectures of the three networks without PyTorch: settings, tensor shapes, strides.

The PyTorch modules are in models.py (Cnn14), compact.py and mn04.py. tests/models/test_engine.py checks that both
agree.
"""

from typing import NamedTuple

from models.kaldimel import KALDI_MEL_BINS
from models.logmel import MEL_BINS, N_FFT

Shapes = dict[str, tuple[int, ...]]

NORM_EPS = {"cnn14": 1e-5, "compact": 1e-5, "mn04": 1e-3}  # epsilon of batch norm
LAST_LAYER = {"cnn14": "fc_audioset", "compact": "fc_audioset", "mn04": "classifier.5"}
MEL_BINS_OF = {"cnn14": MEL_BINS, "compact": MEL_BINS, "mn04": KALDI_MEL_BINS}
DEFAULTS = {  # of settings that a checkpoint may omit; None means that it may not
    "cnn14": {"classes": 527, "fmin": 50.0, "fmax": 14_000.0, "floor": 1e-10, "normalise": False, "multilabel": True,
              "width": 64},
    "compact": {"classes": None, "fmin": 50.0, "fmax": 7_000.0, "floor": 1e-7, "normalise": False, "multilabel": False,
                "width": 24, "network": "compact"},
    "mn04": {"network": "mn04", "classes": 527, "multilabel": True, "dimensions": 384},
}  # fmt: skip

# Cnn14
CNN14_BLOCKS = 6
MEL_BANK = "logmel_extractor.melW"  # name of the tensor in the official checkpoint
COMPUTED = ("spectrogram_extractor.", "logmel_extractor.")  # prefixes of tensors that are computed from the settings

# The compact network. Kernels and strides are (frames, bins).
STEM_KERNEL, STEM_STRIDE = (7, 5), (4, 2)
COMPACT_STRIDES = ((2, 2), (2, 2), (2, 2), (1, 2))  # one per block
HIDDEN = 512  # units of the layer between embedding and tags

# mn04
WIDTH = 0.4  # multiplier of all numbers of channels below
LAST_CHANNELS = 1280  # units of the layer between embedding and tags, before the multiplier


class Row(NamedTuple):
    """An inverted residual block of MobileNetV3-Large; numbers of channels are before the width multiplier."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool  # whether it has squeeze-and-excitation
    activation: str  # Relu or HardSwish, ONNX's names
    stride: int


TABLE = (
    Row(3, 16, 16, False, "Relu", 1),
    Row(3, 64, 24, False, "Relu", 2),
    Row(3, 72, 24, False, "Relu", 1),
    Row(5, 72, 40, True, "Relu", 2),
    Row(5, 120, 40, True, "Relu", 1),
    Row(5, 120, 40, True, "Relu", 1),
    Row(3, 240, 80, False, "HardSwish", 2),
    Row(3, 200, 80, False, "HardSwish", 1),
    Row(3, 184, 80, False, "HardSwish", 1),
    Row(3, 184, 80, False, "HardSwish", 1),
    Row(3, 480, 112, True, "HardSwish", 1),
    Row(3, 672, 112, True, "HardSwish", 1),
    Row(5, 672, 160, True, "HardSwish", 2),
    Row(5, 960, 160, True, "HardSwish", 1),
    Row(5, 960, 160, True, "HardSwish", 1),
)


def round_to_eight(channels: float) -> int:
    """Round to a multiple of 8, at least 8 and never below 90 % of ``channels``."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def scaled(channels: int) -> int:
    """Apply the width multiplier of mn04 to a number of channels."""
    return round_to_eight(channels * WIDTH)


def tensor_shapes(architecture: str, settings: dict) -> Shapes:
    """Return the shapes of all learnt tensors of a network by name, without batch norm's batch counters."""
    if architecture == "mn04":
        return _mn04_shapes(settings["classes"])
    width, classes = settings["width"], settings["classes"]
    shapes: Shapes = _norm("bn0", MEL_BINS)
    if architecture == "cnn14":
        channels = [1, *(width * 2**n for n in range(CNN14_BLOCKS))]
        for number in range(1, CNN14_BLOCKS + 1):
            channels_in, out, block = channels[number - 1], channels[number], f"conv_block{number}"
            shapes |= {f"{block}.conv1.weight": (out, channels_in, 3, 3), f"{block}.conv2.weight": (out, out, 3, 3)}
            shapes |= _norm(f"{block}.bn1", out) | _norm(f"{block}.bn2", out)
        hidden = channels[-1]
    else:
        channels, hidden = [width * 2**n for n in range(len(COMPACT_STRIDES) + 1)], HIDDEN
        shapes |= {"stem.weight": (width, 1, *STEM_KERNEL)} | _norm("bn_stem", width)
        for number in range(1, len(channels)):
            channels_in, out, block = channels[number - 1], channels[number], f"block{number}"
            for layer, shape in (("1", (out, channels_in, 3, 3)), ("2", (out, out, 3, 3))):
                shapes |= {f"{block}.conv{layer}.weight": shape} | _norm(f"{block}.bn{layer}", out)
            shapes |= {f"{block}.shortcut.weight": (out, channels_in, 1, 1)} | _norm(f"{block}.bn_shortcut", out)
    return shapes | _linear("fc1", channels[-1], hidden) | _linear("fc_audioset", hidden, classes)


def official_front_end() -> Shapes:
    """Return the shapes of the front end's tensors, which the checkpoints of PANNs contain, too."""
    bins = N_FFT // 2 + 1
    matrices = {f"spectrogram_extractor.stft.conv_{part}.weight": (bins, 1, N_FFT) for part in ("real", "imag")}
    return matrices | {MEL_BANK: (bins, MEL_BINS)}


def _mn04_shapes(classes: int) -> Shapes:
    """Return the shapes of mn04's tensors. Names count the layers, of which some are absent in some blocks."""
    channels = scaled(TABLE[0].out)
    shapes: Shapes = _sequence("features.0", channels, 1, 3)
    for number, row in enumerate(TABLE, start=1):
        expanded, out, block, layer = scaled(row.expanded), scaled(row.out), f"features.{number}.block", 0
        if expanded != channels:
            shapes |= _sequence(f"{block}.0", expanded, channels, 1)
            layer += 1
        shapes |= _sequence(f"{block}.{layer}", expanded, 1, row.kernel)
        if row.squeeze:
            layer += 1
            inner, name = round_to_eight(expanded // 4), f"{block}.{layer}.conc_se_layers.0"
            shapes |= _linear(f"{name}.fc1", expanded, inner) | _linear(f"{name}.fc2", inner, expanded)
        shapes |= _sequence(f"{block}.{layer + 1}", out, expanded, 1)
        channels = out
    shapes |= _sequence(f"features.{len(TABLE) + 1}", 6 * channels, channels, 1)
    hidden = scaled(LAST_CHANNELS)
    return shapes | _linear("classifier.2", 6 * channels, hidden) | _linear(LAST_LAYER["mn04"], hidden, classes)


def _sequence(name: str, channels_out: int, channels_in: int, kernel: int) -> Shapes:
    return {f"{name}.0.weight": (channels_out, channels_in, kernel, kernel)} | _norm(f"{name}.1", channels_out)


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
