"""What the shell completes beside commands and options: studies and profiles.

Runs at every press of the tab key: it reads file names and YAML, and imports no library of the
search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from breakhis_search.errors import BreakhisSearchError
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "_BREAKHIS_SEARCH_COMPLETE"
"""How the shell asks; it is named after the installed program."""

PROGRAM = "breakhis-search"


def is_about_completion(arguments: list[str]) -> bool:
    """Tell whether the completion of the installed program is to be shown or installed."""
    return any(a.startswith(("--show-completion", "--install-completion")) for a in arguments)


def complete_study(incomplete: str) -> list[str]:
    """Return the studies whose names begin so."""
    from breakhis_search.study_file import known_studies

    folder = read_settings().home / "experiments"
    return [name for name in known_studies(folder) if name.startswith(incomplete)]


def complete_profile(ctx: Any, incomplete: str) -> list[str]:
    """Return the profiles of the study that is named so far, or else of all studies."""
    named = ctx.params.get("study")
    studies = list(named) if isinstance(named, list | tuple) else [named] if named else []
    names = dict.fromkeys(_profiles(studies or complete_study("")))
    return [name for name in names if name.startswith(incomplete)]


def _profiles(studies: list[str]) -> Iterator[str]:
    from breakhis_search.study_file import find_study_file, profile_names

    folder = read_settings().home / "experiments"
    for study in studies:
        try:
            yield from profile_names(find_study_file(study, folder))
        except BreakhisSearchError:  # a study that is typed wrong has no profiles; `run` tells why
            continue
