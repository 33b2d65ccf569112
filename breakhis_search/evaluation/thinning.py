"""Fewer points for the same line: what a browser need not draw is left out."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

INVISIBLE_DEVIATION = 2e-4
"""A deviation nobody can see: a tenth of a pixel on a 500-pixel unit axis."""

_FEW = 100
"""Points that are not worth the time it takes to find out which of them matter."""


def thin_line(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    *,
    limit: int = 500,
    tolerance: float = INVISIBLE_DEVIATION,
) -> npt.NDArray[np.intp]:
    """Return the indices of the points that carry the shape of a line, ascending.

    Points in the middle of a straight piece go first; few that remain are all kept. Of more, the
    first and last stay. Then the point farthest from the line drawn so far is taken in,
    again and again, until none is farther than ``tolerance`` or ``limit`` points are kept: the
    algorithm of D. Douglas, T. Peucker, Cartographica 10(2), 1973, worst deviation first.

    Args:
        x: float [n].
        y: float [n], in the same units as ``x``.
        limit: The most points to keep, at least 2.
        tolerance: The distance from the line, in the units of the axes, that does not matter.

    >>> thin_line(np.array([0.0, 0.5, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0])).tolist()
    [0, 2, 3]
    """
    corners = _corners(x, y)
    if len(corners) <= min(_FEW, limit):
        return corners
    return corners[_farthest(x[corners], y[corners], limit, tolerance)]


def _corners(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the ends of a line and every point at which it turns."""
    if len(x) <= 2:
        return np.arange(len(x))
    # Of points that lie on one another the first counts: no direction leads to the others.
    apart = np.concatenate([[0], np.flatnonzero((np.diff(x) != 0) | (np.diff(y) != 0)) + 1])
    dx, dy = np.diff(x[apart]), np.diff(y[apart])
    turns = dx[:-1] * dy[1:] != dy[:-1] * dx[1:]
    turns_back = dx[:-1] * dx[1:] + dy[:-1] * dy[1:] < 0
    inner = apart[1:-1][turns | turns_back]
    return np.concatenate([[0], inner, [len(x) - 1]])


def _farthest(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], limit: int, tolerance: float
) -> npt.NDArray[np.intp]:
    """Return the points of a line of at least three, those that matter most first taken in."""
    last = len(x) - 1
    kept = {0, last}
    waiting = [_worst_point(x, y, 0, last)]
    while waiting and len(kept) < limit:
        deviation, worst, start, end = heapq.heappop(waiting)
        if -deviation <= tolerance:
            break
        kept.add(worst)
        for left, right in ((start, worst), (worst, end)):
            if right - left > 1:
                heapq.heappush(waiting, _worst_point(x, y, left, right))
    return np.array(sorted(kept), dtype=np.intp)


def _worst_point(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], start: int, end: int
) -> tuple[float, int, int, int]:
    """Return (minus the deviation, its index, start, end) of the point farthest from a chord."""
    across, up = x[end] - x[start], y[end] - y[start]
    dx, dy = x[start + 1 : end] - x[start], y[start + 1 : end] - y[start]
    squared_length = across**2 + up**2
    along = (across * dx + up * dy) / squared_length if squared_length else np.zeros_like(dx)
    # The chord ends: a spike that overshoots it along its own direction is a deviation as well.
    along = np.clip(along, 0.0, 1.0)
    distance = np.hypot(dx - along * across, dy - along * up)
    worst = int(distance.argmax())
    return -float(distance[worst]), start + 1 + worst, start, end
