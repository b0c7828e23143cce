"""Cnn14 of PANNs in PyTorch: the reference implementation that every engine is tested against.

    model = Cnn14().eval()                   # the official network: width 64, 527 AudioSet classes
    output = model(torch.zeros(1, 160_000))  # five seconds, mono, 32 kHz
    output["embedding"]                      # (1, 2048)
    output["clipwise_output"]                # (1, 527), each in [0, 1]

Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020
(arXiv:1912.10211). Parameter names are those of the official checkpoint. The front end and the last layers are in
network.py.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.network import LogMelNetwork


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, then average pooling."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: torch.Tensor, pool: bool = True) -> torch.Tensor:
        """(batch, channels_in, frames, bins) -> (batch, channels_out, frames // 2, bins // 2), if ``pool``."""
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, kernel_size=2) if pool else x


class Cnn14(LogMelNetwork):
    """PANNs' Cnn14.

    Args:
        classes: number of outputs.
        width: channels of the first block; the embedding has 32 times as many dimensions.
        fmin, fmax, floor, normalise, multilabel, dropout: see LogMelNetwork.
    """

    stores_front_end = True  # as the official checkpoint does

    def __init__(
        self,
        classes: int = 527,
        width: int = 64,
        *,
        fmin: float = 50.0,
        fmax: float = 14_000.0,
        floor: float = 1e-10,
        normalise: bool = False,
        multilabel: bool = True,
        dropout: tuple[float, float] = (0.2, 0.5),
    ):
        super().__init__(classes, fmin, fmax, floor, normalise, multilabel, dropout)
        self.settings["width"] = width
        self.conv_block1 = ConvBlock(1, width)
        self.conv_block2 = ConvBlock(width, width * 2)
        self.conv_block3 = ConvBlock(width * 2, width * 4)
        self.conv_block4 = ConvBlock(width * 4, width * 8)
        self.conv_block5 = ConvBlock(width * 8, width * 16)
        self.conv_block6 = ConvBlock(width * 16, width * 32)
        self.add_last_layers(width * 32, width * 32)

    def blocks(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 64) -> (batch, 32 * width, frames // 32, 2)."""
        for block in (self.conv_block1, self.conv_block2, self.conv_block3, self.conv_block4, self.conv_block5):
            x = self.drop(block(x), self.dropout[0])
        return self.drop(self.conv_block6(x, pool=False), self.dropout[0])
