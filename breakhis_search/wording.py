"""Words that every text needs."""

from __future__ import annotations

from collections.abc import Mapping


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "map"), counted(0, "trial"), counted(7909, "image")
    ('1 map', '0 trials', '7,909 images')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def patients_in_words(by_class: Mapping[str, int]) -> str:
    """Return how many patients there are, and of which class.

    >>> patients_in_words({"benign": 5, "phyllodes_tumor": 11})
    '16 patients (5 benign, 11 phyllodes tumor)'
    """
    each = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in by_class.items())
    return f"{counted(sum(by_class.values()), 'patient')} ({each})"


def how_to_run(study: str, *, demo: bool) -> str:
    """Return what to type for a study to be searched.

    Args:
        study: As its file is called.
        demo: Whether its run on the demo is wanted, for which there is no option.

    >>> how_to_run("binary", demo=False)
    'run --study binary'
    >>> how_to_run("binary", demo=True).partition(":")[0]
    'run --study binary where there are no images (no --data, BREAKHIS_ROOT, data.root or ./data)'
    """
    if not demo:
        return f"run --study {study}"
    return (
        f"run --study {study} where there are no images (no --data, BREAKHIS_ROOT, data.root or"
        " ./data): it works on the demo then"
    )
