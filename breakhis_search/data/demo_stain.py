"""How a patient's section was stained and photographed: Beer-Lambert colour, a look per patient.

The colour model and the two stain vectors come from A. C. Ruifrok, D. A. Johnston, "Quantification
of histochemical staining by color deconvolution", Anal Quant Cytol Histol 23(4), 2001: a stain of
concentration c with absorbance vector v lets I = I0 · 10^(-c·v) through, in each of R, G and B.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from breakhis_search.data.demo_field import FloatMap

Image = npt.NDArray[np.uint8]

HAEMATOXYLIN = (0.650, 0.704, 0.286)
"""Absorbance of haematoxylin in R, G, B, of unit length (Ruifrok & Johnston 2001)."""
EOSIN = (0.072, 0.990, 0.105)
"""Absorbance of eosin in R, G, B, of unit length (Ruifrok & Johnston 2001)."""


@dataclass(frozen=True)
class PatientLook:
    """What all images of one patient share, whatever the disease: the bait for image splits.

    Attributes:
        stains: Absorbance vectors of haematoxylin and eosin in this laboratory's bath, [2, 3].
        haematoxylin: Strength of the haematoxylin, 1 is usual.
        eosin: Strength of the eosin, 1 is usual.
        light: Colour of the empty slide, [3], R, G, B in 0..255.
        blur_px: Defocus as a Gaussian sigma in pixels of the photograph.
        noise: Sensor noise as a standard deviation in grey values.
        fibre_um: Width of a collagen fibre in micrometres.
        waviness: How strongly the fibres bend, 1 is usual.
        crack: Share of the stroma that tore apart when the section was cut.
        oedema: Paleness between the fibres, 0..1.
        chromatin: Coarseness of the chromatin, 1 is usual.
        nucleus: Size of all nuclei, 1 is usual.
    """

    stains: FloatMap
    haematoxylin: float
    eosin: float
    light: FloatMap
    blur_px: float
    noise: float
    fibre_um: float
    waviness: float
    crack: float
    oedema: float
    chromatin: float
    nucleus: float


def draw_look(rng: np.random.Generator) -> PatientLook:
    """Return one patient's look, drawn independently of the disease.

    >>> look = draw_look(np.random.default_rng(0))
    >>> np.linalg.norm(look.stains, axis=1).round(3).tolist()
    [1.0, 1.0]
    """
    stains = np.array([HAEMATOXYLIN, EOSIN]) + rng.normal(0, [[0.07], [0.05]], (2, 3))
    stains[1, 2] += rng.uniform(
        0.1, 0.45
    )  # real eosin baths also take blue light: pink, not magenta
    stains = np.maximum(stains, 0.02)
    return PatientLook(
        stains=(stains / np.linalg.norm(stains, axis=1, keepdims=True)).astype(np.float32),
        haematoxylin=float(np.exp(rng.normal(0, 0.2))),
        eosin=float(np.exp(rng.normal(0, 0.28))),
        light=(rng.uniform(222, 246) + rng.uniform(-12, 8, 3)).astype(np.float32),
        blur_px=float(rng.uniform(0.2, 0.75)),
        noise=float(rng.uniform(1.0, 3.0)),
        fibre_um=float(rng.uniform(2.5, 6.0)),
        waviness=float(rng.uniform(0.4, 1.8)),
        crack=float(rng.uniform(0.0, 0.14)),
        oedema=float(rng.uniform(0.0, 0.6)),
        chromatin=float(rng.uniform(0.5, 1.5)),
        nucleus=float(np.exp(rng.normal(0, 0.08))),
    )


def photograph(
    haematoxylin: FloatMap,
    eosin: FloatMap,
    look: PatientLook,
    size_px: tuple[int, int],
    rng: np.random.Generator,
) -> Image:
    """Return the photograph of a stained section, uint8 [height, width, 3] in RGB.

    Args:
        haematoxylin: Concentration of haematoxylin, float32 [h, w], about 0..1.5.
        eosin: Concentration of eosin, same shape.
        look: The patient's stain, light and optics.
        size_px: Height and width of the photograph; the maps are averaged down to it.
        rng: Source of the vignette and the sensor noise.
    """
    haematoxylin, eosin = (
        cv2.resize(stain, size_px[::-1], interpolation=cv2.INTER_AREA)
        for stain in (haematoxylin, eosin)
    )
    passed = transmit(haematoxylin * look.haematoxylin, eosin * look.eosin, look.stains)
    light = cv2.GaussianBlur(passed * look.light, (0, 0), look.blur_px)
    light *= _vignette(size_px, rng)[..., None]
    light += np.float32(look.noise) * rng.standard_normal((*size_px, 1), dtype=np.float32)
    return np.asarray(np.clip(light, 0, 255), dtype=np.uint8)


def transmit(haematoxylin: FloatMap, eosin: FloatMap, stains: FloatMap) -> FloatMap:
    """Return the share of light that passes, float32 [h, w, 3] in 0..1 (Beer-Lambert).

    >>> clear = np.zeros((1, 1), np.float32)
    >>> transmit(clear, clear, np.array([HAEMATOXYLIN, EOSIN], np.float32)).ravel().tolist()
    [1.0, 1.0, 1.0]
    """
    absorbance = haematoxylin[..., None] * stains[0] + eosin[..., None] * stains[1]
    return np.asarray(np.exp(absorbance * np.float32(-np.log(10))), dtype=np.float32)


def _vignette(size_px: tuple[int, int], rng: np.random.Generator) -> FloatMap:
    """Return the fall-off of the light towards the corners, float32 [h, w] of about 0.9..1."""
    height, width = size_px
    centre_y, centre_x = rng.uniform(0.35, 0.65, 2)
    y = (np.arange(height, dtype=np.float32) / height - centre_y)[:, None]
    x = (np.arange(width, dtype=np.float32) / width - centre_x)[None, :]
    return np.asarray(1 - rng.uniform(0.03, 0.2) * (y * y + x * x), dtype=np.float32)
