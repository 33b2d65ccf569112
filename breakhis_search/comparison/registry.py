"""MLflow's model registry: how a refitted model becomes a version with an alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException

from breakhis_search.comparison.gate import Decision
from breakhis_search.comparison.history import (
    CHALLENGER,
    CHAMPION,
    champion_of,
    change_champion,
    version_of_alias,
)
from breakhis_search.comparison.registered import Registered
from breakhis_search.errors import RegistryError
from breakhis_search.tracking import keys


def register(
    client: Any,
    *,
    name: str,
    model_id: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
    floors: Decision,
    opens_sealed: bool,
    scores: Mapping[str, float],
) -> Registered:
    """Register a logged model; ``champion`` if there is none and nothing is left for the gate.

    Where floors are asked of the sealed test, only ``promote`` can answer: it opens it.

    Done again for the same refit (it was cut off half-way), it finishes what is missing.

    Args:
        client: An MLflow client.
        name: Registered model.
        model_id: The logged model to register.
        run_id: The refit's run.
        tags: Where the version came from; they hold the refit's uid.
        description: The same for people.
        floors: Whether the out-of-fold floors are reached.
        opens_sealed: Whether the gate asks something of the sealed test even without a champion.
        scores: What was measured, for the history.
    """
    if tags.get(keys.LEAKY) == "true":
        raise RegistryError(
            "a model of a leaky protocol is never registered",
            expected="a patient-disjoint protocol",
            remedy="run the study with protocol.kind: folds",
        )
    _ensure_registered_model(client, name)
    version = _version_of_refit(client, name, tags[keys.TRIAL_UID])
    if version is None:
        created = client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=dict(tags),
            description=description,
            model_id=model_id,
        )
        version = str(created.version)
    if opens_sealed and floors.passed:
        floors += Decision.of(False, "`promote` opens the sealed test and decides")
    alias, why = _give_alias(client, name, version, floors, scores)
    return Registered(name, version, alias, why)


def find_version(client: Any, name: str, version: str | None) -> Any:
    """Return a version by number, or the challenger.

    Raises:
        RegistryError: There is no such version.
    """
    if version is None:
        target = version_of_alias(client, name, CHALLENGER)
        if target is None:
            champion = version_of_alias(client, name, CHAMPION)
            raise RegistryError(
                f"{name} has no challenger",
                expected="a challenger, or --version N",
                remedy="run the study to its end, or name a version (`status` lists them, and what"
                " a study still has to do)"
                if champion is None
                else f"run another search for one; --version {champion.version} asks about the"
                " champion itself and opens the sealed test for it",
            )
        return target
    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        raise RegistryError(
            f"{name} has no version {version}", remedy="`status` lists the versions"
        ) from error


def drop_challenger(client: Any, name: str, version: str) -> None:
    """Take the alias ``challenger`` from a version, if it has it."""
    challenger = version_of_alias(client, name, CHALLENGER)
    if challenger is not None and str(challenger.version) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _ensure_registered_model(client: Any, name: str) -> None:
    try:
        client.create_registered_model(
            name, description="Breast-histology classifier. Not a medical device."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of_refit(client: Any, name: str, uid: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{keys.TRIAL_UID}` = '{uid}'")
    return str(found[0].version) if found else None


def _give_alias(
    client: Any, name: str, version: str, floors: Decision, scores: Mapping[str, float]
) -> tuple[str, str]:
    champion = champion_of(client, name)
    if champion is not None and str(champion.version) == version:
        return CHAMPION, "it was made champion before"
    if champion is None and floors.passed:
        why = f"there was no champion; {'; '.join(floors.reasons)}"
        try:
            change_champion(
                client, name, version, instead_of=None, action="registered", why=why, scores=scores
            )
        except RegistryError:  # another run has just registered one
            champion = champion_of(client, name)
            if champion is None:
                raise
        else:
            return CHAMPION, why
    client.set_registered_model_alias(name, CHALLENGER, version)
    if champion is None:
        return CHALLENGER, "; ".join(floors.reasons)
    why = f"version {champion.version} is champion; `promote` decides"
    return CHALLENGER, why
