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

OnDemo = Annotated[
    bool, typer.Option("--demo", help="What the study found on the demo; or write STUDY-demo.")
]


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


_DEMO = "-demo"
_VERSION = re.compile(r"@v\d+$")


def registered_of(study: str, *, demo: bool) -> tuple[str, bool]:
    """Return the study whose winners are meant, and whether those of the demo are.

    A registered model holds the winners of all versions of a study. The run of a study on the demo
    is called by the study's name with ``-demo``, or by ``--demo``.

    >>> registered_of("binary@v2", demo=False), registered_of("binary-demo", demo=False)
    (('binary', False), ('binary', True))
    """
    name = _VERSION.sub("", study)
    return name.removesuffix(_DEMO), demo or name.endswith(_DEMO)


def run_of(study: str, *, demo: bool) -> str:
    """Return the full name of a study that may be given by its file, or of its run on the demo.

    >>> run_of("binary@v2", demo=True), run_of("binary-demo", demo=True), run_of("x", demo=False)
    ('binary-demo@v2', 'binary-demo', 'x')
    """
    if not demo:
        return study
    from breakhis_search.study_file import study_name

    name, at, version = study_name(study).partition("@")
    return f"{name.removesuffix(_DEMO)}{_DEMO}{at}{version}"
