"""mn04: EfficientAT's smallest MobileNetV3, as accurate on AudioSet as Cnn14 at a hundredth of the cost.

    model, info = load_model("mn04")               # downloaded when absent: 4 MB, MIT licence
    output = model(torch.zeros(1, 160_000))        # five seconds, mono, 32 kHz
    output["embedding"]                            # (1, 384)
    output["clipwise_output"]                      # (1, 527), each in [0, 1]

Schmid, Koutini, Widmer, "Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation", 2023
(arXiv:2211.04772); Howard et al., "Searching for MobileNetV3", 2019 (arXiv:1905.02244). Parameter names are those of
the official checkpoint.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from models.architectures import LAST_CHANNELS, LAST_LAYER, NORM_EPS, TABLE, Row, round_to_eight, scaled
from models.head import Head
from models.kaldimel import KALDI_MEL_BINS, KaldiMel
from models.network import SoundNetwork, initialise

ACTIVATIONS = {"Relu": nn.ReLU, "HardSwish": nn.Hardswish}


def convolution(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    """Return a padded convolution without bias, batch norm and, if given, an activation.

    Args:
        channels_in: input channels.
        channels_out: output channels.
        kernel: width and height of the kernel.
        stride: stride in both directions.
        groups: groups of the convolution; as many as channels for a depthwise one.
        activation: class of the activation, if any.
    """
    layers = [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out, eps=NORM_EPS["mn04"], momentum=0.01),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): scales each channel by a learnt function of all channels' means."""

    def __init__(self, channels: int):
        super().__init__()
        inner = round_to_eight(channels // 4)
        layers = nn.ModuleDict({"fc1": nn.Linear(channels, inner), "fc2": nn.Linear(inner, channels)})
        self.conc_se_layers = nn.ModuleList([layers])  # a list of one, for the official parameter names

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> the same shape."""
        layers = self.conc_se_layers[0]
        first, second = layers.get_submodule("fc1"), layers.get_submodule("fc2")
        scale = torch.sigmoid(second(F.relu(first(x.mean(dim=(2, 3))))))
        return x * scale[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a residual connection if the shapes allow it."""

    def __init__(self, channels_in: int, row: Row):
        super().__init__()
        expanded, channels_out = scaled(row.expanded), scaled(row.out)
        activation = ACTIVATIONS[row.activation]
        layers = [] if expanded == channels_in else [convolution(channels_in, expanded, 1, activation=activation)]
        layers.append(convolution(expanded, expanded, row.kernel, row.stride, expanded, activation))
        layers += [Squeeze(expanded)] if row.squeeze else []
        layers.append(convolution(expanded, channels_out, 1))
        self.block = nn.Sequential(*layers)
        self.residual = row.stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels_in, height, width) -> (batch, channels_out, ceil(height / stride), ceil(width / stride))."""
        return x + self.block(x) if self.residual else self.block(x)


class Mn04(SoundNetwork):
    """EfficientAT's mn04.

    Args:
        classes: number of outputs.
        multilabel, dropout: see SoundNetwork.
    """

    last_layer = LAST_LAYER["mn04"]

    def __init__(self, classes: int = 527, *, multilabel: bool = True, dropout: tuple[float, float] = (0.0, 0.2)):
        super().__init__()
        self.multilabel, self.dropout = multilabel, dropout
        channels = scaled(TABLE[0].out)
        layers: list[nn.Module] = [convolution(1, channels, 3, 2, activation=nn.Hardswish)]
        for row in TABLE:
            layers.append(InvertedResidual(channels, row))
            channels = scaled(row.out)
        layers.append(convolution(channels, 6 * channels, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        hidden = scaled(LAST_CHANNELS)
        # The official parameter names count all layers, so those without parameters have to be at their places.
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6 * channels, hidden), nn.Hardswish(), nn.Identity(),
            nn.Linear(hidden, classes),
        )  # fmt: skip
        self.settings = {
            "network": "mn04", "classes": classes, "multilabel": multilabel, "dimensions": 6 * channels,
        }  # fmt: skip
        initialise(self)

    @property
    def dimensions(self) -> int:
        """Dimensions of an embedding."""
        return self.settings["dimensions"]

    @property
    def activations_per_frame(self) -> int:
        """Those of the second block's expansion, at half the mel bins and half the frames."""
        return scaled(TABLE[1].expanded) * KALDI_MEL_BINS // 4

    @property
    def front_end(self) -> KaldiMel:
        """Log-mels as Kaldi computes them."""
        return KaldiMel()

    def logmel(self, waveform: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, 1, frames, 128), computed in NumPy, since nothing is learnt there."""
        return torch.from_numpy(self.front_end(waveform.cpu().numpy()))[:, None].to(waveform.device)

    def embed(self, logmel: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 128) -> (batch, 384): the mean of the last feature maps over frequency and time."""
        return self.features(logmel.transpose(2, 3)).mean(dim=(2, 3))

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """(batch, 384) -> (batch, classes), before sigmoid or softmax."""
        hidden = F.hardswish(self.classifier[2](embedding))
        return self.classifier[5](self.drop(hidden, self.dropout[1]))

    @property
    def head(self) -> Head:
        """The two layers of ``logits`` in NumPy."""
        return Head.from_torch(*(cast(nn.Linear, self.classifier[number]) for number in (2, 5)))
