"""``card`` in the terminal."""

from __future__ import annotations

from pathlib import Path

from breakhis_search.cli import console
from breakhis_search.cli.console import READING
from breakhis_search.settings import read_settings


def card_command(
    study: str, *, version: str | None, demo: bool, out: Path | None, as_json: bool
) -> None:
    """Print model card and decision log, or write them into a folder."""
    with console.at_work(READING):
        from breakhis_search.workflow.card import read_card

        card = read_card(study, read_settings(), version=version, demo=demo)
    if as_json:
        answer = {"model": card.name, "version": card.version, "demo": card.demo}
        console.print_json({**answer, "documents": dict(card.texts)})
    elif out is None:
        for text in card.texts.values():
            console.print_document(text)
    else:
        for file in card.save(out):
            console.out.print(f"{file}", soft_wrap=True)
