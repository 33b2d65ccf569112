"""Macenko stain normalisation: the haematoxylin and eosin of an image, brought to a reference.

M. Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009.
Light that passes a section falls off exponentially with what the stains absorb, so in optical
density a stained pixel is a sum of two vectors, one per stain. They are found as the edges of the
fan that the pixels of an image span, and exchanged for those of the reference: per image that is
one 3 × 3 matrix in optical density, applied to every pixel.

What was decided beside the paper, looking at 341 real BreaKHis images:

* *Tissue is judged by mean density.* The paper drops pixels "with OD intensity less than β". The
  widespread ports drop a pixel when any *single* channel is lighter. Eosin passes red light, so
  that drops 42 % of the median image and 98 % of the palest; the mean drops 23 % and 88 %.
* *The light of the empty slide is a constant*, as in the widespread ports: an image without any
  empty glass shows no white to measure it on. A tinted background stays tinted.
* *What cannot be normalised stays as it is.* On an image with hardly any tissue, or with one stain,
  the second vector is noise; the reason is kept with the estimate (`StainFault`).

Normalisation comes before augmentation: the jitter of the stain then varies around the reference
instead of around every laboratory's own colour, so both may be searched at once.

This file is copied as it stands into every registered model, so it imports nothing of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
StainFault = Literal["", "little_tissue", "one_stain", "faint_stain"]
"""Why the stains of an image cannot be told apart; empty where they can."""

LIGHT = 240.0
"""Grey level of the empty slide, in all channels (Io of the widespread ports)."""
MIN_DENSITY = 0.15
"""Least mean optical density (natural logarithm) of a pixel of tissue: β of the paper."""
EDGE_PERCENT = 1.0
"""The fan's edges are these extreme percentiles of the angle, robust to noise: α of the paper."""
MAXIMUM_PERCENT = 99.0
"""Percentile of a stain's concentration that counts as its maximum (the paper's pseudo-maximum)."""

MIN_TISSUE_SHARE = 0.05
"""With less tissue the 99th percentile over an image is not of stained pixels any more."""
MIN_ANGLE_DEGREES = 8.0
"""Least angle between two stains. On 341 real images it is 10° to 52°; one stain with the noise of
a camera spans less, and undoing a narrow fan multiplies that noise (tenfold at 8°)."""
MIN_MAXIMUM = 0.1
"""Least maximum of a stain, in optical density; on 341 real images it is 0.29 at least."""

# Optical density of every grey level; one is added so that black has a density, as in all ports.
_LOGS = np.log(np.arange(256) + 1.0)
_LOG_TABLE = _LOGS.astype(np.float32)
_DENSITY_TABLE = (np.log(LIGHT) - _LOGS).astype(np.float32)


@dataclass(frozen=True)
class Stains:
    """How one image is stained.

    Attributes:
        vectors: Optical density of haematoxylin (first column) and eosin in R, G, B, of unit
            length, float64 [3, 2].
        maxima: 99th percentile of the concentration of each, float64 [2].
        fault: Why they are not to be used, or empty. `vectors` and `maxima` are then 0.
    """

    vectors: FloatArray
    maxima: FloatArray
    fault: StainFault = ""


@dataclass(frozen=True)
class StainReference:
    """The staining that images are brought to.

    Attributes:
        haematoxylin: Its optical density in R, G, B, of unit length.
        eosin: The same of eosin.
        maxima: Concentration of each that counts as its maximum.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    maxima: tuple[float, float]

    @property
    def matrix(self) -> FloatArray:
        """Vectors times maxima, float64 [3, 2]."""
        scaled: FloatArray = np.array([self.haematoxylin, self.eosin]).T * np.array(self.maxima)
        return scaled

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain values, for JSON."""
        return {
            "haematoxylin": list(self.haematoxylin),
            "eosin": list(self.eosin),
            "maxima": list(self.maxima),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StainReference:
        """Return the reference that `to_dict` wrote."""
        return reference_of(
            np.array([values["haematoxylin"], values["eosin"]]).T, np.array(values["maxima"])
        )


def reference_of(vectors: FloatArray, maxima: FloatArray) -> StainReference:
    """Return the reference of two stain vectors, float64 [3, 2], and their maxima, float64 [2]."""
    first, second = vectors.T.tolist()
    return StainReference(tuple(first), tuple(second), tuple(maxima.tolist()))


def estimate_stains(image: Images) -> Stains:
    """Return the stains of an image, or why they cannot be told apart.

    Args:
        image: uint8 [height, width, 3] RGB, 0 to 255.

    >>> estimate_stains(np.full((8, 8, 3), 255, np.uint8)).fault
    'little_tissue'
    """
    densities = cv2.LUT(np.ascontiguousarray(image), _DENSITY_TABLE).reshape(-1, 3)
    is_tissue = densities @ np.full(3, 1 / 3, np.float32) >= MIN_DENSITY
    tissue = np.compress(is_tissue, densities, axis=0)
    if len(tissue) < MIN_TISSUE_SHARE * len(densities):
        return _unusable("little_tissue")
    vectors = _edges_of_fan(tissue)
    if vectors[:, 0] @ vectors[:, 1] > np.cos(np.radians(MIN_ANGLE_DEGREES)):
        return _unusable("one_stain")
    concentrations = densities @ np.linalg.pinv(vectors).T.astype(np.float32)
    maxima = np.percentile(concentrations, MAXIMUM_PERCENT, axis=0).astype(np.float64)
    if not maxima.min() >= MIN_MAXIMUM:
        return _unusable("faint_stain")
    return Stains(vectors, maxima)


def stain_map(stains: Stains, reference: StainReference) -> FloatArray:
    """Return what brings an image to the reference: optical density → optical density, [3, 3].

    The identity where the stains of the image are unknown. Of rank 2 elsewhere: what is neither
    haematoxylin nor eosin is dropped.
    """
    if stains.fault:
        return np.eye(3)
    scaled = np.linalg.pinv(stains.vectors) / stains.maxima[:, None]
    mapped: FloatArray = reference.matrix @ scaled
    return mapped


def apply_map(image: Images, mapping: FloatArray) -> Images:
    """Return an image with its stains mapped, uint8 [height, width, 3].

    Args:
        image: uint8 [height, width, 3] RGB, 0 to 255.
        mapping: Of `stain_map`, float64 [3, 3].

    >>> levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    >>> bool((apply_map(levels, np.eye(3)) == levels).all())
    True
    """
    # With L = log(level + 1) and density = log(LIGHT) - L, all of it is one affine map of L.
    offset = (1.0 - mapping.sum(axis=1)) * np.log(LIGHT)
    affine = np.column_stack([mapping, offset])
    logs = cv2.LUT(np.ascontiguousarray(image), _LOG_TABLE)
    levels = cv2.exp(cv2.transform(logs, affine.astype(np.float32)))
    levels -= np.float32(0.5)  # less the 1 that was added, plus ½ for rounding
    normalized: Images = np.clip(levels, 0, 255).astype(np.uint8)
    return normalized


def normalize_stain(image: Images, reference: StainReference) -> Images:
    """Return an image brought to the reference, uint8 [height, width, 3].

    An image whose stains cannot be told apart is returned as it is.

    Args:
        image: uint8 [height, width, 3] RGB, at the size that the model sees.
        reference: Of the training images.
    """
    return apply_map(image, stain_map(estimate_stains(image), reference))


def _edges_of_fan(tissue: NDArray[np.float32]) -> FloatArray:
    """Unit vectors of haematoxylin and eosin, float64 [3, 2], from densities [n, 3]."""
    exact = tissue.astype(np.float64)
    mean = np.full(len(exact), 1.0 / len(exact)) @ exact  # 20 times the speed of .mean(axis=0)
    values, axes = np.linalg.eigh(exact.T @ exact / len(exact) - np.outer(mean, mean))
    plane = axes[:, np.argsort(values)[:0:-1]]  # the two directions of most variance
    # The sign of an eigenvector is arbitrary; against the mean no angle can jump from π to -π.
    plane = plane * np.where(mean @ plane < 0, -1.0, 1.0)
    projected = tissue @ plane.astype(np.float32)
    angles = np.arctan2(projected[:, 1], projected[:, 0])
    low, high = np.percentile(angles, [EDGE_PERCENT, 100.0 - EDGE_PERCENT])
    edges: FloatArray = plane @ np.array([[np.cos(low), np.cos(high)], [np.sin(low), np.sin(high)]])
    # Haematoxylin is blue: it takes more of the red light than eosin does.
    return edges if edges[0, 0] > edges[0, 1] else edges[:, ::-1]


def _unusable(fault: StainFault) -> Stains:
    return Stains(np.zeros((3, 2)), np.zeros(2), fault)
