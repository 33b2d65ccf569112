"""One synthetic photograph: a growth pattern, filled with collagen and cells, stained with H&E."""

from __future__ import annotations

import numpy as np

from breakhis_search.data.demo_cells import Cells, at, draw_nuclei, scatter
from breakhis_search.data.demo_field import Field, FloatMap, Mask
from breakhis_search.data.demo_patterns import PATTERNS, Tissue
from breakhis_search.data.demo_stain import Image, PatientLook, photograph

FIELD_WIDTH_UM = 70_000.0
"""Width of a picture in micrometres at 1X: 1,750 at 40X, 175 at 400X (as nuclei in real ones)."""

_EOSIN_OF_COLLAGEN = 0.27  # usual concentration: light pink, by eye beside real images
_OVERSAMPLING = 2  # drawn at twice the size and averaged down: smooth edges at every zoom
_DETAIL_UM = 1.0  # chromatin is drawn where a pixel covers less than this


def draw_tile(
    type_name: str,
    magnification: int,
    look: PatientLook,
    size_px: tuple[int, int],
    rng: np.random.Generator,
) -> Image:
    """Return one synthetic photograph, uint8 [height, width, 3] in RGB.

    Args:
        type_name: A tumour type of the taxonomy, such as ``adenosis``.
        magnification: 40, 100, 200 or 400.
        look: The patient's stain and texture.
        size_px: Height and width.
        rng: Decides everything else in the picture.
    """
    height, width = size_px
    um_per_px = FIELD_WIDTH_UM / magnification / width / _OVERSAMPLING
    shape = (height * _OVERSAMPLING, width * _OVERSAMPLING)
    field = Field(shape, um_per_px, rng, look.waviness)
    tissue = PATTERNS[type_name](field)
    haematoxylin, eosin = _stain(field, tissue, look)
    return photograph(haematoxylin, eosin, look, size_px, rng)


def _stain(field: Field, tissue: Tissue, look: PatientLook) -> tuple[FloatMap, FloatMap]:
    """Return the concentrations of haematoxylin and eosin, float32 [h, w] each."""
    collagen, cracks = _weave_collagen(field, tissue, look)
    is_stroma = ~(tissue.epithelium | tissue.void | tissue.mucin | cracks)
    grain = 1 + np.float32(0.18) * field.noise(3 * max(field.um_per_px, 1.0))
    strands = _hang_strands(field)
    compartments = [tissue.epithelium, tissue.mucin, is_stroma]
    eosin = np.select(compartments, [0.22 * grain, 0.012 + 0.02 * strands, collagen], 0.004)
    haematoxylin = np.select(
        compartments, [0.13 * grain, 0.035 + 0.06 * strands, 0.03 * grain], 0.004
    )
    nuclei = _draw_all_nuclei(field, tissue, is_stroma, look)
    eosin *= 1 - 0.5 * np.minimum(nuclei / 0.5, 1)  # nuclei take up less eosin than cytoplasm
    return np.maximum(haematoxylin, nuclei).astype(np.float32), eosin.astype(np.float32)


def _weave_collagen(field: Field, tissue: Tissue, look: PatientLook) -> tuple[FloatMap, Mask]:
    """Return the eosin of the collagen, float32 [h, w], and where it tore apart."""
    fibre_um = max(look.fibre_um, 2.2 * field.um_per_px)  # finer ones would flicker between pixels
    fibres, bundles, threads = (
        field.stretched(field.along / (length * fibre_um), field.across / (width * fibre_um))
        for length, width in ((14, 1.0), (40, 4.5), (6, 0.3))
    )
    weave = 0.3 * fibres + 0.28 * bundles + 0.12 * threads + 0.15 * field.noise(300)
    weave = np.maximum(weave - look.oedema * np.maximum(-fibres, 0), -0.88)
    eosin = _EOSIN_OF_COLLAGEN * tissue.eosin * (1 + tissue.fibrous * weave)
    gaps = 0.7 * fibres + 0.8 * bundles + 0.25 * threads + 0.6 * field.noise(150)
    share = look.crack if tissue.fibrous > 0.5 else 0.0  # loose stroma gives way, it does not crack
    solid = tissue.epithelium | tissue.mucin
    cracks = field.above(-gaps, share) & ~solid
    return np.asarray(eosin, dtype=np.float32), cracks


def _hang_strands(field: Field) -> FloatMap:
    """Return thin bent strands as they hang in mucus, float32 [h, w], 0 to about 1."""
    veins = np.abs(field.noise(110) + 0.4 * field.noise(35))
    clouds = np.clip(field.noise(60), 0, 2)
    return np.asarray(np.exp(-veins / 0.12) + 0.25 * clouds, dtype=np.float32)


def _draw_all_nuclei(field: Field, tissue: Tissue, is_stroma: Mask, look: PatientLook) -> FloatMap:
    """Return the haematoxylin of stromal and epithelial nuclei, float32 [h, w]."""
    groups = [_fill_stroma(field, tissue, is_stroma), *tissue.groups]
    nuclei = draw_nuclei(field, groups, look.nucleus)
    if field.um_per_px < _DETAIL_UM:
        grains = field.noise(0.8) + 0.6 * field.noise(2.0)
        nuclei *= 1 + np.float32(0.16 * look.chromatin) * grains
    return nuclei


def _fill_stroma(field: Field, tissue: Tissue, is_stroma: Mask) -> Cells:
    """Return the stromal cells, which lie along the fibres."""
    spacing_um = 11.0
    per_point = spacing_um**2 * 0.87 / 1000  # the share of 1,000 square micrometres it stands for
    points = scatter(field, tissue.cellularity * is_stroma * per_point, spacing_um)
    angles = at(field.fibre_angles(), points) + field.rng.normal(0, 0.25, len(points))
    return Cells(tissue.spindle, points, angles.astype(np.float32))
