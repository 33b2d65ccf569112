"""The eight growth patterns of the demo: what lies where in one field of view.

What makes the types differ is how glands, stroma and nuclei are arranged, as a pathologist would
say it in one sentence (each pattern's docstring). It is a caricature for trying software, not a
model of disease. All lengths are in micrometres, chosen by eye beside real images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from breakhis_search.data import demo_cells as cells
from breakhis_search.data.demo_cells import CellKind, Cells, line_up, scatter
from breakhis_search.data.demo_field import Field, FloatMap, Mask, Points, changes


@dataclass
class Tissue:
    """What lies where in one field of view.

    Attributes:
        epithelium: Cytoplasm of epithelial or tumour cells.
        void: Empty slide: lumens, clefts, cracks.
        mucin: Pools of mucus.
        cellularity: Stromal cells per 1,000 square micrometres.
        spindle: Kind of the stromal cells.
        eosin: Factor on the eosin of the stroma: below 1 it is pale.
        fibrous: How far the stroma shows its fibres and cracks: 1 as collagen does, 0 not at all.
        groups: All epithelial cells.
    """

    epithelium: Mask
    void: Mask
    mucin: Mask
    cellularity: npt.NDArray[np.floating]
    spindle: CellKind = cells.FIBROBLAST
    eosin: float = 1.0
    fibrous: float = 1.0
    groups: list[Cells] = dataclasses.field(default_factory=list)


def _adenosis(field: Field) -> Tissue:
    """Lobules of many small, crowded, somewhat distorted ducts in fibrous stroma."""
    lobules = field.above(field.noise(280) + 0.25 * field.noise(60), field.rng.uniform(0.45, 0.7))
    centres = scatter(field, lobules, 44.0, jitter=0.5)
    ducts = _draw_blobs(field, centres, 19.0, variation=0.22, stretch=0.55, wobble=0.09)
    tissue = _line_glands(field, ducts, 12.0)
    tissue.cellularity = 0.6 + 2.2 * field.smooth(lobules, 20)
    return tissue


def _fibroadenoma(field: Field) -> Tissue:
    """Much pale stroma that squeezes the ducts to long curved slits."""
    heights = field.noise(240) + 0.35 * field.noise(90)
    middle = float(np.quantile(heights[::4, ::4], field.rng.uniform(0.4, 0.6)))
    slits = changes(heights > middle) & field.above(field.noise(260), 0.75)
    distance = field.distance(~slits)
    lumen = 2 + 7 * np.maximum(field.noise(90), 0)
    tissue = _line_glands(field, distance < lumen + 13, 13.0)
    tissue.cellularity = 2.2 + 0.8 * field.noise(200)
    tissue.spindle, tissue.eosin = cells.SPINDLE, 0.75
    return tissue


def _phyllodes_tumor(field: Field) -> Tissue:
    """Broad leaves of cellular stroma that bulge into clefts lined by epithelium."""
    distance = field.edges(380.0, 50.0)
    cleft = 7 + 22 * np.maximum(field.noise(260), 0)
    leaves = field.rounded(distance > cleft, 62.0)
    depth = field.distance(leaves)
    tissue = _line_surface(field, leaves, depth, 13.0)
    tissue.cellularity = 4.5 + 4.5 * np.exp(-depth / 50) + field.noise(120)
    tissue.spindle, tissue.eosin = cells.SPINDLE, 0.7
    return tissue


def _tubular_adenoma(field: Field) -> Tissue:
    """Round, even tubules packed back to back with hardly any stroma."""
    packed = field.above(field.noise(320), field.rng.uniform(0.8, 1.0))
    centres = scatter(field, packed, 47.0, jitter=0.16)
    tubules = _draw_blobs(field, centres, 21.5, variation=0.08, stretch=0.1, wobble=0.03)
    tissue = _line_glands(field, tubules, 12.5)
    tissue.cellularity = np.full(field.shape, 1.4, np.float32)
    return tissue


def _ductal_carcinoma(field: Field) -> Tissue:
    """Irregular solid nests of large pleomorphic nuclei in a reactive stroma."""
    shape = field.noise(130) + 0.6 * field.noise(55) + 0.25 * field.noise(20)
    nests = field.above(shape, field.rng.uniform(0.35, 0.65))
    holes = nests & field.above(field.noise(45), 0.05)
    sheet = nests & ~holes
    strays = scatter(field, np.where(nests, 0.0, 0.05).astype(np.float32), 14.0)
    tissue = _tissue(field, sheet | _dots(field, strays, 8.0), holes)
    tissue.groups = [
        _turned(field, cells.DUCTAL, scatter(field, sheet, 14.5, jitter=0.55)),
        _turned(field, cells.DUCTAL, strays),
        _lymphocytes(field, ~nests, 0.25),
    ]
    tissue.cellularity = 2.0 + 0.6 * field.noise(100)
    return tissue


def _lobular_carcinoma(field: Field) -> Tissue:
    """Small uniform cells in single file between collagen fibres."""
    crowded = np.clip(0.6 + 0.3 * field.noise(220), 0.2, 1.0)
    starts = scatter(field, crowded, 30.0, jitter=0.8)
    files = _march(field, starts, 7, 9.5)
    tissue = _tissue(field, _dots(field, files, 5.2), np.zeros(field.shape, bool))
    tissue.groups = [_turned(field, cells.LOBULAR, files)]
    tissue.cellularity = np.full(field.shape, 1.0, np.float32)
    return tissue


def _mucinous_carcinoma(field: Field) -> Tissue:
    """Islands of tumour cells afloat in pale pools of mucus between thin septa."""
    septa = field.edges(330.0, 40.0) < 9 + 14 * np.maximum(field.noise(150), 0)
    stromal = field.above(field.noise(420), field.rng.uniform(0.1, 0.35))
    pools = field.smooth(~(septa | stromal), 8) > 0.5
    depth = field.distance(pools)
    centres = scatter(field, depth > 20, 84.0, jitter=0.6)
    islands = _draw_blobs(
        field, centres, 34.0, variation=0.35, stretch=0.5, wobble=0.12, gap_um=0.0
    )
    islands &= depth > 5
    tissue = _tissue(field, islands, np.zeros(field.shape, bool))
    tissue.mucin = pools & ~islands
    tissue.groups = [
        _turned(field, cells.MUCINOUS, scatter(field, islands, 9.5)),
        _lymphocytes(field, ~pools, 0.1),
    ]
    tissue.cellularity = np.full(field.shape, 1.6, np.float32)
    tissue.fibrous = 0.3
    return tissue


def _papillary_carcinoma(field: Field) -> Tissue:
    """Branching fronds: a fibrovascular core clad in crowded columnar cells."""
    distance = field.edges(135.0, 28.0)
    broken = field.above(field.noise(130), 0.2)
    core = (distance < 5 + 5 * np.maximum(field.noise(80), 0)) & ~broken
    away = field.distance(~core)
    thick = 24 + 4 * field.noise(60)
    fronds = field.smooth(away < thick, 5) > 0.5
    clad = fronds & (away > 0)
    tissue = _tissue(field, clad, ~fronds)
    for depth_um in (4.5, 11.5, 18.5):
        points, angles = line_up(field, away, depth_um, 6.8)
        keep = cells.at(clad, points) > 0
        tissue.groups.append(Cells(cells.PAPILLARY, points[keep], angles[keep]))
    tissue.cellularity = np.full(field.shape, 3.0, np.float32)
    tissue.fibrous = 0.25
    return tissue


PATTERNS: dict[str, Callable[[Field], Tissue]] = {
    "adenosis": _adenosis,
    "fibroadenoma": _fibroadenoma,
    "phyllodes_tumor": _phyllodes_tumor,
    "tubular_adenoma": _tubular_adenoma,
    "ductal_carcinoma": _ductal_carcinoma,
    "lobular_carcinoma": _lobular_carcinoma,
    "mucinous_carcinoma": _mucinous_carcinoma,
    "papillary_carcinoma": _papillary_carcinoma,
}
"""The pattern of each type in the taxonomy, by its name."""


def _tissue(field: Field, epithelium: Mask, void: Mask) -> Tissue:
    """Return tissue with no mucus and no cells yet."""
    nothing = np.zeros(field.shape, bool)
    return Tissue(epithelium, void, nothing, np.zeros(field.shape, np.float32))


def _line_glands(field: Field, glands: Mask, thickness_um: float) -> Tissue:
    """Return glands with a lumen, a row of luminal and a row of myoepithelial cells."""
    depth = field.distance(glands)
    tissue = _tissue(field, glands & (depth <= thickness_um), depth > thickness_um)
    outer, along = line_up(field, depth, 1.6, 11.0)
    inner, inward = line_up(field, depth, 0.5 * thickness_um, 8.2)
    tissue.groups = [
        Cells(cells.MYOEPITHELIAL, outer, along + np.float32(np.pi / 2)),
        Cells(cells.LUMINAL, inner, inward),
    ]
    return tissue


def _line_surface(field: Field, body: Mask, depth: FloatMap, thickness_um: float) -> Tissue:
    """Return tissue whose free surface carries two rows of cells; all outside it is empty."""
    tissue = _tissue(field, body & (depth <= thickness_um), ~body)
    for at_um, kind in ((3.8, cells.LUMINAL), (9.5, cells.LUMINAL)):
        points, inward = line_up(field, depth, at_um, 6.8)
        tissue.groups.append(Cells(kind, points, inward))
    return tissue


def _draw_blobs(
    field: Field,
    centres: Points,
    radius_um: float,
    *,
    variation: float,
    stretch: float,
    wobble: float,
    gap_um: float = 2.5,
) -> Mask:
    """Return the mask of rounded outlines; with a gap they touch but do not merge."""
    count = len(centres)
    rng = field.rng
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)[None, :]
    phase = rng.uniform(0, 2 * np.pi, (3, count, 1))
    radius = radius_um / field.um_per_px * np.exp(rng.normal(0, variation, (count, 1)))
    radius = radius * (1 + wobble * (np.cos(3 * turn + phase[0]) + np.cos(2 * turn + phase[1])))
    longer = np.sqrt(1 + stretch * rng.random((count, 1)) * 2)
    long, short = radius * longer * np.cos(turn), radius / longer * np.sin(turn)
    cos, sin = np.cos(phase[2]), np.sin(phase[2])
    x = centres[:, 1:2] + long * cos - short * sin
    y = centres[:, 0:1] + long * sin + short * cos
    outlines = np.rint(np.stack([x, y], -1) * 16).astype(np.int32)
    canvas = np.zeros(field.shape, np.uint8)
    gap_px = max(1, round(gap_um / field.um_per_px))
    for outline in outlines:
        cv2.fillPoly(canvas, [outline], 1, cv2.LINE_8, 4)
        if gap_um:
            cv2.polylines(canvas, [outline], True, 0, gap_px, cv2.LINE_8, 4)
    return canvas > 0


def _dots(field: Field, points: Points, radius_um: float) -> Mask:
    """Return the mask of all places within a radius of the points."""
    canvas = np.ones(field.shape, bool)
    rows, columns = np.rint(points).astype(np.int64).T
    canvas[rows, columns] = False
    return np.asarray(field.distance(canvas) < radius_um, dtype=bool)


def _march(field: Field, starts: Points, steps: int, step_um: float) -> Points:
    """Return files of points that follow the fibres from each start; files end by chance."""
    points, found, angles = starts, [starts], field.fibre_angles()
    for _ in range(steps):
        angle = cells.at(angles, points)
        ahead = np.stack([np.sin(angle), np.cos(angle)], -1) * (step_um / field.um_per_px)
        ahead += field.rng.normal(0, 0.1 * step_um / field.um_per_px, ahead.shape)
        reached = (points + ahead)[field.rng.random(len(points)) < 0.85]
        points = cells.inside(reached, field.shape)
        found.append(points)
    return np.concatenate(found)


def _turned(field: Field, kind: CellKind, points: Points) -> Cells:
    """Return cells with no common direction."""
    return Cells(kind, points, field.rng.uniform(0, np.pi, len(points)).astype(np.float32))


def _lymphocytes(field: Field, where: Mask, share: float) -> Cells:
    """Return loose clusters of lymphocytes in part of the field."""
    density = where & field.above(field.noise(90), share)
    return _turned(field, cells.LYMPHOCYTE, scatter(field, 0.6 * density.astype(np.float32), 9.0))
