"""Trials in outline: how they ended and what is noted of them, thousands at once.

Optuna's storage makes an object of every hyperparameter and every epoch that was reported, which of
2,000 trials takes longer than everything else that ``status`` does. Here only the rows are read
that it looks at.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState


def outlines_of(
    storage: BaseStorage, study_id: int, *, attributes: Collection[str]
) -> list[FrozenTrial]:
    """Return the trials of a study, by number, without hyperparameters and epochs.

    Args:
        storage: From :func:`breakhis_search.study.storage.open_storage`.
        study_id: As the storage calls it.
        attributes: The user attributes that are wanted.
    """
    if not isinstance(storage, RDBStorage):
        return storage.get_all_trials(study_id, deepcopy=False)
    trial, noted = models.TrialModel.__table__, models.TrialUserAttributeModel.__table__
    value = models.TrialValueModel.__table__
    ours = trial.c.study_id == study_id
    with storage.engine.connect() as connection:
        rows = connection.execute(sa.select(trial).where(ours).order_by(trial.c.number)).all()
        values = connection.execute(
            sa.select(value.c.trial_id, value.c.value)
            .join(trial, trial.c.trial_id == value.c.trial_id)
            .where(ours, value.c.objective == 0)
        )
        found = connection.execute(
            sa.select(noted.c.trial_id, noted.c.key, noted.c.value_json)
            .join(trial, trial.c.trial_id == noted.c.trial_id)
            .where(ours, noted.c.key.in_(attributes))
        )
        value_of = {row.trial_id: row.value for row in values}
        attributes_of: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for row in found:
            attributes_of[row.trial_id][row.key] = json.loads(row.value_json)
    return [
        FrozenTrial(
            number=row.number,
            trial_id=row.trial_id,
            state=TrialState(row.state),
            # An end that has no score may have its last epoch's there; only a score counts.
            value=value_of.get(row.trial_id) if row.state == TrialState.COMPLETE else None,
            datetime_start=_local(row.datetime_start),
            datetime_complete=_local(row.datetime_complete),
            params={},
            distributions={},
            user_attrs=attributes_of[row.trial_id],
            system_attrs={},
            intermediate_values={},
        )
        for row in rows
    ]


def _local(utc: datetime | None) -> datetime | None:
    """A time without zone, as Optuna gives it; it is kept as UTC."""
    return utc and utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
