"""The layers after the embedding in NumPy, which classify stored embeddings without the network.

    logits = engine.head(embeddings)     # (clips, dimensions) -> (clips, classes), before sigmoid or softmax

Cnn14 has one such layer, the compact network and mn04 have two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Head:
    """Linear layers with an activation function between them."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]  # (weights, bias) of each: (outputs, inputs), (outputs,)
    activation: str = "hardswish"  # or "relu"

    @classmethod
    def from_torch(cls, *layers: nn.Linear) -> Head:
        """Copy linear layers of PyTorch, with the default activation."""
        return cls(tuple((layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()) for layer in layers))

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Compute logits: (…, dimensions) -> (…, classes), before sigmoid or softmax."""
        x = embeddings
        for number, (weight, bias) in enumerate(self.layers):
            if number:
                x = np.maximum(x, 0) if self.activation == "relu" else x * np.clip(x / 6 + 0.5, 0, 1)
            x = x @ weight.T + bias
        return x

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the layers as named arrays, for an .npz file."""
        arrays = {"head_activation": np.array(self.activation)}
        for number, (weight, bias) in enumerate(self.layers):
            arrays |= {f"head_weight_{number}": weight, f"head_bias_{number}": bias}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Head:
        """Restore a head from the result of ``arrays``. Raises KeyError if an array is missing."""
        count = sum(name.startswith("head_weight_") for name in arrays)
        layers = tuple((arrays[f"head_weight_{n}"], arrays[f"head_bias_{n}"]) for n in range(max(count, 1)))
        return cls(layers, str(arrays["head_activation"]))
