"""MLflow's model registry: versions, the ``champion`` and ``challenger`` aliases, promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from breakhis_search.errors import RegistryError
from breakhis_search.tracking import keys

CHAMPION = "champion"
CHALLENGER = "challenger"


@dataclass(frozen=True)
class Registered:
    """A registered version.

    Attributes:
        name: Registered model.
        version: Its version number.
        alias: The alias it was given.
        why: Why that one, in words.
    """

    name: str
    version: str
    alias: str
    why: str


def version_of_alias(client: Any, name: str, alias: str) -> Any | None:
    """Return the model version an alias points at, or ``None``."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def ensure_registered_model(client: Any, name: str, description: str) -> None:
    """Create the registered model if there is none of that name."""
    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def register(
    client: Any,
    *,
    name: str,
    model_id: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
    broken: Sequence[str],
) -> Registered:
    """Register a logged model; ``champion`` if there is none and no floor is broken.

    Args:
        client: An MLflow client.
        name: Registered model.
        model_id: The logged model to register.
        run_id: The refit's run.
        tags: Where the version came from.
        description: The same for people.
        broken: Floors that are not reached, in words.
    """
    if tags.get(keys.LEAKY) == "true":
        raise RegistryError(
            "a model of a leaky protocol is never registered",
            expected="a patient-disjoint protocol",
            remedy="run the study with protocol.kind: folds",
        )
    ensure_registered_model(client, name, "Breast-histology classifier. Not a medical device.")
    version = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags=dict(tags),
        description=description,
        model_id=model_id,
    )
    alias, why = _choose_alias(client, name, broken)
    client.set_registered_model_alias(name, alias, version.version)
    return Registered(name, str(version.version), alias, why)


def _choose_alias(client: Any, name: str, broken: Sequence[str]) -> tuple[str, str]:
    champion = version_of_alias(client, name, CHAMPION)
    if champion is not None:
        return CHALLENGER, f"version {champion.version} is champion; `promote` decides"
    if broken:
        return CHALLENGER, f"below the configured floors: {'; '.join(broken)}"
    return CHAMPION, "there was no champion and the configured floors hold"


def promote(client: Any, *, name: str, version: str | None, force: bool = False) -> Registered:
    """Point ``champion`` at a version (by default at the challenger).

    Raises:
        RegistryError: There is no such version, it is champion already, or it is below the floors
            its study configured (unless ``force``).
    """
    target = _find_target(client, name, version)
    champion = version_of_alias(client, name, CHAMPION)
    if champion is not None and champion.version == target.version:
        raise RegistryError(
            f"version {target.version} of {name} is champion already",
            remedy="nothing to do; `status` shows all versions",
        )
    broken = target.tags.get(keys.BROKEN_FLOORS)
    if broken and not force:
        raise RegistryError(
            f"version {target.version} of {name} is below the configured floors",
            received=broken,
            remedy="train a better model, or insist with --force",
        )
    client.set_registered_model_alias(name, CHAMPION, target.version)
    challenger = version_of_alias(client, name, CHALLENGER)
    if challenger is not None and challenger.version == target.version:
        client.delete_registered_model_alias(name, CHALLENGER)
    before = f"it replaces version {champion.version}" if champion else "there was none before"
    return Registered(name, str(target.version), CHAMPION, before)


def _find_target(client: Any, name: str, version: str | None) -> Any:
    if version is None:
        target = version_of_alias(client, name, CHALLENGER)
        if target is None:
            raise RegistryError(
                f"{name} has no challenger",
                expected="a challenger, or --version N",
                remedy="run the study first, or name a version",
            )
        return target
    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        raise RegistryError(
            f"{name} has no version {version}", remedy="`status` lists the versions"
        ) from error
