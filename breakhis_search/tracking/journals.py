"""The journals of a folder: which there are, what waits in them, what cannot be delivered."""

from __future__ import annotations

from pathlib import Path

from breakhis_search.tracking.journal import RECORDS, TAKEN_OVER, Journal


def all_journals(folder: Path) -> list[Journal]:
    """Return the journals in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = sorted(folder.iterdir(), key=lambda f: f.stat().st_mtime)
    return [Journal(f) for f in found if (f / RECORDS).is_file()]


def find_journal(folder: Path, uid: str) -> Journal | None:
    """Return the journal of a run, ``None`` where nothing of it was recorded here."""
    place = folder / uid
    return Journal(place) if (place / RECORDS).is_file() else None


def open_journals(folder: Path) -> list[Journal]:
    """Return the journals in a folder that hold undelivered records, oldest first."""
    return [j for j in all_journals(folder) if j.has_undelivered]


def journals_set_aside(folder: Path) -> dict[str, str]:
    """Return the uids of runs whose records cannot be delivered, and why."""
    reasons = {j.uid: j.set_aside_because for j in all_journals(folder)}
    return {uid: why for uid, why in reasons.items() if why not in (None, TAKEN_OVER)}


def take_up_set_aside(folder: Path) -> None:
    """Have what could not be delivered tried again."""
    for uid in journals_set_aside(folder):
        Journal(folder / uid).take_up()


def end_left_behind(folder: Path) -> list[Journal]:
    """End the journals that no living process holds; return those that have something to deliver.

    Nobody else holds a journal while it is written: one without an end was cut off.

    Args:
        folder: Of the journals.
    """
    waiting = []
    for journal in all_journals(folder):
        with journal.held() as is_ours:
            if not is_ours or journal.set_aside_because is not None:
                continue
            if not journal.is_finished():
                journal.end_cut_off()
            if journal.has_undelivered:
                waiting.append(journal)
    return waiting
