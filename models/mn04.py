"""mn04: EfficientAT's smallest AudioSet tagger, a MobileNetV3 that is as accurate there as Cnn14 at a hundredth of the
work.

    model, info = load_model("mn04")               # downloaded when absent: 4 MB, MIT licence
    output = model(torch.zeros(1, 160_000))        # five seconds, mono, 32 kHz
    output["embedding"]                            # (1, 384)
    output["clipwise_output"]                      # (1, 527), each in [0, 1]

Schmid, Koutini, Widmer, "Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation", 2023
(arXiv:2211.04772), after Howard et al., "Searching for MobileNetV3", 2019 (arXiv:1905.02244). Parameter names are those
of the official file.
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
    """Convolution, batch norm and, where there is one, activation; maps keep their size but for the stride."""
    layers = [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out, eps=NORM_EPS["mn04"], momentum=0.01),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): each channel times a factor that all channels' means decide."""

    def __init__(self, channels: int):
        super().__init__()
        inner = round_to_eight(channels // 4)
        layers = nn.ModuleDict({"fc1": nn.Linear(channels, inner), "fc2": nn.Linear(inner, channels)})
        self.conc_se_layers = nn.ModuleList([layers])  # the official file has one of a list here

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) both ways."""
        layers = self.conc_se_layers[0]
        first, second = layers.get_submodule("fc1"), layers.get_submodule("fc2")
        factor = torch.sigmoid(second(F.relu(first(x.mean(dim=(2, 3))))))
        return x * factor[:, :, None, None]


class InvertedResidual(nn.Module):
    """Many channels for the convolution, few between the blocks; added to what came in where shapes allow."""

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
    """EfficientAT's mn04; the arguments are SoundNetwork's."""

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
        # Pooling, dropout and their places are the official file's: layers are counted.
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
        """Length of an embedding."""
        return self.settings["dimensions"]

    @property
    def activations_per_frame(self) -> int:
        """Those of the second block's expansion, in half of the mel bins of every second frame."""
        return scaled(TABLE[1].expanded) * KALDI_MEL_BINS // 4

    @property
    def front_end(self) -> KaldiMel:
        """Log-mels by Kaldi's rule."""
        return KaldiMel()

    def logmel(self, waveform: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, 1, frames, 128); nothing is learnt there, and NumPy does it."""
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
        """``logits`` in NumPy: two layers."""
        return Head.from_torch(*(cast(nn.Linear, self.classifier[number]) for number in (2, 5)))
