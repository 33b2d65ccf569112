"""Between the search and the registry: finalists, the tied set, the winner, all written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pandas as pd

from breakhis_search.comparison.contest import judge_finalists, judge_search
from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.comparison.leaderboard import read_leaderboard
from breakhis_search.comparison.optimism import Optimism
from breakhis_search.comparison.selection import Selection
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.plausibility import implausible
from breakhis_search.study.context import StudyContext
from breakhis_search.study.stages import run_finalists
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import tracking_errors
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
    uids = run_finalists(study, context, say)
    if not uids:
        return None
    objective, rules = context.config.objective, context.config.selection
    with tracking_errors(context.settings.tracking_uri):
        board = read_leaderboard(client, [context.name], study_uid=context.uid)
        runs = {number: str(context.delivery.run_id(uid)) for number, uid in uids.items()}
        earlier = (board["stage"] == keys.STAGE_FINALISTS) & ~board["run_id"].isin(runs.values())
        board = board[~earlier]  # finalists of a smaller budget that are none any more
        selection = judge_finalists(
            client, board, objective, margin=rules.margin, alpha=rules.alpha
        )
        optimism = judge_search(client, board, objective)
        if selection is None:
            return None
        table = read_predictions(client, runs[selection.selected])
    for warning in _implausible(table, context):
        say(f"LEAK ALARM: {warning}")
        parent.set_tags({keys.LEAK_ALARM: warning})
    _write_down(selection, optimism, parent, context)
    say(selection.explanation)
    [trial] = [t for t in study.get_trials(deepcopy=False) if t.number == selection.selected]
    return Winner(
        trial=trial,
        run_id=runs[selection.selected],
        table=table,
        seeds=context.config.finalists.seeds,
        why=selection.explanation,
    )


def _implausible(table: pd.DataFrame, context: StudyContext) -> list[str]:
    """Scores that no patient-disjoint study should reach, in words."""
    if context.is_demo or context.config.protocol.leaks:
        return []
    return implausible(
        compute_metrics(table), context.config.task, int(table["accession"].nunique())
    )


def _write_down(
    selection: Selection, optimism: Optimism | None, parent: Journal, context: StudyContext
) -> None:
    """Keep the tied set and the optimism of the search with the study's own run."""
    file = parent.artifacts / keys.ARTIFACT_SELECTION
    with parent.disk_errors():
        file.parent.mkdir(parents=True, exist_ok=True)
        selection.table.to_csv(file, index=False)
    parent.log_artifacts()
    tags = {keys.WHY_SELECTED: selection.explanation}
    if optimism is not None:
        tags[keys.OPTIMISM] = str(optimism)
        values = {"raw_best": optimism.raw_best, "corrected": optimism.corrected}
        parent.log_metrics({f"search/{k}": v for k, v in values.items() if v is not None})
    parent.set_tags(tags)
    context.delivery.deliver(parent)
