"""Marks on work of a study that is no trial (a finalist, the refit): was it cut off?"""

from __future__ import annotations

import optuna

from breakhis_search.study import lease
from breakhis_search.study.context import StudyContext
from breakhis_search.tracking import keys

_CLAIM = "claim/"


def claim(study: optuna.Study, what: str, uid: str) -> None:
    """Leave a mark by which the next start can tell that a piece of work was cut off.

    Args:
        study: The study.
        what: Name of the work, such as ``refit``.
        uid: The run that records it.
    """
    study.set_user_attr(_CLAIM + what, {"uid": uid, "lease": lease.claim()})


def release(study: optuna.Study, what: str) -> None:
    """Take the mark away: the work ended, however it ended."""
    study.set_user_attr(_CLAIM + what, None)


def settle_dead_claims(study: optuna.Study, context: StudyContext) -> list[str]:
    """Finish the runs of work whose process is gone; return the names of that work."""
    settled = []
    for name, mark in study.user_attrs.items():
        if name.startswith(_CLAIM) and mark and lease.is_dead(mark["lease"]):
            _finish(mark["uid"], context)
            what = name.removeprefix(_CLAIM)
            release(study, what)
            settled.append(what)
    return settled


def _finish(uid: str, context: StudyContext) -> None:
    journal = context.journal(uid)
    if not journal.is_finished():
        journal.set_tags({keys.STATE: "interrupted", keys.FAILURE: "its process ended"})
        journal.finish("FAILED")
        context.delivery.deliver(journal)
