"""The journals of a folder: which there are, what waits in them, what cannot be delivered."""

from __future__ import annotations

from pathlib import Path

from breakhis_search.tracking.journal import RECORDS, TAKEN_OVER, Journal


def all_journals(*folders: Path) -> list[Journal]:
    """Return the journals in some folders, oldest first."""
    places = [place for folder in folders if folder.is_dir() for place in folder.iterdir()]
    places.sort(key=lambda place: place.stat().st_mtime)
    return [Journal(place) for place in places if (place / RECORDS).is_file()]


def find_journal(uid: str, *folders: Path) -> Journal | None:
    """Return the journal of a run, ``None`` where nothing of it was recorded in these folders."""
    places = [folder / uid for folder in folders if (folder / uid / RECORDS).is_file()]
    return Journal(places[0]) if places else None


def open_journals(*folders: Path) -> list[Journal]:
    """Return the journals in some folders that hold undelivered records, oldest first."""
    return [j for j in all_journals(*folders) if j.has_undelivered]


def journals_set_aside(*folders: Path) -> dict[str, str]:
    """Return the uids of runs whose records cannot be delivered, and why."""
    reasons = {j.uid: j.set_aside_because for j in all_journals(*folders)}
    return {uid: why for uid, why in reasons.items() if why not in (None, TAKEN_OVER)}


def take_up_set_aside(*folders: Path) -> None:
    """Have what could not be delivered tried again."""
    wanting = journals_set_aside(*folders)
    for journal in all_journals(*folders):
        if journal.uid in wanting:
            journal.take_up()


def end_left_behind(*folders: Path) -> list[Journal]:
    """End the journals that no living process holds; return those that have something to deliver.

    Nobody else holds a journal while it is written: one without an end was cut off.

    Args:
        folders: Of the journals.
    """
    waiting = []
    for journal in all_journals(*folders):
        with journal.held() as is_ours:
            if not is_ours or journal.set_aside_because is not None:
                continue
            if not journal.is_finished():
                journal.end_cut_off()
            if journal.has_undelivered:
                waiting.append(journal)
    return waiting
