"""Figures against what they are to reach: who measures says so, and fails where one is short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """A measured figure and its bound.

    Attributes:
        name: What was measured.
        value: What was found.
        bound: What it is to reach.
        at_least: Whether the bound is the least it may be, else the most.
    """

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the figure reaches it."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        word = "at least" if self.at_least else "at most"
        verdict = "reached" if self.is_met else "SHORT"
        return f"{verdict}: {self.name} {self.value:g} (aim: {word} {self.bound:g})"


def judge(aims: Sequence[Aim]) -> None:
    """Print how every figure stands to its aim.

    Raises:
        SystemExit: With code 1 where one is short.
    """
    for aim in aims:
        print(aim, flush=True)
    if not all(aim.is_met for aim in aims):
        raise SystemExit(1)
