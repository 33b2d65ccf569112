"""``promote`` and ``rollback``: the gate, asked in order, with nothing moved on a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breakhis_search.comparison.answers import Action, record_answer
from breakhis_search.comparison.gate import Decision
from breakhis_search.comparison.history import (
    CHALLENGER,
    ChampionChange,
    champion_of,
    change_champion,
    previous_champion,
    read_history,
    version_of_alias,
)
from breakhis_search.comparison.registry import drop_challenger, find_version
from breakhis_search.errors import RegistryError
from breakhis_search.reporting.attach import attach_after_change, attach_paper_trail
from breakhis_search.settings import Settings
from breakhis_search.study_file import find_study_file, load_study
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import read_store, tracking_errors
from breakhis_search.workflow.questions import SealedQuestion, ask_out_of_fold, rules_for

Say = Callable[[str], None]


@dataclass(frozen=True)
class PromotionRequest:
    """The options of ``promote``, as typed."""

    study: str
    version: str | None = None
    data: Path | None = None
    demo: bool = False
    dry_run: bool = False
    force: bool = False
    again: bool = False


@dataclass(frozen=True)
class PromotionOutcome:
    """What a promotion came to.

    Attributes:
        name: Registered model.
        version: The version that was asked about.
        decision: What the gate found.
        change: The move of the alias; ``None`` for a dry run and a confirmed champion.
    """

    name: str
    version: str
    decision: Decision
    change: ChampionChange | None


def promote(request: PromotionRequest, settings: Settings, say: Say) -> PromotionOutcome:
    """Ask the gate and, if it lets the version through, make it champion.

    Asked about the champion itself, it opens the sealed test for it and checks the floors.

    Raises:
        RegistryError: The gate refuses, with every reason; the registry is as before, but for the
            record of the sealed test's opening if it came to that.
    """
    config = load_study(find_study_file(request.study, settings.home / "experiments"))
    name = keys.registered_name(config.task, demo=request.demo)
    client = read_store(settings)
    with tracking_errors(settings.tracking_uri):
        champion = champion_of(client, name)
        target = _target(client, name, request, champion)
        rival = None if champion is None or champion.version == target.version else champion
        is_confirmation = champion is not None and rival is None
        history = read_history(client, name)
        rules, decision = rules_for(history, target, rival)
        found, scores = ask_out_of_fold(client, target, rival if decision.passed else None, rules)
        decision += found
        by_sealed = None
        if decision.passed:
            root = config.data.root
            asked = SealedQuestion(client, target, rival, rules, root, request, settings, say)
            by_sealed = asked.answer(scores)
            decision += by_sealed
        version = str(target.version)
        for reason in decision.reasons:
            say(f"  {reason}")
        if request.dry_run:
            return PromotionOutcome(name, version, decision, None)
        if is_confirmation or not decision.passed:
            vetoed = by_sealed is not None and not by_sealed.passed
            kind = _kind_of_answer(decision, is_confirmation=is_confirmation)
            _keep_answer(client, target, rival, decision, kind, vetoed=vetoed, say=say)
        if not decision.passed and not request.force:
            raise _refusal(name, version, decision, is_confirmation=is_confirmation)
        if is_confirmation:
            return PromotionOutcome(name, version, decision, None)
        change = change_champion(
            client,
            name,
            version,
            instead_of=None if champion is None else str(champion.version),
            action="promoted" if decision.passed else "forced",
            why="; ".join(decision.reasons),
            scores=scores,
            rules=rules.to_json() if decision.passed else "",
        )
        drop_challenger(client, name, version)
        attach_after_change(client, name, change, say)
    return PromotionOutcome(name, version, decision, change)


def rollback(study: str, settings: Settings, say: Say, *, demo: bool) -> tuple[str, ChampionChange]:
    """Make the previous champion champion again; return the registered model and the move.

    Raises:
        RegistryError: There is none to go back to.
    """
    config = load_study(find_study_file(study, settings.home / "experiments"))
    name = keys.registered_name(config.task, demo=demo)
    client = read_store(settings)
    with tracking_errors(settings.tracking_uri):
        # Read first: if it is another one by the time of the move, the move is refused.
        present = champion_of(client, name)
        version = previous_champion(client, name)
        change = change_champion(
            client,
            name,
            version,
            instead_of=None if present is None else str(present.version),
            action="rolled back",
            why="rolled back on purpose",
        )
        attach_after_change(client, name, change, say)
    return name, change


def _target(client: Any, name: str, request: PromotionRequest, champion: Any) -> Any:
    """The version that is asked about; a dry run without a challenger asks about the champion."""
    if request.dry_run and request.version is None and champion is not None:
        return version_of_alias(client, name, CHALLENGER) or champion
    return find_version(client, name, request.version)


def _kind_of_answer(decision: Decision, *, is_confirmation: bool) -> Action:
    if not is_confirmation:
        return "refused"
    return "confirmed" if decision.passed else "not confirmed"


def _keep_answer(
    client: Any,
    target: Any,
    rival: Any,
    decision: Decision,
    action: Action,
    *,
    vetoed: bool,
    say: Say,
) -> None:
    """Write down what the gate answered, with the runs of both: the registry stays as it is."""
    against = None if rival is None else str(rival.version)
    record_answer(
        client, target, against=against, action=action, reasons=decision.reasons, vetoed=vetoed
    )
    for asked_about in (target, rival):  # the rival's sealed test may have been opened too
        if asked_about is not None:
            attach_paper_trail(client, target.name, str(asked_about.version), say)


def _refusal(
    name: str, version: str, decision: Decision, *, is_confirmation: bool
) -> RegistryError:
    if is_confirmation:
        return RegistryError(
            f"version {version} of {name} is champion and does not hold what is asked of it",
            received=decision.refusals_in_short,
            remedy="promote a better version, or go back with `rollback` if there was an earlier"
            " champion; until then `predict` and `status` say so",
        )
    return RegistryError(
        f"version {version} of {name} is refused: {decision.refusals_in_short}",
        remedy="train a better model, or insist with --force (it is written down)",
    )
