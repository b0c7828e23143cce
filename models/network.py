"""Base classes of the networks.

``SoundNetwork`` is the interface that engines, training and checkpoints use. ``LogMelNetwork`` implements the front end
and the last layers that Cnn14 (models.py) and the compact network (compact.py) have in common; mn04 (mn04.py) has its
own.
"""

from typing import ClassVar, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.head import Head
from models.kaldimel import KaldiMel
from models.logmel import MEL_BINS, MIN_PEAK, MIN_SAMPLES, LogMel, mel_bank
from models.torch_logmel import LogmelFilterBank, Spectrogram

_Module = TypeVar("_Module", bound=nn.Module)


def channels_last(network: _Module) -> _Module:
    """Convert a network's parameters to channels-last memory format, in which convolutions are faster."""
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] # missing in its stubs


class SoundNetwork(nn.Module):
    """A network that maps waveforms to embeddings and class scores.

    Attributes:
        settings: the arguments that build the same network again; also ``network``, its architecture, unless Cnn14.
        multilabel: scores are independent (sigmoid, as in AudioSet) rather than summing to one (softmax).
        dropout: probability that an activation is dropped in training, (in the blocks, in the last layers).
    """

    last_layer: ClassVar[str]  # name of the layer of class scores; fine-tuning trains it alone at first
    settings: dict
    multilabel: bool
    dropout: tuple[float, float]

    @property
    def dimensions(self) -> int:
        """Dimensions of an embedding."""
        raise NotImplementedError

    @property
    def activations_per_frame(self) -> int:
        """Size of the largest feature maps per frame of the log-mel, which determines the memory of a batch."""
        raise NotImplementedError

    @property
    def front_end(self) -> LogMel | KaldiMel:
        """The front end in NumPy: samples -> the log-mels that ``embed`` expects."""
        raise NotImplementedError

    def logmel(self, waveform: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, 1, frames, mel bins)."""
        raise NotImplementedError

    def embed(self, logmel: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, mel bins) -> (batch, dimensions)."""
        raise NotImplementedError

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """(batch, dimensions) -> (batch, classes), before sigmoid or softmax."""
        raise NotImplementedError

    @property
    def head(self) -> Head:
        """The layers of ``logits`` in NumPy."""
        raise NotImplementedError

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute class scores and embeddings.

        Clips of any length work. Memory grows with the length, by about 20 MB per second with the official Cnn14, so
        long recordings are embedded in windows (danger_safe/embeddings/extractor.py).

        Args:
            waveform: mono float32 at 32 kHz, (batch, samples); padded with silence to at least 9,920 samples.

        Returns:
            ``clipwise_output``, (batch, classes), and ``embedding``, (batch, dimensions).
        """
        embedding = self.embed(self.logmel(waveform))
        scores = self.logits(embedding)
        scores = torch.sigmoid(scores) if self.multilabel else torch.softmax(scores, dim=1)
        return {"clipwise_output": scores, "embedding": embedding}

    def replace_last_layer(self, classes: int) -> None:
        """Replace the last layer by an untrained one for other classes, whose scores sum to one, for fine-tuning."""
        old = self.get_submodule(self.last_layer)
        assert isinstance(old, nn.Linear)  # so it is in all three networks
        new = nn.Linear(old.in_features, classes)
        initialise(new)
        parent, _, name = self.last_layer.rpartition(".")
        setattr(self.get_submodule(parent), name, new)
        self.multilabel = False
        self.settings |= {"classes": classes, "multilabel": False}

    def drop(self, x: torch.Tensor, p: float) -> torch.Tensor:
        """Apply dropout in training mode."""
        return F.dropout(x, p, training=True) if self.training and p else x


class LogMelNetwork(SoundNetwork):
    """The front end and the last layers of Cnn14 and the compact network; subclasses add ``blocks``.

    Args:
        classes: number of outputs.
        fmin: lower limit of the mel bank in Hz.
        fmax: upper limit of the mel bank in Hz.
        floor: lower limit of the mel power; anything below looks like silence to the network.
        normalise: scale each clip to a peak of 1 first. With a lower fmax and a higher floor, this makes recordings of
            any level, bandwidth and bit depth comparable (benchmarks/compact.md).
        multilabel: see SoundNetwork.
        dropout: probability that an activation is dropped in training, (after each block, around fc1).
    """

    last_layer = "fc_audioset"
    stores_front_end = False  # whether the matrices of spectrogram and mel bank are among its tensors

    def __init__(
        self,
        classes: int,
        fmin: float,
        fmax: float,
        floor: float,
        normalise: bool,
        multilabel: bool,
        dropout: tuple[float, float],
    ):
        super().__init__()
        self.settings = {
            "classes": classes, "fmin": fmin, "fmax": fmax,
            "floor": floor, "normalise": normalise, "multilabel": multilabel,
        }  # fmt: skip
        self.normalise, self.multilabel, self.dropout = normalise, multilabel, dropout
        # A tuple keeps the modules unregistered, so that their tensors stay out of the state dict.
        self._logmel_modules = (Spectrogram(), LogmelFilterBank(fmin, fmax, floor))
        if self.stores_front_end:
            self.spectrogram_extractor, self.logmel_extractor = self._logmel_modules
        self.bn0 = nn.BatchNorm2d(MEL_BINS)

    def add_last_layers(self, channels: int, dimensions: int) -> None:
        """Add fc1, whose output is the embedding, and the layer of class scores.

        Called after the blocks have been created, so that the parameters are in the order of the official checkpoint.

        Args:
            channels: channels of the last block.
            dimensions: outputs of fc1.
        """
        self.fc1 = nn.Linear(channels, dimensions)
        self.fc_audioset = nn.Linear(dimensions, self.settings["classes"])
        initialise(self)

    @property
    def dimensions(self) -> int:
        """Dimensions of an embedding."""
        return self.fc1.out_features

    def blocks(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised log-mels (batch, 1, frames, 64) -> feature maps (batch, channels, fewer frames, fewer bins)."""
        raise NotImplementedError

    @property
    def activations_per_frame(self) -> int:
        """Those of the first block: its channels times the mel bins."""
        return self.settings["width"] * MEL_BINS

    @property
    def front_end(self) -> LogMel:
        """The same log-mels as ``logmel``, computed by a real FFT."""
        return LogMel(self.mel_bank, self.settings["floor"], self.settings["normalise"])

    def logmel(self, waveform: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> log-mel power in dB, (batch, 1, frames, 64), with samples // 320 + 1 frames."""
        spectrogram, mel_filters = (module.to(waveform.device) for module in self._logmel_modules)
        return mel_filters(spectrogram(prepare(waveform, self.normalise)))

    @property
    def mel_bank(self) -> np.ndarray:
        """Weights of the mel filters, (513, 64)."""
        if self.stores_front_end:
            return cast(torch.Tensor, self.logmel_extractor.melW).detach().cpu().numpy()
        return mel_bank(self.settings["fmin"], self.settings["fmax"])

    def embed(self, logmel: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 64) -> (batch, dimensions)."""
        return self.pool(self.framewise_features(logmel))

    def framewise_features(self, logmel: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 64) -> last feature maps, averaged over frequency: (batch, channels, fewer frames)."""
        x = self.bn0(logmel.transpose(1, 3)).transpose(1, 3)
        return self.blocks(x).mean(dim=3)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``framewise_features`` over time: (batch, channels, frames) -> (batch, dimensions)."""
        x = x.amax(dim=2) + x.mean(dim=2)  # short events and lasting sounds
        x = self.drop(x, self.dropout[1])
        return F.relu(self.fc1(x))

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """(batch, dimensions) -> (batch, classes), before sigmoid or softmax."""
        return self.fc_audioset(self.drop(embedding, self.dropout[1]))

    @property
    def head(self) -> Head:
        """The layer of ``logits`` in NumPy."""
        return Head.from_torch(self.fc_audioset)


def initialise(network: nn.Module) -> None:
    """Initialise all layers with Xavier weights and zero biases, as PANNs do."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def prepare(waveform: torch.Tensor, normalise: bool) -> torch.Tensor:
    """Pad clips to MIN_SAMPLES with silence and, if ``normalise``, scale each to a peak of 1: (batch, samples)."""
    if waveform.shape[-1] < MIN_SAMPLES:
        waveform = F.pad(waveform, (0, MIN_SAMPLES - waveform.shape[-1]))
    if normalise:
        waveform = waveform / waveform.abs().amax(dim=-1, keepdim=True).clamp_min(MIN_PEAK)
    return waveform
