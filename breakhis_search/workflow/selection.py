"""Between the search and the registry: finalists, the tied set, the winner, all written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import optuna
import pandas as pd

from breakhis_search.comparison.contest import judge_finalists, read_search
from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.comparison.optimism import best_of_n_optimism
from breakhis_search.comparison.selection import Selection
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.mistakes import HardPatient, hard_patients
from breakhis_search.evaluation.plausibility import implausible
from breakhis_search.study.context import StudyContext
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import tracking_errors
from breakhis_search.workflow.arrival import finalists_in_mlflow
from breakhis_search.workflow.registration import Winner


def select_winner(
    study: optuna.Study,
    context: StudyContext,
    client: Any,
    parent: Journal,
    say: Callable[[str], None],
) -> Winner | None:
    """Train the finalists, select one of them, and write the selection to the study's run.

    Args:
        study: The searched study.
        context: The study.
        client: MLflow client.
        parent: Journal of the study's run.
        say: Told what is being done.

    Returns:
        ``None`` when no trial of the search is complete, or every finalist failed.
    """
    arrived = finalists_in_mlflow(study, context, client, say)
    if arrived is None:
        return None
    runs, board = arrived.runs, arrived.board
    objective, rules = context.config.objective, context.config.selection
    with tracking_errors(context.settings.tracking_uri):
        selection = judge_finalists(
            client, board, objective, margin=rules.margin, alpha=rules.alpha
        )
        if selection is None:
            return None
        table = read_predictions(client, runs[selection.selected])
        trials = read_search(client, board)
    alarms = _implausible(table, context)
    for alarm in alarms:
        say(f"LEAK ALARM: {alarm}")
    found = _Report(parent, context).write(selection, trials, alarms, list(runs.values()))
    say(selection.explanation)
    [trial] = [t for t in study.get_trials(deepcopy=False) if t.number == selection.selected]
    return Winner(
        trial=trial,
        run_id=runs[selection.selected],
        table=table,
        seeds=context.config.finalists.seeds,
        why=selection.explanation,
        selection=selection.table,
        found=found,
    )


def _implausible(table: pd.DataFrame, context: StudyContext) -> list[str]:
    """Scores that no patient-disjoint study should reach, in words."""
    if context.is_demo or context.config.protocol.leaks:
        return []
    return implausible(
        compute_metrics(table), context.config.task, int(table["accession"].nunique())
    )


@dataclass(frozen=True)
class _Report:
    """What the selection leaves with the study's own run."""

    parent: Journal
    context: StudyContext

    def write(
        self,
        selection: Selection,
        trials: Sequence[pd.DataFrame],
        alarms: Sequence[str],
        run_ids: Sequence[str],
    ) -> dict[str, str]:
        """Keep the tied set, the optimism of the search, and whom every trial gets wrong.

        Returns:
            What was found, as tags: a registered version keeps what was known when it was chosen.
        """
        optimism = best_of_n_optimism(trials, self.context.config.objective)
        hard = hard_patients(trials)
        self._write_table(keys.ARTIFACT_SELECTION, selection.table)
        columns = [field.name for field in fields(HardPatient)]
        whom = pd.DataFrame([asdict(patient) for patient in hard.patients], columns=columns)
        self._write_table(keys.ARTIFACT_HARD_PATIENTS, whom)
        self.parent.log_artifacts()
        values = {"raw_best": optimism.raw_best, "corrected": optimism.corrected}
        self.parent.log_metrics({f"search/{k}": v for k, v in values.items() if v is not None})
        found = {
            keys.WHY_SELECTED: selection.explanation,
            keys.OPTIMISM: str(optimism),
            keys.HARD_PATIENTS: hard.in_words(),
            keys.LEAK_ALARM: "; ".join(alarms),
        }
        self.parent.set_tags({**found, keys.FINALISTS: json.dumps(list(run_ids))})
        self.context.delivery.deliver(self.parent)
        return found

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        file = self.parent.artifacts / name
        with self.parent.disk_errors():
            file.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(file, index=False)
