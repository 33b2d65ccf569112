"""Where Optuna keeps studies, and which version of a study a digest belongs to."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from breakhis_search.errors import StorageLostError, StudyError
from breakhis_search.settings import mask_password, without_secrets
from breakhis_search.tracking.ownership import one_at_a_time

STORAGE_FAULTS: tuple[type[Exception], ...] = (
    SQLAlchemyError,
    optuna.exceptions.StorageInternalError,
)
"""What a database raises that is away, or that has dropped a connection."""

RUN_UID = "uid"
"""User attribute of a study: the uid of its own run, which tells studies of one name apart."""

STOPPED = "stopped_because"
"""User attribute of a study: what its last search was stopped by that its trials do not tell."""

_IDENTITY = "identity"
_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "beegfs", "gpfs", "ceph"}


@dataclass(frozen=True)
class StudyVersion:
    """Which version of a study an identity belongs to.

    Attributes:
        name: Such as ``binary@v2``.
        digest: Its identity.
        is_new: Whether it does not exist yet.
        earlier: Versions of that name that exist beside it.
    """

    name: str
    digest: str
    is_new: bool
    earlier: tuple[str, ...]


def open_storage(uri: str) -> optuna.storages.BaseStorage:
    """Return the Optuna storage at a database address.

    Raises:
        StudyError: The database cannot be opened or written, or SQLite lies on a network file
            system, where its locks do not work.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not uri.startswith("sqlite:///"):
        with storage_errors(uri, ImportError):  # the driver of the database is not installed
            # A connection that the server has dropped meanwhile is replaced, not an error; and a
            # worker keeps one, because a server has a hundred (max_connections) for all of them.
            connections = {
                "pool_pre_ping": True,
                "pool_size": 1,
                "max_overflow": 2,
                "connect_args": connection_arguments(uri),
            }
            return optuna.storages.RDBStorage(uri, engine_kwargs=connections)
    folder = Path(uri.removeprefix("sqlite:///")).parent
    _require_local_folder(folder)
    # Two processes that start at once would create the same tables.
    with storage_errors(uri), one_at_a_time(folder):
        return optuna.storages.RDBStorage(uri)


def connection_arguments(uri: str) -> dict[str, int]:
    """Return what a driver must be told so that a database whose machine is lost is noticed.

    Without it a statement waits for the answer of a machine that has lost its power or its network
    for as long as the kernel does: a quarter of an hour, or for ever.

    Args:
        uri: Of the database.
    """
    if not uri.startswith("postgresql"):
        return {}
    probes = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    return {"connect_timeout": 10, "tcp_user_timeout": 60_000, "keepalives": 1, **probes}


def _require_local_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be written ({error.strerror})",
            expected="a writable folder for studies",
            remedy="make it writable, or run from another folder",
        ) from error
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StudyError(
            f"{folder} lies on a network file system ({kind}), where SQLite loses data",
            expected="a local disk, or PostgreSQL",
            remedy="set BREAKHIS_STUDIES_URI=postgresql://… or run from a local folder",
        )


def _file_system(folder: Path) -> str | None:
    """Type of the mounted file system a folder lies on; ``None`` where the system cannot tell."""
    mounts = Path("/proc/mounts")
    if not mounts.is_file():
        return None
    best, kind = "", None
    target = folder.resolve()
    for line in mounts.read_text().splitlines():
        _, place, file_system, *_ = line.split()
        if target.is_relative_to(place) and len(place) >= len(best):
            best, kind = place, file_system
    return kind


@contextmanager
def storage_errors(uri: str, *others: type[Exception]) -> Iterator[None]:
    """Turn what the database raises into one :class:`StudyError`, without its password.

    Args:
        uri: Of the database.
        others: What else is its fault.
    """
    try:
        yield
    except (*STORAGE_FAULTS, *others) as error:
        told = without_secrets(str(error).strip() or type(error).__name__)
        first_line = told.splitlines()[0]
        kind = StudyError if uri.startswith("sqlite:") else StorageLostError
        raise kind(
            f"the study storage {mask_password(uri)} cannot be used ({first_line[:200]})",
            expected="a database that can be written",
            remedy="free space or make it writable, then run the same command again"
            if kind is StudyError
            else "check that it runs and lets you in, or correct BREAKHIS_STUDIES_URI",
        ) from error


def find_version(
    storage: optuna.storages.BaseStorage, name: str, *, digest: str, fresh: bool
) -> StudyVersion:
    """Return the version of a study that has this identity, or the next one; nothing is created.

    Args:
        storage: From :func:`open_storage`.
        name: Study name without version.
        digest: Identity of the study.
        fresh: Want a new version even where one has this identity.
    """
    versions = study_versions(storage, name)
    match = None if fresh else next((v for v in reversed(versions) if versions[v] == digest), None)
    number = match or max(versions, default=0) + 1
    earlier = tuple(f"{name}@v{v}" for v in versions if v != number)
    return StudyVersion(f"{name}@v{number}", digest, match is None, earlier)


def open_study(
    storage: optuna.storages.BaseStorage,
    version: StudyVersion,
    *,
    objective: str,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    """Return a version of a study, created if it is new.

    Args:
        storage: From :func:`open_storage`.
        version: From :func:`find_version`.
        objective: What its trials are scored by; Optuna's own pages show the name.
        sampler: Proposes values.
        pruner: Stops hopeless trials.

    Raises:
        StudyError: Another run has meanwhile created a study of another identity by that name.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=version.name,
        direction="maximize",
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )
    identity = study.user_attrs.get(_IDENTITY)
    if identity is None:
        study.set_user_attr(_IDENTITY, version.digest)
        with warnings.catch_warnings(
            action="ignore", category=optuna.exceptions.ExperimentalWarning
        ):
            study.set_metric_names([objective])
    elif identity != version.digest:
        raise StudyError(
            f"another run has just created another study called {version.name}",
            remedy="run the same command again",
        )
    return study


def trials_of(uri: str, name: str, uid: str) -> tuple[list[optuna.trial.FrozenTrial], str]:
    """Return the trials of a study, by number, and what stopped it from outside, in words.

    There are none where the database holds another study.

    Args:
        uri: Of the database.
        name: Full study name.
        uid: Identity of the study: two databases may know two of one name.

    Raises:
        StudyError: The database cannot be opened.
    """
    with storage_errors(uri):
        storage = open_storage(uri)
        for study in storage.get_all_studies():
            if study.study_name == name and study.user_attrs.get(RUN_UID) == uid:
                trials = storage.get_all_trials(study._study_id, deepcopy=False)  # noqa: SLF001
                return trials, str(study.user_attrs.get(STOPPED, ""))
    return [], ""


def study_versions(storage: optuna.storages.BaseStorage, name: str) -> dict[int, str | None]:
    """Return identity by version number of all versions of a study, ascending."""
    pattern = re.compile(rf"{re.escape(name)}@v(\d+)")
    found = {}
    for study in storage.get_all_studies():
        matched = pattern.fullmatch(study.study_name)
        if matched:
            found[int(matched[1])] = study.user_attrs.get(_IDENTITY)
    return dict(sorted(found.items()))
