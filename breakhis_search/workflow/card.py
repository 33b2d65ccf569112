"""``card``: model card and decision log of a registered version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from breakhis_search.comparison.history import CHALLENGER, CHAMPION, version_of_alias
from breakhis_search.comparison.registry import find_version
from breakhis_search.errors import RegistryError
from breakhis_search.reporting.attach import write_paper_trail
from breakhis_search.reporting.facts import gather_facts
from breakhis_search.settings import Settings
from breakhis_search.tracking.store import read_store, tracking_errors
from breakhis_search.workflow.prediction import model_name_of


@dataclass(frozen=True)
class Card:
    """What was written of a version.

    Attributes:
        name: Registered model.
        version: Its number.
        demo: Whether it learned from synthetic images.
        texts: Model card and decision log by path, in Markdown.
    """

    name: str
    version: str
    demo: bool
    texts: Mapping[str, str]

    def save(self, folder: Path) -> list[Path]:
        """Write the files into a folder and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for place, text in self.texts.items():
            file = folder / Path(place).name
            file.write_text(text, encoding="utf-8")
            files.append(file)
        return files


def read_card(study: str, settings: Settings, *, version: str | None, demo: bool) -> Card:
    """Return the card of a version, by default of the champion, else of the challenger.

    Raises:
        RegistryError: There is no such version, or it was registered by something else.
    """
    name = model_name_of(study, settings, demo=demo)
    client = read_store(settings)
    with tracking_errors(settings.tracking_uri):
        if version is not None:
            target = find_version(client, name, version)
        else:
            target = version_of_alias(client, name, CHAMPION)
            target = target or version_of_alias(client, name, CHALLENGER)
        if target is None:
            raise RegistryError(
                f"{name} has neither champion nor challenger",
                expected="a registered version (`status` lists them)",
                remedy="run the study, or name a version with --version",
            )
        facts = gather_facts(client, target)
        return Card(name, str(target.version), facts.version.demo, write_paper_trail(facts))
