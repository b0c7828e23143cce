"""Cnn14 of PANNs: a waveform in, an embedding and class scores out. The reference that every engine is tested against.

    model = Cnn14()                                # the official network: width 64, 527 AudioSet classes
    output = model.eval()(torch.zeros(1, 160_000)) # five seconds, mono, 32 kHz
    output["embedding"]                            # (1, 2048)
    output["clipwise_output"]                      # (1, 527), each in [0, 1]

Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020
(arXiv:1912.10211). Parameter names are those of the official checkpoint. The width is a parameter: 16 makes the
compact network of this repository, with embeddings of 512 numbers.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchlibrosa.stft import LogmelFilterBank, Spectrogram

from danger_safe.audio import SAMPLE_RATE
from models.logmel import HOP_LENGTH, MEL_BINS, MIN_SAMPLES, N_FFT, QUIETEST_PEAK


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, then average pooling."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: torch.Tensor, pool: bool = True) -> torch.Tensor:
        """(batch, channels_in, frames, bins) -> (batch, channels_out, frames // 2, bins // 2), or unpooled."""
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, kernel_size=2) if pool else x


class Cnn14(nn.Module):
    """PANNs Cnn14.

    width: channels of the first block; the embedding has 32 times as many numbers.
    classes: outputs of the last layer (527: AudioSet's).
    fmin, fmax: the mel bank's range in Hz.
    floor: the least mel power; what is below sounds like silence to the network.
    normalise: scale each clip to a peak of 1 first. Together with a lower fmax and a higher floor it brings
        recordings of any level, bandwidth and bit depth to one common denominator (benchmarks/compact.md).
    multilabel: scores are independent (sigmoid, as in AudioSet) or sum to one (softmax).
    dropout: share of activations dropped in training, (after each block, around fc1).
    """

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
        super().__init__()
        self.settings = {
            "classes": classes, "width": width, "fmin": fmin, "fmax": fmax,
            "floor": floor, "normalise": normalise, "multilabel": multilabel,
        }  # fmt: skip
        self.normalise, self.multilabel, self.dropout = normalise, multilabel, dropout
        self.spectrogram_extractor = Spectrogram(n_fft=N_FFT, hop_length=HOP_LENGTH)
        self.logmel_extractor = LogmelFilterBank(
            sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=MEL_BINS, fmin=fmin, fmax=fmax, amin=floor, top_db=None
        )
        self.bn0 = nn.BatchNorm2d(MEL_BINS)
        self.conv_block1 = ConvBlock(1, width)
        self.conv_block2 = ConvBlock(width, width * 2)
        self.conv_block3 = ConvBlock(width * 2, width * 4)
        self.conv_block4 = ConvBlock(width * 4, width * 8)
        self.conv_block5 = ConvBlock(width * 8, width * 16)
        self.conv_block6 = ConvBlock(width * 16, width * 32)
        self.fc1 = nn.Linear(width * 32, width * 32)
        self.fc_audioset = nn.Linear(width * 32, classes)
        _initialise(self)

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return self.fc1.out_features

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mono float32 waveforms at 32 kHz, (batch, samples), to class scores and embeddings.

        Clips under 9,920 samples are padded with silence. A clip of any length works; memory grows with it
        (about 20 MB a second at width 64), so extraction cuts long recordings (danger_safe/extraction.py).
        Returns clipwise_output (batch, classes) and embedding (batch, 32 * width).
        """
        embedding = self.embed(self.logmel(waveform))
        scores = self.logits(embedding)
        scores = torch.sigmoid(scores) if self.multilabel else torch.softmax(scores, dim=1)
        return {"clipwise_output": scores, "embedding": embedding}

    def logmel(self, waveform: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> log-mel power in dB, (batch, 1, frames, 64), with samples // 320 + 1 frames."""
        waveform = prepare(waveform, self.normalise)
        return self.logmel_extractor(self.spectrogram_extractor(waveform))

    def embed(self, logmel: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 64) -> (batch, 32 * width)."""
        x = self.bn0(logmel.transpose(1, 3)).transpose(1, 3)
        blocks = [self.conv_block1, self.conv_block2, self.conv_block3, self.conv_block4, self.conv_block5]
        for block in blocks:
            x = self._drop(block(x), self.dropout[0])
        x = self._drop(self.conv_block6(x, pool=False), self.dropout[0])
        x = x.mean(dim=3)  # over frequency: (batch, channels, frames / 32)
        x = x.amax(dim=2) + x.mean(dim=2)  # what was loud once, and what lasted
        x = self._drop(x, self.dropout[1])
        return F.relu(self.fc1(x))

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """(batch, 32 * width) -> (batch, classes), before sigmoid or softmax."""
        return self.fc_audioset(self._drop(embedding, self.dropout[1]))

    def replace_classes(self, classes: int) -> None:
        """A new, untrained last layer for other classes, whose scores sum to one: the start of a fine-tuning."""
        self.fc_audioset = nn.Linear(self.dimensions, classes)
        _initialise(self.fc_audioset)
        self.multilabel = False
        self.settings |= {"classes": classes, "multilabel": False}

    def _drop(self, x: torch.Tensor, share: float) -> torch.Tensor:
        return F.dropout(x, share, training=True) if self.training and share else x


def _initialise(network: nn.Module) -> None:
    """Xavier weights, zero biases in every layer: as PANNs begin their training."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def prepare(waveform: torch.Tensor, normalise: bool) -> torch.Tensor:
    """Pad to MIN_SAMPLES with silence and, if asked, scale each clip to a peak of 1: (batch, samples) both ways."""
    if waveform.shape[-1] < MIN_SAMPLES:
        waveform = F.pad(waveform, (0, MIN_SAMPLES - waveform.shape[-1]))
    if normalise:
        waveform = waveform / waveform.abs().amax(dim=-1, keepdim=True).clamp_min(QUIETEST_PEAK)
    return waveform
