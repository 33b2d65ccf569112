"""``--quiet`` and ``--verbose``: how much a command says beside its answer.

Both may stand before the command or among its options. What a command answers (tables, JSON, where
a file is, what was registered) and its errors are always printed.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from breakhis_search.cli import console
from breakhis_search.cli.console import Volume

_QUIET_HELP = "Say nothing but errors and the result."
_VERBOSE_HELP = "Tell also every epoch, times, where logs are, what workers and libraries write."


def _be_quiet(wanted: bool) -> None:
    if wanted:
        _set(Volume.QUIET)


def _be_verbose(wanted: bool) -> None:
    if wanted:
        _set(Volume.VERBOSE)
        let_libraries_speak()


def _set(volume: Volume) -> None:
    if console.volume() not in (Volume.NORMAL, volume):
        raise typer.BadParameter("--quiet and --verbose contradict each other: give one of them")
    console.set_volume(volume)


Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=_be_quiet, help=_QUIET_HELP)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", callback=_be_verbose, help=_VERBOSE_HELP)]


def with_volume(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that knows both options, which act by being read."""
    signature = inspect.signature(command, eval_str=True)
    both = {"quiet": Quiet, "verbose": Verbose}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in both.items()
    ]

    @wraps(command)
    def run(**arguments: Any) -> None:
        command(**{name: value for name, value in arguments.items() if name not in both})

    # typer reads both: what a function takes, and the types of it
    known = signature.replace(parameters=[*signature.parameters.values(), *options])
    run.__signature__ = known  # type: ignore[attr-defined]
    run.__annotations__ = {name: one.annotation for name, one in known.parameters.items()}
    return run


def let_libraries_speak() -> None:
    """Show warnings and log lines that are about libraries, and TensorFlow's start-up messages."""
    if not sys.warnoptions:
        warnings.simplefilter("default")
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":  # set by __main__, not by the user
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"  # warnings; 0 tells of every optimiser pass
    logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("breakhis_search").setLevel(logging.INFO)
