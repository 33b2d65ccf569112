"""Options that several commands share, and what is checked as they are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from breakhis_search.cli.completion import complete_study

_DEVICES = ("auto", "gpu", "cpu")


Study = Annotated[
    str,
    typer.Option(
        "--study",
        "-s",
        autocompletion=complete_study,
        help="Name in experiments/, or a YAML file.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


def at_least_one(number: int | None) -> int | None:
    """Return a number of things that there must be one of, if any number is given."""
    if number is not None and number < 1:
        raise typer.BadParameter(f"1 or more is expected, received {number}")
    return number


def known_device(name: str) -> str:
    """Return the name of a device, if there is such a one."""
    return _one_of(_DEVICES, name)


def known_engine(name: str) -> str:
    """Return the name of an engine, if there is such a one."""
    return _one_of(("local", "ray"), name)


def _one_of(known: Sequence[str], name: str) -> str:
    if name not in known:
        raise typer.BadParameter(f"one of {', '.join(known)} is expected, received {name!r}")
    return name


def without_version(study: str) -> str:
    """The study's name alone: its registered model holds the winners of all its versions."""
    return re.sub(r"@v\d+$", "", study)
