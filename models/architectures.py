"""What the three networks are made of, for those who compute them without PyTorch: settings, shapes, strides.

The networks themselves are models.py (Cnn14), compact.py and mn04.py; tests/models/test_engine.py holds the two against
each other.
"""

from typing import NamedTuple

from models.kaldimel import KALDI_MEL_BINS
from models.logmel import MEL_BINS, N_FFT

Shapes = dict[str, tuple[int, ...]]

NORM_EPS = {"cnn14": 1e-5, "compact": 1e-5, "mn04": 1e-3}  # added to batch norm's variances
LAST_LAYER = {"cnn14": "fc_audioset", "compact": "fc_audioset", "mn04": "classifier.5"}
MEL_BINS_OF = {"cnn14": MEL_BINS, "compact": MEL_BINS, "mn04": KALDI_MEL_BINS}
DEFAULTS = {  # settings that a checkpoint may leave out; None: it may not
    "cnn14": {"classes": 527, "fmin": 50.0, "fmax": 14_000.0, "floor": 1e-10, "normalise": False, "multilabel": True,
              "width": 64},
    "compact": {"classes": None, "fmin": 50.0, "fmax": 7_000.0, "floor": 1e-7, "normalise": False, "multilabel": False,
                "width": 24, "network": "compact"},
    "mn04": {"network": "mn04", "classes": 527, "multilabel": True, "dimensions": 384},
}  # fmt: skip

# Cnn14
CNN14_BLOCKS = 6
MEL_BANK = "logmel_extractor.melW"  # in the official file
# Computed from the settings, not learnt: the DFT and mel matrices.
COMPUTED = ("spectrogram_extractor.", "logmel_extractor.")

# The compact network. Strides: (frames, bins).
STEM_KERNEL, STEM_STRIDE = (7, 5), (4, 2)
COMPACT_STRIDES = ((2, 2), (2, 2), (2, 2), (1, 2))  # of its blocks
HIDDEN = 512  # numbers between embedding and tags

# mn04
WIDTH = 0.4  # every channel number of the table is multiplied by it
LAST_CHANNELS = 1280  # of the layer before the last, before the width


class Row(NamedTuple):
    """One inverted residual of MobileNetV3-Large; channels are those before the width."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    activation: str  # Relu or HardSwish, as ONNX calls them
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
    """The nearest multiple of 8 that is at least 8, and never under nine tenths of ``channels``."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def scaled(channels: int) -> int:
    """Channels of the table at mn04's width."""
    return round_to_eight(channels * WIDTH)


def tensor_shapes(kind: str, settings: dict) -> Shapes:
    """The shape of every learnt tensor of a network, by name; counters of batches, which nothing needs, are left
    out."""
    if kind == "mn04":
        return _mn04(settings["classes"])
    width, classes = settings["width"], settings["classes"]
    shapes: Shapes = _norm("bn0", MEL_BINS)
    if kind == "cnn14":
        channels = [1, *(width * 2**n for n in range(CNN14_BLOCKS))]
        for number in range(1, CNN14_BLOCKS + 1):
            came, out, block = channels[number - 1], channels[number], f"conv_block{number}"
            shapes |= {f"{block}.conv1.weight": (out, came, 3, 3), f"{block}.conv2.weight": (out, out, 3, 3)}
            shapes |= _norm(f"{block}.bn1", out) | _norm(f"{block}.bn2", out)
        hidden = channels[-1]
    else:
        channels, hidden = [width * 2**n for n in range(len(COMPACT_STRIDES) + 1)], HIDDEN
        shapes |= {"stem.weight": (width, 1, *STEM_KERNEL)} | _norm("bn_stem", width)
        for number in range(1, len(channels)):
            came, out, block = channels[number - 1], channels[number], f"block{number}"
            for layer, shape in (("1", (out, came, 3, 3)), ("2", (out, out, 3, 3))):
                shapes |= {f"{block}.conv{layer}.weight": shape} | _norm(f"{block}.bn{layer}", out)
            shapes |= {f"{block}.shortcut.weight": (out, came, 1, 1)} | _norm(f"{block}.bn_shortcut", out)
    return shapes | _linear("fc1", channels[-1], hidden) | _linear("fc_audioset", hidden, classes)


def official_front_end() -> Shapes:
    """The tensors of the front end, which PANNs' own files hold beside the learnt ones."""
    bins = N_FFT // 2 + 1
    matrices = {f"spectrogram_extractor.stft.conv_{part}.weight": (bins, 1, N_FFT) for part in ("real", "imag")}
    return matrices | {MEL_BANK: (bins, MEL_BINS)}


def _mn04(classes: int) -> Shapes:
    came = scaled(TABLE[0].out)
    shapes: Shapes = _sequence("features.0", came, 1, 3)
    for number, row in enumerate(TABLE, start=1):
        expanded, out, block, part = scaled(row.expanded), scaled(row.out), f"features.{number}.block", 0
        if expanded != came:
            shapes |= _sequence(f"{block}.0", expanded, came, 1)
            part += 1
        shapes |= _sequence(f"{block}.{part}", expanded, 1, row.kernel)
        if row.squeeze:
            part += 1
            inner, layers = round_to_eight(expanded // 4), f"{block}.{part}.conc_se_layers.0"
            shapes |= _linear(f"{layers}.fc1", expanded, inner) | _linear(f"{layers}.fc2", inner, expanded)
        shapes |= _sequence(f"{block}.{part + 1}", out, expanded, 1)
        came = out
    shapes |= _sequence(f"features.{len(TABLE) + 1}", 6 * came, came, 1)
    hidden = scaled(LAST_CHANNELS)
    return shapes | _linear("classifier.2", 6 * came, hidden) | _linear(LAST_LAYER["mn04"], hidden, classes)


def _sequence(name: str, out: int, came: int, kernel: int) -> Shapes:
    return {f"{name}.0.weight": (out, came, kernel, kernel)} | _norm(f"{name}.1", out)


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def _linear(name: str, came: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, came), f"{name}.bias": (out,)}
