"""The demo's cells: where nuclei lie (in rows, sheets or files) and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from breakhis_search.data.demo_field import Field, FloatMap, Mask, Points

NUCLEAR_SCALE = 1.2
"""Haematoxylin concentration that the grey value 255 of a drawing of nuclei stands for."""

_SMALL_PX = 3.0  # below this width an outline is no longer seen, only a speck
_DETAIL_PX = 8.0  # from this width on membranes and nucleoli are seen
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


@dataclass(frozen=True)
class CellKind:
    """What the nuclei of one kind of cell look like.

    Attributes:
        length_um: Usual long diameter.
        width_um: Usual short diameter.
        variation: Spread of the size (of its logarithm): small in benign cells, large in malignant.
        irregularity: How far the outline leaves an ellipse, as a share of the radius.
        shade: Usual concentration of haematoxylin.
        nucleoli: Share of the nuclei with a visible nucleolus.
    """

    length_um: float
    width_um: float
    variation: float = 0.1
    irregularity: float = 0.05
    shade: float = 0.6
    nucleoli: float = 0.0


LUMINAL = CellKind(7.8, 6.2, shade=0.46)
MYOEPITHELIAL = CellKind(9.0, 3.2, shade=0.7)
FIBROBLAST = CellKind(13.0, 2.4, variation=0.22, shade=0.55)
SPINDLE = CellKind(12.0, 3.7, variation=0.2, shade=0.42)
LYMPHOCYTE = CellKind(6.2, 6.0, variation=0.06, shade=0.7)
DUCTAL = CellKind(11.5, 9.0, variation=0.22, irregularity=0.1, shade=0.5, nucleoli=0.6)
LOBULAR = CellKind(8.2, 7.2, variation=0.1, irregularity=0.07, shade=0.55)
MUCINOUS = CellKind(8.8, 7.6, variation=0.13, irregularity=0.06, shade=0.56, nucleoli=0.15)
PAPILLARY = CellKind(10.0, 5.0, variation=0.15, irregularity=0.05, shade=0.58)


@dataclass(frozen=True)
class Cells:
    """Cells of one kind and their places.

    Attributes:
        kind: What they look like.
        points: Centres in pixels of the drawing, row then column, float32 [n, 2].
        angles: Directions of the long axis in radians, float32 [n].
    """

    kind: CellKind
    points: Points
    angles: FloatMap


def scatter(
    field: Field, density: FloatMap | Mask, spacing_um: float, jitter: float = 0.38
) -> Points:
    """Return points [n, 2] about ``spacing_um`` apart, kept with the chance the density map gives.

    Args:
        field: The field of view.
        density: Chance to keep a point there, 0..1, [h, w]; a mask keeps all or none.
        spacing_um: Distance of neighbours where the density is 1.
        jitter: How far points leave a regular triangular grid, as a share of the spacing.
    """
    step = spacing_um / field.um_per_px
    rows = np.arange(-1, field.shape[0] / (0.87 * step) + 1)
    columns = np.arange(-1, field.shape[1] / step + 1)
    y, x = np.meshgrid(rows * 0.87 * step, columns * step, indexing="ij")
    x = x + (rows[:, None] % 2) * step / 2
    grid = np.stack([y.ravel(), x.ravel()], -1) + field.rng.uniform(0, step, 2)
    points = inside(grid + field.rng.normal(0, jitter * step / 2, grid.shape), field.shape)
    chance = at(np.asarray(density, dtype=np.float32), points)
    return points[field.rng.random(len(points)) < chance]


def line_up(
    field: Field, depth: FloatMap, at_um: float, spacing_um: float
) -> tuple[Points, FloatMap]:
    """Return points along the line where the depth is ``at_um``, and the direction into the depth.

    Args:
        field: The field of view.
        depth: Depth below a surface in micrometres, float32 [h, w].
        at_um: Depth of the line.
        spacing_um: Distance of neighbours on the line.
    """
    contours, _ = cv2.findContours(
        (depth > at_um).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.float32)
    line = np.concatenate(contours)[:, 0, ::-1].astype(np.float32)
    steps = np.hypot(*np.diff(line, axis=0, prepend=line[:1]).T)
    walked = np.cumsum(np.minimum(steps, 1.5)) * field.um_per_px
    beat = walked / spacing_um + 0.2 * field.rng.random(len(line)) + field.rng.random()
    chosen = line[np.diff(beat.astype(np.int64), prepend=0) > 0]
    at_border = ((chosen < 1) | (chosen > np.array(field.shape) - 2)).any(axis=1)
    chosen = chosen[~at_border]
    gentle = field.smooth(depth, 4.0)
    angles = np.arctan2(
        at(cv2.Sobel(gentle, cv2.CV_32F, 0, 1), chosen),
        at(cv2.Sobel(gentle, cv2.CV_32F, 1, 0), chosen),
    )
    shaken = chosen + field.rng.normal(0, 0.08 * spacing_um / field.um_per_px, chosen.shape)
    shaken = np.clip(shaken, 0, np.array(field.shape) - 1)
    return shaken.astype(np.float32), angles.astype(np.float32)


def inside(points: npt.NDArray[np.floating], shape: tuple[int, int]) -> Points:
    """Return the points that lie inside the picture, float32 [n, 2].

    >>> inside(np.array([[0.0, 5.0], [9.0, 1.0]]), (4, 8)).tolist()
    [[0.0, 5.0]]
    """
    keep = ((points >= 0) & (points <= np.array(shape) - 1)).all(axis=1)
    return np.asarray(points[keep], dtype=np.float32)


def at(
    values: npt.NDArray[np.generic], points: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Return the values of a map at the nearest pixels of points inside it, float32 [n]."""
    rows, columns = np.rint(points).astype(np.int64).T
    return np.asarray(values[rows, columns], dtype=np.float32)


def draw_nuclei(field: Field, groups: list[Cells], size: float) -> FloatMap:
    """Return the haematoxylin of all nuclei, float32 [h, w]; 0 where there is none.

    Args:
        field: The field of view.
        groups: The cells; later groups lie above earlier ones.
        size: The patient's nuclear size, 1 is usual.
    """
    canvas = np.zeros(field.shape, np.uint8)
    specks = np.zeros(field.shape, np.float32)
    for cells in groups:
        if cells.kind.width_um * size / field.um_per_px < _SMALL_PX:
            specks += _splat(field, cells, size)
        else:
            _draw_outlines(field, cells, size, canvas)
    drawn = canvas * np.float32(NUCLEAR_SCALE / 255)
    return np.asarray(np.maximum(drawn, 0.85 * (1 - np.exp(-specks))), dtype=np.float32)


def _splat(field: Field, cells: Cells, size: float) -> FloatMap:
    """Return specks for nuclei that are too small for an outline, float32 [h, w]."""
    height, width = field.shape
    rows, columns = np.rint(cells.points).astype(np.int64).T
    spread = np.exp(field.rng.normal(0, 2 * cells.kind.variation, len(rows)))
    area = 0.79 * cells.kind.length_um * cells.kind.width_um * size**2 / field.um_per_px**2
    flat = np.bincount(rows * width + columns, area * cells.kind.shade * spread, height * width)
    sigma = max(0.5 * cells.kind.width_um / field.um_per_px, 0.5)
    blurred = cv2.GaussianBlur(flat.reshape(height, width).astype(np.float32), (0, 0), sigma)
    return np.asarray(blurred * np.float32(1.6), dtype=np.float32)


def _draw_outlines(field: Field, cells: Cells, size: float, canvas: npt.NDArray[np.uint8]) -> None:
    """Draw nuclei as filled outlines, with membrane and nucleoli where the zoom shows them."""
    kind, rng = cells.kind, field.rng
    count = len(cells.points)
    radii = size * np.exp(rng.normal(0, kind.variation, (count, 1))) / field.um_per_px / 2
    outlines = _outlines(cells, radii, rng)
    shades = kind.shade * np.exp(rng.normal(0, 0.6 * kind.variation + 0.08, count))
    greys = np.clip(shades * 255 / NUCLEAR_SCALE, 30, 235).astype(int).tolist()
    is_detailed = kind.width_um * size / field.um_per_px > _DETAIL_PX
    has_nucleolus = rng.random(count) < kind.nucleoli
    for index, (outline, grey) in enumerate(zip(outlines, greys, strict=True)):
        cv2.fillConvexPoly(canvas, outline, grey, cv2.LINE_AA, _SHIFT)
        if is_detailed:
            rim = min(int(grey * 1.3), 255)
            cv2.polylines(canvas, [outline], True, rim, 1, cv2.LINE_AA, _SHIFT)
            if has_nucleolus[index]:
                centre = outline[:: max(1, len(outline) // 3)].mean(axis=0).astype(int)
                radius = int(1.1 / field.um_per_px * 2**_SHIFT)
                cv2.circle(canvas, centre.tolist(), radius, rim, -1, cv2.LINE_AA, _SHIFT)


def _outlines(
    cells: Cells, radii: npt.NDArray[np.floating], rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Return outlines in OpenCV's fixed-point x, y coordinates, int32 [n, corners, 2]."""
    kind, count = cells.kind, len(cells.points)
    is_small = kind.width_um * radii.max(initial=0) < _DETAIL_PX
    corners = 10 if is_small else 20
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)[None, :]
    phase = rng.uniform(0, 2 * np.pi, (2, count, 1))
    wobble = 1 + kind.irregularity * (np.cos(2 * turn + phase[0]) + np.cos(3 * turn + phase[1]))
    long = radii * kind.length_um * wobble * np.cos(turn)
    short = radii * kind.width_um * wobble * np.sin(turn)
    cos, sin = np.cos(cells.angles)[:, None], np.sin(cells.angles)[:, None]
    x = cells.points[:, 1:2] + long * cos - short * sin
    y = cells.points[:, 0:1] + long * sin + short * cos
    return np.asarray(np.rint(np.stack([x, y], -1) * 2**_SHIFT), dtype=np.int32)
