"""The labelled clips that the built-in detector was judged on, as a few numbers each: what a change of it does to them.

A household's verdicts change the detector (personal.py). What that costs is told by these clips, each scored by a
regression that was not taught its collection, and none of a danger's own collection vouches for it.
"""

from dataclasses import dataclass, fields

import numpy as np

DIRECTIONS = 64  # that an embedding is compared in
_STEPS = 127  # of a number of int8


@dataclass(frozen=True)
class Reference:
    """Judged clips. Similarities are cosines in ``projection``: the standardised embedding's main components,
    whitened."""

    projection: np.ndarray  # (dimensions, directions) float16
    directions: np.ndarray  # (clips, directions) int8, of each clip's surest window, of length 127
    scores: np.ndarray  # (clips,) float16, smoothed, in [0, 1]
    danger: np.ndarray  # (clips,) bool
    collection: np.ndarray  # (clips,) uint16

    @classmethod
    def make(
        cls, standardised: np.ndarray, of_clips: np.ndarray, scores: np.ndarray, danger: np.ndarray,
        collection: np.ndarray
    ) -> "Reference":  # fmt: skip
        """The projection from ``standardised`` embeddings of any sounds, (windows, dimensions); the rest as it is kept.

        ``of_clips``: (clips, dimensions), the standardised embedding of each clip's surest window.
        """
        variance, components = np.linalg.eigh(np.cov(standardised.T))
        kept = np.argsort(-variance)[:DIRECTIONS]
        projection = (components[:, kept] / np.sqrt(np.maximum(variance[kept], 1e-6))).astype(np.float16)
        _, number = np.unique(collection, return_inverse=True)
        return cls(
            projection, np.round(unit(of_clips @ projection.astype(np.float32)) * _STEPS).astype(np.int8),
            scores.astype(np.float16), danger.astype(bool), number.astype(np.uint16),
        )  # fmt: skip

    def project(self, standardised: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> directions of length 1, (windows, directions)."""
        return unit(standardised @ self.projection.astype(np.float32))

    def clip_directions(self) -> np.ndarray:
        """Of each clip, of length 1, (clips, directions)."""
        return unit(self.directions.astype(np.float32))

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, for the detector's file."""
        return {f"reference_{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], dimensions: int) -> "Reference | None":
        """From what ``arrays`` returned; None where there is none. Raises ValueError where the parts do not fit."""
        if "reference_projection" not in arrays:
            return None
        reference = cls(*(arrays[f"reference_{field.name}"] for field in fields(cls)))
        clips = len(reference.scores)
        shapes = ((dimensions, DIRECTIONS), (clips, DIRECTIONS), (clips,), (clips,), (clips,))
        kinds = ("float16", "int8", "float16", "bool", "uint16")
        for field, shape, kind in zip(fields(cls), shapes, kinds, strict=True):
            array = getattr(reference, field.name)
            if array.shape != shape or array.dtype != kind or (kind == "float16" and not np.isfinite(array).all()):
                raise ValueError(field.name)
        if not clips or not reference.danger.any():
            raise ValueError("clips")
        return reference


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
