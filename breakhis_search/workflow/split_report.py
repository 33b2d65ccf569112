"""``data splits``: who is sealed away, who validates which fold, and what leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from breakhis_search.config import StudyConfig
from breakhis_search.data.catalog import read_catalog, table_from_names
from breakhis_search.data.protocol import IntArray, Split
from breakhis_search.data.split_counts import count_images, count_patients
from breakhis_search.data.taxonomy import LABELS, formulation
from breakhis_search.errors import DataError
from breakhis_search.evaluation.resampled_metrics import MIN_PATIENTS
from breakhis_search.settings import Settings
from breakhis_search.study_file import find_study_file, load_study, profile_names
from breakhis_search.workflow.request import RunRequest, resolve_request
from breakhis_search.workflow.splitting import split_catalog, split_table


@dataclass(frozen=True)
class SplitReport:
    """The split of a study, as a reader wants to see it.

    Attributes:
        config: The study.
        source: Which images, in words.
        split: Their split.
        patients: Accessions per side and type.
        images: Images per side and type.
        is_demo: Whether they are synthetic.
    """

    config: StudyConfig
    source: str
    split: Split
    patients: pd.DataFrame
    images: pd.DataFrame
    is_demo: bool

    @property
    def sealed(self) -> list[str]:
        """The sealed accessions, sorted."""
        return self._accessions(self.split.test)

    @property
    def validated(self) -> list[list[str]]:
        """The accessions that each fold validates, sorted."""
        return [self._accessions(fold.validation) for fold in self.split.folds]

    @property
    def notes(self) -> list[str]:
        """What else must be known of the split, in words."""
        counts = self.patients.loc["sealed test"].astype(int).to_dict()
        few = [f"{counts[label]} {label}" for label in LABELS if 0 < counts[label] < MIN_PATIENTS]
        note = (
            f"few patients are sealed ({', '.join(few)}): what the test says of such a class rests"
            f" on them; below {MIN_PATIENTS} no interval is given"
        )
        return [*self.split.notes, *([note] if few else [])]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "study": self.config.name,
            "source": self.source,
            "demo": self.is_demo,
            "task": self.config.task,
            "formulation": formulation(self.config.task, self.config.magnification),
            "protocol": self.config.protocol.model_dump(mode="json"),
            "digest": self.split.digest,
            "sealed": self.sealed,
            "sealed_absent_because": self.split.sealed.absent_because,
            "folds": [{"validation": accessions} for accessions in self.validated],
            "accessions": self.patients.to_dict("index"),
            "images": self.images.to_dict("index"),
            "notes": self.notes,
        }

    def _accessions(self, rows: IntArray) -> list[str]:
        return sorted(set(self.split.table["accession"].iloc[rows]))


def report_split(
    study: str,
    settings: Settings,
    *,
    data: Path | None = None,
    names: Path | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
) -> SplitReport:
    """Return the split that a run of the study would use.

    Args:
        study: Name or file of the study.
        settings: Where things are.
        data: Folder with the images, found as for a run.
        names: A text file with one image name a line, instead of images: the split of a whole data
            set can be seen without its pixels.
        profile: Profile of the study file; by default that of a run.
        overrides: ``--set`` arguments.

    Raises:
        BreakhisSearchError: The study, the images or the list cannot be used, or there is no
            such split.
    """
    if names is not None:
        config = _config(study, settings, profile, overrides)
        table = table_from_names(_read_names(names))
        split = split_table(table, config, places=[names.resolve().parent])
        source = f"{names.name}, {len(table):,} names without pixels"
        is_demo = False
    else:
        request = RunRequest(
            study, data=data, profile=profile, overrides=tuple(overrides), accepts_leakage=True
        )
        resolved = resolve_request(request, settings)
        config = resolved.config
        catalog = read_catalog(resolved.data.folder, cache_dir=settings.cache_dir)
        catalog = catalog.require_usable(config.data.on_bad_image)
        split = split_catalog(catalog, config, folder=resolved.data.folder)
        source = f"{catalog.root}, {len(catalog.table):,} images ({resolved.data.source})"
        is_demo = resolved.data.is_demo
    return SplitReport(config, source, split, count_patients(split), count_images(split), is_demo)


def _config(
    study: str, settings: Settings, profile: str | None, overrides: Sequence[str]
) -> StudyConfig:
    """The study as a run on real data would check it."""
    file = find_study_file(study, settings.home / "experiments")
    default = "full" if "full" in profile_names(file) else None
    return load_study(file, profile=profile or default, overrides=overrides)


def _read_names(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the list of names {file} cannot be read ({error})",
            expected="a text file, one image name a line",
            remedy="check the path",
        ) from error
