"""What dead processes left behind, and how to bring it to an end where nobody will go on with it.

``run`` goes on with what was cut off by itself. This is for studies that nobody will run again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from breakhis_search.settings import Settings
from breakhis_search.study.budget import INTERRUPTED, UID
from breakhis_search.study.leases import Leases, finalist_of, lead_of
from breakhis_search.study.liveness import cut_off_trials
from breakhis_search.study.storage import open_storage, storage_errors
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery, MakeReport
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.journals import all_journals, find_journal
from breakhis_search.tracking.store import open_store, tracking_errors

GIVEN_UP = "cut off, and given up by `status --repair`"

SETTLED_AFTER = timedelta(minutes=10)
"""How long after a trial's end its run may be on its way to MLflow from another machine."""


@dataclass(frozen=True)
class Orphan:
    """Something that a dead process left.

    Attributes:
        kind: ``trial``, ``run`` or ``checkpoint``.
        name: What it is, for people.
        study: The study of a trial; else empty.
        number: The number of a trial; else -1.
        uid: Its identity; empty for a trial that had none yet.
        remedy: What would be done.
    """

    kind: str
    name: str
    study: str
    number: int
    uid: str
    remedy: str


def find_orphans(settings: Settings) -> list[Orphan]:
    """Return what dead processes left, trials first; nothing is changed."""
    with storage_errors(settings.studies_uri), closing(Leases(settings.studies_uri)) as leases:
        trials = list(_trials(settings, leases))
        without_journal = _runs_without_journal(settings, leases, dict(_ended_trials(settings)))
        at_work = leases.living(place.name for place in _places(settings))
    known = {trial.uid for trial in trials}
    runs = [
        Orphan("run", f"run {j.uid}", "", -1, j.uid, "ended as FAILED in MLflow")
        for j in all_journals(*settings.journal_dirs)
        if j.uid not in known | at_work and _is_left(j)
    ]
    return trials + runs + without_journal + list(_checkpoints(settings, known | at_work))


def _places(settings: Settings) -> Iterator[Path]:
    """Folders of journals and checkpoints, each named by a uid."""
    for folder in (*settings.journal_dirs, settings.checkpoints):
        yield from folder.iterdir() if folder.is_dir() else ()


def _ended_trials(settings: Settings) -> Iterator[tuple[str, str]]:
    """Uid and name of the trials that ended so long ago that MLflow should know."""
    before = datetime.now() - SETTLED_AFTER  # noqa: DTZ005 - as Optuna
    storage = open_storage(settings.studies_uri)
    for study in storage.get_all_studies():
        for trial in storage.get_all_trials(study._study_id, deepcopy=False):  # noqa: SLF001
            ended = trial.datetime_complete
            if trial.state.is_finished() and ended is not None and ended < before:
                uid = str(trial.user_attrs.get(UID, ""))
                yield uid, f"{study.study_name} trial {trial.number}, which has ended"


def _runs_without_journal(
    settings: Settings, leases: Leases, ended: Mapping[str, str]
) -> list[Orphan]:
    """Runs that MLflow takes for running, which nobody is at, with no journal here to say how."""
    client = open_store(settings)
    found = []
    with tracking_errors(settings.tracking_uri):
        experiments = [e.experiment_id for e in client.search_experiments()]
        running = client.search_runs(experiments, "attributes.status = 'RUNNING'")
    for run in running:
        tags = run.data.tags
        uid = tags.get(keys.TRIAL_UID, "")
        what = ended.get(uid) or _left_of_a_study(run.info.run_name, tags, leases)
        if what and find_journal(uid, *settings.journal_dirs) is None:
            name = f"run {uid} of {what}; its records are not here"
            found.append(Orphan("run", name, "", -1, uid, "ended as FAILED in MLflow"))
    return found


def _left_of_a_study(name: str, tags: Mapping[str, str], leases: Leases) -> str:
    """What a run is that no trial stands behind, if nobody is at it; else nothing."""
    study, role = tags.get(keys.STUDY_UID, ""), tags.get(keys.ROLE)
    if not study or role not in (keys.ROLE_STUDY, keys.ROLE_FINALIST, keys.ROLE_REFIT):
        return ""
    work = [lead_of(study), finalist_of(study, int(tags.get(keys.TRIAL_NUMBER, -1)))]
    return "" if leases.living(work) else f"{name}, which nobody is at"


def _trials(settings: Settings, leases: Leases) -> Iterator[Orphan]:
    storage = open_storage(settings.studies_uri)
    for name in sorted(s.study_name for s in storage.get_all_studies()):
        trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        left = set(cut_off_trials(trials, leases))
        for trial in trials:
            if trial.number in left:
                uid = str(trial.user_attrs.get(UID, ""))
                remedy = "failed as interrupted, without a place in the budget; its run ended"
                yield Orphan(
                    "trial", f"{name} trial {trial.number}", name, trial.number, uid, remedy
                )


def _is_left(journal: Journal) -> bool:
    with journal.held() as nobody_writes:
        return nobody_writes and not journal.is_finished()


def _checkpoints(settings: Settings, needed: set[str]) -> Iterator[Orphan]:
    """Checkpoints of no trial that will go on; those of other work are its own business."""
    folder = settings.checkpoints
    for found in sorted(folder.iterdir()) if folder.is_dir() else ():
        journal = find_journal(found.name, *settings.journal_dirs)
        if found.name not in needed and journal is not None and _ended_for_good(journal):
            size_mb = sum(f.stat().st_size for f in found.iterdir()) / 1e6
            name = f"checkpoint {found.name} ({size_mb:.0f} MB)"
            yield Orphan("checkpoint", name, "", -1, found.name, "deleted")


def _ended_for_good(journal: Journal) -> bool:
    return journal.is_finished() and not journal.was_interrupted()


def repair(
    settings: Settings,
    orphans: Sequence[Orphan],
    make_report: MakeReport,
    complain: Callable[[str], None],
) -> None:
    """Bring orphans to their end, in Optuna and in MLflow.

    Args:
        settings: Where things are.
        orphans: From :func:`find_orphans`; what came to life since is left alone.
        make_report: Makes the pages that are still due.
        complain: Told what could not be delivered.
    """
    client = open_store(settings)
    with storage_errors(settings.studies_uri), closing(Leases(settings.studies_uri)) as leases:
        for orphan in orphans:
            if orphan.kind == "trial":
                _end_trial(settings, leases, orphan, client)
            elif orphan.kind == "run":
                _end_run(settings, orphan.uid, client)
            else:
                shutil.rmtree(settings.checkpoints / orphan.uid, ignore_errors=True)
    with tracking_errors(settings.tracking_uri):
        delivery = Delivery(client, settings, make_report, complain=complain)
        delivery.deliver_all(*settings.journal_dirs)


def _end_trial(settings: Settings, leases: Leases, orphan: Orphan, client: Any) -> None:
    study = optuna.load_study(study_name=orphan.study, storage=open_storage(settings.studies_uri))
    [trial] = [t for t in study.get_trials(deepcopy=False) if t.number == orphan.number]
    uid = str(trial.user_attrs.get(UID, ""))  # it may have one by now, and a process that is at it
    if trial.state != TrialState.RUNNING or (uid and not leases.take(uid)):
        return
    storage = study._storage  # noqa: SLF001 - tell() cannot add attributes
    storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)  # noqa: SLF001
    study.tell(orphan.number, state=TrialState.FAIL)
    if not uid:
        return
    shutil.rmtree(settings.checkpoints / uid, ignore_errors=True)
    _end_run(settings, uid, client)
    leases.forget(uid)


def _end_run(settings: Settings, uid: str, client: Any) -> None:
    journal = find_journal(uid, *settings.journal_dirs)
    if journal is None:
        _end_run_of_another_machine(settings, uid, client)
        return
    with journal.held() as nobody_writes:
        if nobody_writes:
            journal.end_cut_off(GIVEN_UP)


def _end_run_of_another_machine(settings: Settings, uid: str, client: Any) -> None:
    """End a run whose journal is out of reach."""
    with tracking_errors(settings.tracking_uri):
        run_id = Delivery(client, settings).run_id(uid)
        if run_id is not None:
            client.set_tag(run_id, keys.STATE, "failed")
            client.set_tag(run_id, keys.FAILURE, GIVEN_UP)
            client.set_terminated(run_id, "FAILED")
