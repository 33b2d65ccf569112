"""What was decided about a registered version, when and why: one dated line after the other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from breakhis_search.evaluation.page_tables import HEADLINE_LABELS
from breakhis_search.reporting.facts import Facts
from breakhis_search.reporting.markdown import escape, table
from breakhis_search.reporting.model_card import DEMO_BANNER
from breakhis_search.tracking import keys

Entry = tuple[datetime, str, str]


def decision_log(facts: Facts) -> str:
    """Return the log, oldest first, in Markdown."""
    version = facts.version
    rows = [
        [when.strftime("%Y-%m-%d %H:%M:%S"), escape(what), escape(why)]
        for when, what, why in sorted(_entries(facts), key=lambda e: e[0].replace(microsecond=0))
    ]
    parts = [
        f"# Decision log: {escape(version.name)} version {version.version}",
        DEMO_BANNER if version.demo else "",
        (
            "Times are UTC. Moves of the alias that concern other versions are listed too, since"
            " each was made against what was champion then; refusals only of this version. Dry"
            " runs of `promote` leave no trace."
        ),
        table(["when", "what", "why"], rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _entries(facts: Facts) -> Iterator[Entry]:
    study = facts.tags[keys.STUDY]
    if facts.begun is not None:
        objective = HEADLINE_LABELS[facts.rules.objective]
        why = f"objective: {objective} of images, pooled out-of-fold"
        yield facts.begun, f"study {study} begun", why
    if facts.search.ended is not None:
        yield facts.search.ended, "search ended", f"{len(facts.trials)} trials: {_counts(facts)}"
    finalists = facts.board[facts.board["stage"] == keys.STAGE_FINALISTS]
    if not finalists.empty:
        trials = ", ".join(str(t) for t in sorted(finalists["trial"]))
        seeds = facts.config.get("finalists", {}).get("seeds", "several")
        plural = "" if seeds == 1 else "s"
        why = f"trials {trials}: the best of the search; {seeds} seed{plural}, all folds"
        yield _at(finalists["started_ms"].min()), "finalists begun", why
    trial = facts.tags.get(keys.SELECTED_TRIAL, "?")
    why = facts.tags.get(keys.WHY_SELECTED, "not recorded")
    yield (
        facts.registered,
        f"trial {trial} selected, registered as version {facts.version.version}",
        why,
    )
    for opening in facts.openings:
        again = opening.opened_before
        what = "sealed test opened" + (f" AGAIN (number {again + 1})" if again else "")
        against = opening.against
        why = f"against champion version {against}" if against else "without a rival"
        if not opening.is_complete:
            why += "; cut off before its predictions were kept"
        yield datetime.fromisoformat(opening.when), what, why
    for change in facts.history:
        before = f" instead of {change.previous}" if change.previous else ""
        what = f"version {change.version} champion{before} ({change.action})"
        yield datetime.fromisoformat(change.when), what, change.why
    for answer in facts.answers:
        rival = f" (against champion version {answer.against})" if answer.against else ""
        what = f"version {answer.version} {answer.action} by the gate{rival}; nothing was moved"
        yield datetime.fromisoformat(answer.when), what, answer.why


def _counts(facts: Facts) -> str:
    states = facts.trials["state"].value_counts().to_dict()
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _at(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
