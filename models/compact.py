"""The compact network: a small residual network for AudioSet tagging, distilled from mn04.

    model, info = load_model("compact")
    output = model(torch.zeros(1, 160_000))  # five seconds, mono, 32 kHz
    output["embedding"]                      # (1, 768)
    output["clipwise_output"]                # (1, 527), each in [0, 1]

Residual blocks (He et al. 2015, arXiv:1512.03385) follow a stem that keeps every fourth frame and every second mel bin:
dense convolutions on small maps learn most in an hour on two cores. It is trained by tools/distil, and the alternatives
that were tried are in benchmarks/compact.md.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.architectures import COMPACT_STRIDES, HIDDEN, STEM_KERNEL, STEM_STRIDE
from models.head import Head
from models.network import LogMelNetwork


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut of average pooling and a 1x1 convolution."""

    def __init__(self, channels_in: int, channels_out: int, stride: tuple[int, int]):
        super().__init__()
        self.stride = stride  # (frames, bins)
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, kernel_size=1, bias=False)
        self.bn_shortcut = nn.BatchNorm2d(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels_in, frames, bins) -> (batch, channels_out, frames / stride, bins / stride), rounded up."""
        y = F.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return F.relu_(y + self.bn_shortcut(self.shortcut(x)))


class CompactNet(LogMelNetwork):
    """A small residual network with Cnn14's front end.

    Args:
        classes: number of outputs.
        width: channels of the stem. The last block has 16 times as many, and the embedding is their means and maxima
            over time.
        fmin, fmax, floor, normalise, multilabel, dropout: see LogMelNetwork.
    """

    def __init__(
        self,
        classes: int,
        width: int = 24,
        *,
        fmin: float = 50.0,
        fmax: float = 7_000.0,
        floor: float = 1e-7,
        normalise: bool = False,
        multilabel: bool = False,
        dropout: tuple[float, float] = (0.0, 0.2),
    ):
        super().__init__(classes, fmin, fmax, floor, normalise, multilabel, dropout)
        self.settings |= {"width": width, "network": "compact"}
        self.stem = nn.Conv2d(
            1, width, STEM_KERNEL, STEM_STRIDE, padding=(STEM_KERNEL[0] // 2, STEM_KERNEL[1] // 2), bias=False
        )
        self.bn_stem = nn.BatchNorm2d(width)
        for number, stride in enumerate(COMPACT_STRIDES):
            block = ResidualBlock(width * 2**number, width * 2 ** (number + 1), stride)
            self.add_module(f"block{number + 1}", block)
        self.add_last_layers(width * 16, HIDDEN)

    @property
    def dimensions(self) -> int:
        """Dimensions of an embedding."""
        return 2 * self.fc1.in_features

    def blocks(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 64) -> (batch, 16 * width, frames / 32 rounded up, 2)."""
        x = F.relu_(self.bn_stem(self.stem(x)))
        for number in range(len(COMPACT_STRIDES)):
            block = self.get_submodule(f"block{number + 1}")
            x = self.drop(block(x), self.dropout[0])
        return x

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, frames) -> means and then maxima over time, (batch, 2 * channels)."""
        return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """(batch, dimensions) -> (batch, classes), before sigmoid or softmax."""
        mean, maximum = embedding.chunk(2, dim=1)
        hidden = F.relu(self.fc1(self.drop(mean + maximum, self.dropout[1])))
        return self.fc_audioset(self.drop(hidden, self.dropout[1]))

    @property
    def head(self) -> Head:
        """The layers of ``logits`` in NumPy. The first one is doubled, to add means and maxima."""
        (weight, bias), last = Head.from_torch(self.fc1, self.fc_audioset).layers
        return Head(((np.hstack([weight, weight]), bias), last), "relu")
