"""What a model must reach before it may be called champion: floors, out-of-fold."""

from __future__ import annotations

from collections.abc import Mapping


def broken_floors(metrics: Mapping[str, float], floors: Mapping[str, float]) -> list[str]:
    """Return in words every floor that is not reached; a metric that is missing reaches none.

    >>> broken_floors({"patient/auroc": 0.7}, {"patient/auroc": 0.8, "image/mcc": 0.1})
    ['patient/auroc 0.700 < 0.800', 'image/mcc is not defined on this data (floor 0.100)']
    """
    broken = []
    for name, floor in floors.items():
        value = metrics.get(name)
        if value is None:
            broken.append(f"{name} is not defined on this data (floor {floor:.3f})")
        elif value < floor:
            broken.append(f"{name} {value:.3f} < {floor:.3f}")
    return broken
