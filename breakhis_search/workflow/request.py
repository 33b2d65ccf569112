"""What a user asks ``run`` for, and the study that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from breakhis_search.config import StudyConfig, parse_duration
from breakhis_search.errors import ConfigError
from breakhis_search.models.architectures import ARCHITECTURES
from breakhis_search.own_code import look_in
from breakhis_search.settings import Settings
from breakhis_search.study_file import find_study_file, load_study, peek, profile_names
from breakhis_search.workflow.dataset import DataChoice, choose_data
from breakhis_search.workflow.space_check import check_space


@dataclass(frozen=True)
class RunRequest:
    """The options of ``run``, as typed."""

    study: str
    data: Path | None = None
    weights_dir: Path | None = None
    profile: str | None = None
    trials: int | None = None
    timeout: str | None = None
    device: Literal["auto", "gpu", "cpu"] = "auto"
    overrides: tuple[str, ...] = ()
    new: bool = False
    accepts_leakage: bool = False


@dataclass(frozen=True)
class ResolvedRequest:
    """A request with its data chosen and its study checked."""

    file: Path
    config: StudyConfig
    data: DataChoice
    profile: str | None

    @property
    def study_name(self) -> str:
        """Name without version; the demo keeps a name of its own."""
        return self.config.name + ("-demo" if self.data.is_demo else "")


def resolve_request(request: RunRequest, settings: Settings) -> ResolvedRequest:
    """Choose the data and the profile and check the study.

    Raises:
        ConfigError: The study file, profile or an override cannot be used.
        DatasetNotFoundError: The data that was named is not there.
    """
    look_in(settings.home)
    file = find_study_file(request.study, settings.home / "experiments")
    overrides = [*request.overrides]
    if request.trials is not None:
        overrides.append(f"search.trials={request.trials}")
    if request.timeout is not None:
        overrides.append(f"search.timeout={_checked_duration(request.timeout)}")
    # Where the data is comes first: what data there is picks the profile.
    root = peek(file, request.overrides, "data", "root")
    data = choose_data(request.data, settings, study_root=str(root) if root else None)
    profile = request.profile or _default_profile(file, is_demo=data.is_demo)
    config = load_study(file, profile=profile, overrides=overrides, check_space=check_space)
    if config.protocol.leaks and not request.accepts_leakage:
        unit = "image" if config.protocol.kind == "image" else "slide"
        raise ConfigError(
            f"the protocol splits by {unit}, so that patients leak into validation",
            expected="protocol.kind: folds (or holdout) and protocol.group_by: accession",
            remedy="split by accession; to measure the leak itself, add --i-know-this-leaks",
        )
    return ResolvedRequest(file, config, data, profile)


def _checked_duration(text: str) -> float:
    try:
        return parse_duration(text) or 0.0
    except ValueError as error:
        raise ConfigError(f"--timeout was not understood: {error}") from error


def _default_profile(file: Path, *, is_demo: bool) -> str | None:
    """``demo`` on demo data and ``full`` on real data, where the file has them."""
    wanted = "demo" if is_demo else "full"
    return wanted if wanted in profile_names(file) else None


def architectures_of(config: StudyConfig) -> tuple[str, ...]:
    """Return what ``model/architecture`` may be: the study's choice, or all built-in ones."""
    chosen = config.space.get("model/architecture", tuple(ARCHITECTURES))
    return (chosen,) if isinstance(chosen, str) else tuple(str(c) for c in chosen)  # type: ignore[union-attr]
