"""Words that every text needs."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "map"), counted(0, "trial"), counted(7909, "image")
    ('1 map', '0 trials', '7,909 images')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
