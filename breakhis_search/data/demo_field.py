"""The plane the demo is drawn in: a grid in micrometres, fibres, noise and distances."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float32]

_FINE_PX = 6.0  # noise with a step below this is made by enlarging random values only


class Field:
    """One field of view: its grid, its scale, the run of its fibres and its source of chance.

    Attributes:
        shape: Height and width in pixels of the drawing.
        um_per_px: Micrometres per pixel of the drawing.
        rng: Source of everything random in this field.
        y: Row positions in micrometres, float32 [h, 1].
        x: Column positions in micrometres, float32 [1, w].
        along: Positions along the collagen fibres in micrometres, float32 [h, w].
        across: Positions across the fibres in micrometres, float32 [h, w].
    """

    def __init__(
        self,
        shape: tuple[int, int],
        um_per_px: float,
        rng: np.random.Generator,
        waviness: float = 1.0,
    ) -> None:
        self.shape = shape
        self.um_per_px = um_per_px
        self.rng = rng
        self.y = (np.arange(shape[0], dtype=np.float32) * np.float32(um_per_px))[:, None]
        self.x = (np.arange(shape[1], dtype=np.float32) * np.float32(um_per_px))[None, :]
        # 1.4: sampling between the values lowers their deviation to about 0.7
        self._tile = rng.standard_normal((256, 256), dtype=np.float32) * np.float32(1.4)
        self._tile[-1], self._tile[:, -1] = self._tile[0], self._tile[:, 0]  # repeats with no seam
        direction = float(rng.uniform(0, math.pi))
        bend = waviness * (45 * self.noise(260) + 7 * self.noise(45))
        self.along = math.sin(direction) * self.y + math.cos(direction) * self.x
        self.across = math.cos(direction) * self.y - math.sin(direction) * self.x + bend

    def fibre_angles(self) -> FloatMap:
        """Return the direction of the fibres in radians, float32 [h, w]."""
        rise = cv2.Sobel(self.across, cv2.CV_32F, 0, 1)
        run = cv2.Sobel(self.across, cv2.CV_32F, 1, 0)
        return np.asarray(np.arctan2(rise, run) + np.float32(math.pi / 2), dtype=np.float32)

    def noise(self, scale_um: float) -> FloatMap:
        """Return smooth noise, float32 [h, w], mean about 0, deviation about 1.

        A cubic B-spline through random values one ``scale_um`` apart: smooth at any zoom. Wide
        noise is computed on a coarse grid and enlarged; fine noise is only enlarged.
        """
        step_px = max(scale_um / self.um_per_px, 1.0)
        if step_px < _FINE_PX:
            return self._grain(step_px)
        coarse = 2 ** int(np.log2(step_px / _FINE_PX) + 1)
        step, size = step_px / coarse, [side // coarse + 2 for side in self.shape]
        knots = self.rng.standard_normal([int(side / step) + 5 for side in size], dtype=np.float32)
        # 2.1: the squared weights of a cubic B-spline sum to 0.479 on average, in each direction
        rows = _spline_rows(knots * np.float32(2.1), size[0], step, self.rng.random())
        both = _spline_rows(rows.T, size[1], step, self.rng.random()).T
        return self._enlarge(both, coarse)

    def _grain(self, step_px: float) -> FloatMap:
        """Return fine noise with one random value a step, float32 [h, w]."""
        size = [int(side / step_px) + 2 for side in self.shape]
        # 1.2: enlarging lowers the deviation to about 0.83
        return self._enlarge(
            self.rng.standard_normal(size, dtype=np.float32) * np.float32(1.2), step_px
        )

    def _enlarge(self, values: FloatMap, factor: float) -> FloatMap:
        """Return the map enlarged by a factor and cut to the field, float32 [h, w]."""
        large = cv2.resize(values, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(large[: self.shape[0], : self.shape[1]], dtype=np.float32)

    def stretched(
        self, along: npt.NDArray[np.floating], across: npt.NDArray[np.floating]
    ) -> FloatMap:
        """Return noise at the given coordinates: long where they change slowly, float32 [h, w]."""
        shift = self.rng.uniform(0, 255, 2).astype(np.float32)
        columns, rows = (
            np.asarray(v - 255 * np.floor(v / 255), dtype=np.float32)
            for v in (along + shift[0], across + shift[1])
        )
        sampled = cv2.remap(
            self._tile, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(sampled, dtype=np.float32)

    def distance(self, mask: Mask) -> FloatMap:
        """Return how deep in micrometres each pixel lies inside the mask, float32 [h, w]."""
        pixels = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
        return np.asarray(pixels * np.float32(self.um_per_px), dtype=np.float32)

    def smooth(self, values: FloatMap | Mask, radius_um: float) -> FloatMap:
        """Return the map averaged over about ``radius_um``, float32 [h, w].

        Two box filters: as cheap for a wide radius as for a narrow one.
        """
        side = 2 * round(radius_um / self.um_per_px / 2) + 1
        once = cv2.blur(np.asarray(values, dtype=np.float32), (side, side))
        return np.asarray(cv2.blur(once, (side, side)), dtype=np.float32)

    def above(self, values: FloatMap, share: float) -> Mask:
        """Return the mask of about the given share of the field where the values are highest."""
        if share <= 0:
            return np.zeros(self.shape, bool)  # the sample below may miss the highest value
        return np.asarray(values > np.quantile(values[::4, ::4], 1 - share), dtype=bool)

    def edges(self, spacing_um: float, bend_um: float) -> FloatMap:
        """Return distances in micrometres to the borders of a bent Voronoi pattern, float32 [h, w].

        Two seeds lie on both sides of the centre, so that every field sees a border. The pattern is
        made coarsely and bent by resampling its smooth distances, which costs the same at any zoom.
        """
        coarse_um = max(self.um_per_px, spacing_um / 150)
        margin_um = 1.5 * spacing_um
        zoom, margin = self.um_per_px / coarse_um, margin_um / coarse_um
        size = [int(side * zoom + 2 * margin) for side in self.shape]
        seeds = self._seeds(size, spacing_um / coarse_um)
        canvas = np.ones(size, np.uint8)
        canvas[seeds[:, 0], seeds[:, 1]] = 0
        _, labels = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 5)
        borders = changes(labels)
        distance = cv2.distanceTransform((~borders).astype(np.uint8), cv2.DIST_L2, 5)
        columns = self.x / np.float32(coarse_um) + np.float32(margin)
        rows = self.y / np.float32(coarse_um) + np.float32(margin)
        bent = cv2.remap(
            cv2.blur(distance, (3, 3)),
            columns + self._bend(spacing_um, bend_um / coarse_um),
            rows + self._bend(spacing_um, bend_um / coarse_um),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(bent * np.float32(coarse_um), dtype=np.float32)

    def _bend(self, spacing_um: float, amount: float) -> FloatMap:
        """Return a displacement map with wide and narrow bends, float32 [h, w]."""
        wide, narrow = self.noise(spacing_um / 2), self.noise(spacing_um / 6)
        return np.asarray(np.float32(amount) * (wide + np.float32(0.25) * narrow))

    def _seeds(self, size: list[int], step: float) -> npt.NDArray[np.int64]:
        """Return seed pixels [n, 2] about a step apart, two of them around the centre."""
        rows, columns = (np.arange(0, side, step) for side in size)
        grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        seeds = grid + self.rng.uniform(0, step, grid.shape)
        centre = np.array(size) / 2
        seeds = seeds[np.hypot(*(seeds - centre).T) > 0.8 * step]
        angle = self.rng.uniform(0, 2 * np.pi)
        across = 0.45 * step * np.array([np.sin(angle), np.cos(angle)])
        seeds = np.concatenate([seeds, [centre + across, centre - across]])
        return np.clip(seeds, 0, np.array(size) - 1).astype(np.int64)

    def rounded(self, mask: Mask, radius_um: float) -> Mask:
        """Return the mask without its parts that no disc of the radius fits into (an opening)."""
        return np.asarray(self.distance(self.distance(mask) <= radius_um) < radius_um, dtype=bool)


def changes(values: npt.NDArray[np.generic]) -> Mask:
    """Return the mask of pixels whose right or lower neighbour has another value.

    >>> changes(np.array([[0, 0, 1], [0, 0, 1]])).astype(int).tolist()
    [[0, 1, 0], [0, 1, 0]]
    """
    mask = np.zeros(values.shape, bool)
    mask[:, :-1] |= values[:, 1:] != values[:, :-1]
    mask[:-1, :] |= values[1:, :] != values[:-1, :]
    return mask


def _spline_rows(knots: FloatMap, count: int, step: float, start: float) -> FloatMap:
    """Return a cubic B-spline through rows of knots at ``count`` places, float32 [count, n].

    Written out, for a matrix product would start the threads of the linear algebra library, which
    get in the way of the pool that draws many pictures at once.
    """
    position = np.arange(count) / step + start
    knot = position.astype(np.int64)
    t = (position - knot).astype(np.float32)[:, None]
    return np.asarray(
        ((1 - t) ** 3 / 6) * knots[knot]
        + ((3 * t**3 - 6 * t**2 + 4) / 6) * knots[knot + 1]
        + ((-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6) * knots[knot + 2]
        + (t**3 / 6) * knots[knot + 3],
        dtype=np.float32,
    )
