"""What the networks here share: what a network is for the engines, and the frame of Cnn14 and the compact network.

``SoundNetwork`` is what engines, trainings and checkpoints ask for. ``LogMelNetwork`` is the frame of Cnn14 (models.py)
and the compact network (compact.py), which bring the blocks between; mn04 (mn04.py) is built otherwise.
"""

from typing import ClassVar, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.core.cache_folder import prepare_numba
from models.head import Head
from models.kaldimel import KaldiMel
from models.logmel import HOP_LENGTH, MEL_BINS, MIN_PEAK, MIN_SAMPLES, N_FFT, LogMel, mel_bank

_Module = TypeVar("_Module", bound=nn.Module)


def channels_last(network: _Module) -> _Module:
    """The network with the memory of its kernels laid out channels-last, where convolutions are faster."""
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] # PyTorch declares no such


class SoundNetwork(nn.Module):
    """A waveform in, an embedding and class scores out.

    settings: the arguments that make the same network again; with ``network``, its kind, where that is not Cnn14.
    multilabel: scores are independent (sigmoid, as in AudioSet) or sum to one (softmax).
    """

    last_layer: ClassVar[str]  # name of the layer of class scores, which learns alone when a fine-tuning begins
    settings: dict
    multilabel: bool
    dropout: tuple[float, float]

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        raise NotImplementedError

    @property
    def activations_per_frame(self) -> int:
        """Numbers in the largest feature maps, for each frame of the log-mel: what a batch's memory goes by."""
        raise NotImplementedError

    @property
    def front_end(self) -> LogMel | KaldiMel:
        """What makes the network's input of sounds, without PyTorch."""
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
        """``logits`` in NumPy."""
        raise NotImplementedError

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mono float32 waveforms at 32 kHz, (batch, samples), to class scores and embeddings.

        Clips under 9,920 samples are padded with silence. A clip of any length works; memory grows with it
        (about 20 MB a second with the official Cnn14), so extraction cuts long recordings (danger_safe/extraction.py).
        Returns clipwise_output (batch, classes) and embedding (batch, dimensions).
        """
        embedding = self.embed(self.logmel(waveform))
        scores = self.logits(embedding)
        scores = torch.sigmoid(scores) if self.multilabel else torch.softmax(scores, dim=1)
        return {"clipwise_output": scores, "embedding": embedding}

    def replace_last_layer(self, classes: int) -> None:
        """A new, untrained last layer for other classes, whose scores sum to one: the start of a fine-tuning."""
        old = self.get_submodule(self.last_layer)
        assert isinstance(old, nn.Linear)  # the last layer of each of our networks is
        new = nn.Linear(old.in_features, classes)
        initialise(new)
        holder, _, name = self.last_layer.rpartition(".")
        setattr(self.get_submodule(holder), name, new)
        self.multilabel = False
        self.settings |= {"classes": classes, "multilabel": False}

    def drop(self, x: torch.Tensor, p: float) -> torch.Tensor:
        """Dropout, in training alone."""
        return F.dropout(x, p, training=True) if self.training and p else x


class LogMelNetwork(SoundNetwork):
    """The frame of Cnn14 and the compact network.

    classes: outputs of the last layer.
    fmin, fmax: the mel bank's range in Hz.
    floor: the least mel power; what is below sounds like silence to the network.
    normalise: scale each clip to a peak of 1 first. Together with a lower fmax and a higher floor it brings
        recordings of any level, bandwidth and bit depth to one common denominator (benchmarks/compact.md).
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
        self._made: tuple[nn.Module, nn.Module] | None = None
        if self.stores_front_end:
            self.spectrogram_extractor, self.logmel_extractor = self._front_end()
        self.bn0 = nn.BatchNorm2d(MEL_BINS)

    def add_last_layers(self, channels: int, dimensions: int) -> None:
        """fc1, whose output is the embedding, and the layer of class scores. Called after the blocks are made, so that
        parameters keep the official checkpoint's order."""
        self.fc1 = nn.Linear(channels, dimensions)
        self.fc_audioset = nn.Linear(dimensions, self.settings["classes"])
        initialise(self)

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return self.fc1.out_features

    def blocks(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised log-mels (batch, 1, frames, 64) -> feature maps (batch, channels, fewer frames, fewer bins)."""
        raise NotImplementedError

    @property
    def activations_per_frame(self) -> int:
        """Those of the first block: its channels in each mel bin."""
        return self.settings["width"] * MEL_BINS

    @property
    def front_end(self) -> LogMel:
        """The same log-mels by a real FFT."""
        return LogMel(self.mel_bank, self.settings["floor"], self.settings["normalise"])

    def logmel(self, waveform: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> log-mel power in dB, (batch, 1, frames, 64), with samples // 320 + 1 frames."""
        waveform = prepare(waveform, self.normalise)
        if self.stores_front_end:
            return self.logmel_extractor(self.spectrogram_extractor(waveform))
        self._made = self._made or self._front_end()  # in a tuple: not among the network's tensors
        spectrogram, bank = self._made
        return bank.to(waveform.device)(spectrogram.to(waveform.device)(waveform))

    def _front_end(self) -> tuple[nn.Module, nn.Module]:
        """torchlibrosa's spectrogram and mel bank, as PANNs have them."""
        prepare_numba()
        from torchlibrosa.stft import (
            LogmelFilterBank,
            Spectrogram,
        )  # librosa takes seconds to load, and engines do without

        settings = self.settings
        return Spectrogram(n_fft=N_FFT, hop_length=HOP_LENGTH), LogmelFilterBank(
            sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=MEL_BINS, fmin=settings["fmin"], fmax=settings["fmax"],
            amin=settings["floor"], top_db=None,
        )  # fmt: skip

    @property
    def mel_bank(self) -> np.ndarray:
        """(513, 64)"""
        if self.stores_front_end:
            return cast(torch.Tensor, self.logmel_extractor.melW).detach().cpu().numpy()
        return mel_bank(self.settings["fmin"], self.settings["fmax"])

    def embed(self, logmel: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 64) -> (batch, dimensions)."""
        return self.pool(self.framewise_features(logmel))

    def framewise_features(self, logmel: torch.Tensor) -> torch.Tensor:
        """(batch, 1, frames, 64) -> the last feature maps' mean over frequency, (batch, channels, fewer frames)."""
        x = self.bn0(logmel.transpose(1, 3)).transpose(1, 3)
        return self.blocks(x).mean(dim=3)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """What ``framewise_features`` returned -> (batch, dimensions)."""
        x = x.amax(dim=2) + x.mean(dim=2)  # what was loud once, and what lasted
        x = self.drop(x, self.dropout[1])
        return F.relu(self.fc1(x))

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """(batch, dimensions) -> (batch, classes), before sigmoid or softmax."""
        return self.fc_audioset(self.drop(embedding, self.dropout[1]))

    @property
    def head(self) -> Head:
        """``logits`` in NumPy: one layer."""
        return Head.from_torch(self.fc_audioset)


def initialise(network: nn.Module) -> None:
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
        waveform = waveform / waveform.abs().amax(dim=-1, keepdim=True).clamp_min(MIN_PEAK)
    return waveform
