"""What typer says of wrong usage only by half."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_BEFORE_COMMANDS = (
    *("--help", "--version", "--quiet", "-q", "--verbose", "-v"),
    *("--install-completion", "--show-completion"),
)


def misplaced_option(typed: Sequence[str], commands: Sequence[str]) -> str | None:
    """Return what to do where the first option belongs to a command that is named behind it.

    Args:
        typed: Arguments.
        commands: Names of all commands.

    >>> misplaced_option(["--study", "binary", "compare"], ["run", "compare"])
    '--study belongs to a command; to do: python -m breakhis_search compare --study binary'
    >>> misplaced_option(["--quiet", "compare"], ["run", "compare"]) is None
    True
    """
    named = next((word for word in typed if word in commands), None)
    if named is None or not typed[0].startswith("-") or typed[0] in _BEFORE_COMMANDS:
        return None
    rest = list(typed)
    rest.remove(named)
    return (
        f"{typed[0]} belongs to a command; to do: python -m breakhis_search"
        f" {shlex.join([named, *rest])}"
    )
