"""``compare --pair``: any two models on the same images, by trial number or by run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from breakhis_search.comparison.contest import Pair, compare_pair
from breakhis_search.comparison.named_models import NamedModel, find_model
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import Objective
from breakhis_search.tracking import keys


@dataclass(frozen=True)
class ComparedPair:
    """Two models compared, and what must be known to read it.

    Attributes:
        pair: The comparison.
        warnings: What makes it worth less than it looks, in words.
        is_demo: Whether it is about synthetic images.
    """

    pair: Pair
    warnings: list[str]
    is_demo: bool


def compare_two(client: Any, studies: Sequence[str], models: tuple[str, str]) -> ComparedPair:
    """Return how two models of one study, or of two, compare on their out-of-fold predictions.

    Args:
        client: An MLflow client.
        studies: One study, or the study of each.
        models: Of each, the trial number or the id of a run. Two numbers mean the finalists where
            both trials were finalists, else both trials of the search.

    Raises:
        ComparisonError: There are more than two studies, no such model, or the two do not compare.
    """
    if len(studies) > 2:
        raise ComparisonError(
            "--pair compares two models", expected="one or two --study", received=f"{len(studies)}"
        )
    first, second, notes = _like_with_like(client, (studies[0], studies[-1]), models)
    pair = compare_pair(
        client, (first.name, first.run_id), (second.name, second.run_id), _objective(first, second)
    )
    both = (first, second)
    is_demo = any(model.tags.get(keys.DEMO) == "true" for model in both)
    return ComparedPair(pair, [*notes, *_warnings(*both)], is_demo)


def _like_with_like(
    client: Any, studies: tuple[str, str], models: tuple[str, str]
) -> tuple[NamedModel, NamedModel, list[str]]:
    """Both models, and why a trial stands for its finalist, where one does.

    A finalist beside a trial of the search would be compared on other seeds and epochs. A run that
    is named by its id is taken as it is.
    """
    found = [find_model(client, *named) for named in zip(studies, models, strict=True)]
    trials = [m for m in found if m.tags.get(keys.ROLE) == keys.ROLE_TRIAL]
    notes = []
    for i, (study, model) in enumerate(zip(studies, models, strict=True)):
        if trials and model.isdecimal() and found[i].tags.get(keys.ROLE) == keys.ROLE_FINALIST:
            found[i] = find_model(client, study, model, kinds=("trial",))
            notes.append(
                f"{trials[0].name} is a trial of the search, so {found[i].name} is compared, not"
                " its finalist: one seed each, stopped at the epoch that suited the patients it is"
                " scored on"
            )
    return found[0], found[1], notes


def _objective(first: NamedModel, second: NamedModel) -> Objective:
    """What both were selected by."""
    mine, its = (model.tags[keys.OBJECTIVE] for model in (first, second))
    if mine != its:
        raise ComparisonError(
            "models of two objectives do not compare",
            received=f"{first.name}: {mine}, {second.name}: {its}",
            remedy="name two models of the same objective",
        )
    objective: Objective = mine  # type: ignore[assignment]  # written by this program
    return objective


def _warnings(first: NamedModel, second: NamedModel) -> Iterator[str]:
    for model in (first, second):
        if model.tags.get(keys.LEAKY) == "true":
            yield f"LEAKY: {model.name} saw patients it is scored on; do not believe its score"
    roles = [model.tags.get(keys.ROLE) for model in (first, second)]
    if set(roles) == {keys.ROLE_FINALIST, keys.ROLE_TRIAL}:
        trial = (first, second)[roles.index(keys.ROLE_TRIAL)]
        yield (
            f"{trial.name} is a trial of the search: one seed, stopped at the epoch that suited the"
            " patients it is scored on, so it looks better than it would as a finalist"
        )
