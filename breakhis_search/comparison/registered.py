"""What a registration ends with. Light: it is read where MLflow is not loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Registered:
    """A registered version.

    Attributes:
        name: Registered model.
        version: Its version number.
        alias: The alias it was given.
        why: Why that one, in words.
    """

    name: str
    version: str
    alias: str
    why: str
