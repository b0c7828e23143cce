"""The compact network: what Cnn14 does, with a fortieth of its multiplications; trained from scratch on two cores.

    model = CompactNet(classes=75)
    output = model.eval()(torch.zeros(1, 160_000))  # five seconds, mono, 32 kHz
    output["embedding"]                             # (1, 512)

Residual blocks (He et al. 2015, arXiv:1512.03385) after a first convolution that halves time and frequency: nearly all
parameters stand where maps are small, and a training hears two and a half times as many sounds an hour as with a
Cnn14 of the same size. benchmarks/compact.md has what was compared.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.network import LogMelNetwork


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to what came in, brought to the same shape."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, kernel_size=1, bias=False)
        self.bn_shortcut = nn.BatchNorm2d(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels_in, frames, bins) -> (batch, channels_out, ceil(frames / stride), ceil(bins / stride))."""
        y = F.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = F.avg_pool2d(x, kernel_size=3, stride=2, padding=1, count_include_pad=False)
        return F.relu_(y + self.bn_shortcut(self.shortcut(x)))


class CompactNet(LogMelNetwork):
    """A small residual network with Cnn14's front end, pooling and last layers.

    width: channels of the first convolution; the embedding has 32 times as many numbers. The others: LogMelNetwork.
    """

    def __init__(
        self,
        classes: int,
        width: int = 16,
        *,
        fmin: float = 50.0,
        fmax: float = 7_000.0,
        floor: float = 10**-3.5,
        normalise: bool = True,
        multilabel: bool = False,
        dropout: tuple[float, float] = (0.0, 0.2),
    ):
        super().__init__(classes, fmin, fmax, floor, normalise, multilabel, dropout)
        self.settings |= {"width": width, "network": "compact"}
        self.stem = nn.Conv2d(1, width, kernel_size=5, stride=2, padding=2, bias=False)
        self.bn_stem = nn.BatchNorm2d(width)
        self.block1 = ResidualBlock(width, width * 2, stride=2)
        self.block2 = ResidualBlock(width * 2, width * 4, stride=2)
        self.block3 = ResidualBlock(width * 4, width * 8, stride=2)
        self.block4 = ResidualBlock(width * 8, width * 16, stride=2)
        self.block5 = ResidualBlock(width * 16, width * 32, stride=1)
        self.add_last_layers(width * 32, width * 32)

    def blocks(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 64) -> (batch, 32 * width, frames / 32 rounded up, 2)."""
        x = F.relu_(self.bn_stem(self.stem(x)))
        for block in (self.block1, self.block2, self.block3, self.block4, self.block5):
            x = self.drop(block(x), self.dropout[0])
        return x
