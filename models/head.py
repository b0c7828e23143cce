"""The layers after the embedding, in NumPy: what a network calls a sound, from an embedding that was kept or sent.

    logits = engine.head(embeddings)     # (clips, dimensions) -> (clips, classes), before sigmoid or softmax

Cnn14 has one layer there, the compact network and mn04 have two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Head:
    """Linear layers with an activation between them."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]  # weights (outputs, inputs) and bias (outputs,) of each
    activation: str = "hardswish"  # or relu

    @classmethod
    def from_torch(cls, *layers: nn.Linear) -> Head:
        """The head that these layers of PyTorch are."""
        return cls(tuple((one.weight.detach().cpu().numpy(), one.bias.detach().cpu().numpy()) for one in layers))

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """(…, dimensions) -> (…, classes), before sigmoid or softmax."""
        x = embeddings
        for number, (weight, bias) in enumerate(self.layers):
            if number:
                x = np.maximum(x, 0) if self.activation == "relu" else x * np.clip(x / 6 + 0.5, 0, 1)
            x = x @ weight.T + bias
        return x

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, for a file of arrays."""
        arrays = {"head_activation": np.array(self.activation)}
        for number, (weight, bias) in enumerate(self.layers):
            arrays |= {f"head_weight_{number}": weight, f"head_bias_{number}": bias}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Head:
        """From what ``arrays`` returned. Raises KeyError where there are none."""
        count = sum(name.startswith("head_weight_") for name in arrays)
        layers = tuple((arrays[f"head_weight_{n}"], arrays[f"head_bias_{n}"]) for n in range(max(count, 1)))
        return cls(layers, str(arrays["head_activation"]))
