"""What the program's exit codes mean; the one place that says so."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    ERROR = 1
    USAGE = 2
    PARTLY = 3
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.ERROR: "an error, told in one line",
    ExitCode.USAGE: "an option or argument is wrong",
    ExitCode.PARTLY: "done in part: predict could not score some files, replay came to other"
    " numbers",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); what is finished is kept",
}
"""130 is 128 + SIGINT, as shells have it; 2 is what typer gives for wrong usage."""


def in_words() -> str:
    """Return all codes in a sentence, for the help.

    >>> in_words()[:48]
    'Exit codes: 0 done; 1 an error, told in one line'
    """
    return "Exit codes: " + "; ".join(f"{code:d} {text}" for code, text in MEANINGS.items()) + "."
