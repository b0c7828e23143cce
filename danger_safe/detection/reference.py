"""The labelled clips on which the built-in detector was evaluated, in compact form.

A household's verdicts change the detector (personal.py). These clips show what that costs: each has the score of a
regression that was trained without its collection.
"""

from dataclasses import dataclass, fields

import numpy as np

DIRECTIONS = 64  # number of main components in which embeddings are compared
_INT8_SCALE = 127  # int8 value that stands for 1


@dataclass(frozen=True)
class Reference:
    """The clips of an evaluation. Similarities are cosines after ``projection`` to whitened main components."""

    projection: np.ndarray  # (dimensions, directions) float16
    directions: np.ndarray  # (clips, directions) int8, of length 127; each clip's highest-scoring window
    scores: np.ndarray  # (clips,) float16, smoothed scores in [0, 1]
    danger: np.ndarray  # (clips,) bool, the labels
    collection: np.ndarray  # (clips,) uint16, number of each clip's collection

    @classmethod
    def make(
        cls,
        standardised: np.ndarray,
        clip_embeddings: np.ndarray,
        scores: np.ndarray,
        danger: np.ndarray,
        collection: np.ndarray,
    ) -> "Reference":
        """Fit the projection and store the clips.

        Args:
            standardised: Standardised embeddings of any sounds, (windows, dimensions), to which the projection is
                fitted.
            clip_embeddings: Standardised embedding of each clip's highest-scoring window, (clips, dimensions).
            scores: Smoothed scores of the clips in [0, 1], (clips,).
            danger: Labels, (clips,).
            collection: Names of the clips' collections, (clips,).
        """
        variance, components = np.linalg.eigh(np.cov(standardised.T))
        main = np.argsort(-variance)[:DIRECTIONS]
        projection = (components[:, main] / np.sqrt(np.maximum(variance[main], 1e-6))).astype(np.float16)
        directions = np.round(normalize(clip_embeddings @ projection.astype(np.float32)) * _INT8_SCALE)
        _, collection_number = np.unique(collection, return_inverse=True)
        return cls(
            projection,
            directions.astype(np.int8),
            scores.astype(np.float16),
            danger.astype(bool),
            collection_number.astype(np.uint16),
        )

    def project(self, standardised: np.ndarray) -> np.ndarray:
        """(windows, dimensions) -> directions of length 1, (windows, directions)."""
        return normalize(standardised @ self.projection.astype(np.float32))

    def clip_directions(self) -> np.ndarray:
        """Return the clips' directions of length 1, (clips, directions)."""
        return normalize(self.directions.astype(np.float32))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by their names in the detector's file."""
        return {f"reference_{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], dimensions: int) -> "Reference | None":
        """Read what ``arrays`` returned; None if the file has none. Raises ValueError if the parts do not fit."""
        if "reference_projection" not in arrays:
            return None
        reference = cls(*(arrays[f"reference_{field.name}"] for field in fields(cls)))
        clips = len(reference.scores)
        shapes = ((dimensions, DIRECTIONS), (clips, DIRECTIONS), (clips,), (clips,), (clips,))
        dtypes = ("float16", "int8", "float16", "bool", "uint16")
        for field, shape, dtype in zip(fields(cls), shapes, dtypes, strict=True):
            array = getattr(reference, field.name)
            if array.shape != shape or array.dtype != dtype or (dtype == "float16" and not np.isfinite(array).all()):
                raise ValueError(field.name)
        if not clips or not reference.danger.any():
            raise ValueError("clips")
        return reference


def normalize(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1; rows of zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
