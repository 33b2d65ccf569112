"""``compare --profile`` in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from breakhis_search.cli import console
from breakhis_search.errors import StudyError
from breakhis_search.settings import read_settings

_BAR = 40  # characters of the longest bar


def profile_command(studies: Sequence[str], *, as_json: bool) -> None:
    """Print where the time of a typical trial went; write a page with every run."""
    from breakhis_search.comparison.profile import PHASES, medians
    from breakhis_search.comparison.profile_page import build_profile_page
    from breakhis_search.tracking.store import open_store, tracking_errors
    from breakhis_search.workflow.comparison import profile_studies

    settings = read_settings()
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        profiles = profile_studies(client, studies)
    if as_json:
        console.print_json({name: p.to_dict("records") for name, p in profiles.items()})
        return
    for name, profile in profiles.items():
        rows = medians(profile).to_dict("records")
        longest = max((row["median"] for row in rows), default=0.0) or 1.0
        console.print_table(
            f"{name}: seconds of a trial, median",
            ["phase", "median", "all trials", "", "what"],
            [
                [
                    row["phase"],
                    f"{row['median']:.2f}",
                    f"{row['total']:.1f}",
                    "█" * round(_BAR * row["median"] / longest),
                    row["what"],
                ]
                for row in rows
            ],
            right=("median", "all trials"),
        )
    file = settings.state_dir / "profile.html"
    try:
        file.write_text(build_profile_page(profiles, PHASES), encoding="utf-8")
    except OSError as error:
        raise StudyError(
            f"{file} cannot be written ({error.strerror})",
            remedy="make the folder writable, or ask for --json",
        ) from error
    console.say(f"every run: {file}")
