"""What the gate answered without moving the alias: kept with the run, not in the registry.

A refusal leaves the registry as it is (:mod:`.history` holds the moves only). So that it is not
forgotten either, it is written to the run that the version came from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mlflow.exceptions import MlflowException

from breakhis_search.tracking import keys

Action = Literal["refused", "confirmed", "not confirmed"]


@dataclass(frozen=True)
class GateAnswer:
    """One answer of the gate that moved nothing.

    Attributes:
        version: The version that was asked about.
        against: The champion at that time; ``None`` if there was none, or it is the version itself.
        action: ``refused``; of the champion itself, ``confirmed`` or ``not confirmed``.
        when: UTC, ISO 8601.
        why: The gate's reasons, in words.
        vetoed: Whether the sealed test spoke against it.
    """

    version: str
    against: str | None
    action: Action
    when: str
    why: str
    vetoed: bool = False


def record_answer(
    client: Any,
    version: Any,
    *,
    against: str | None,
    action: Action,
    reasons: Sequence[str],
    vetoed: bool = False,
) -> GateAnswer:
    """Write an answer to the run of a version and return it.

    Args:
        client: An MLflow client.
        version: The model version that was asked about.
        against: The champion it was held against.
        action: What was answered.
        reasons: All reasons, in words.
        vetoed: Whether the sealed test spoke against it.
    """
    now = datetime.now(UTC)
    when = now.isoformat(timespec="seconds")
    answer = GateAnswer(str(version.version), against, action, when, "; ".join(reasons), vetoed)
    key = keys.GATE_ANSWER + keys.unique_key(now)
    client.set_tag(version.run_id, key, json.dumps(asdict(answer)))
    return answer


def answers_of(client: Any, version: Any) -> list[GateAnswer]:
    """Return every recorded answer about a version that moved nothing, oldest first.

    None of a version whose run is not in this store: it was registered by something else.
    """
    try:
        texts = _tags(client, version.run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    answers = [GateAnswer(**json.loads(text)) for text in texts]
    return [answer for answer in answers if answer.version == str(version.version)]


def is_refused(client: Any, version: Any) -> bool:
    """Tell whether the last recorded answer about a version is that the gate refuses it."""
    answers = answers_of(client, version)
    return bool(answers) and answers[-1].action == "refused"


def all_answers(client: Any, name: str) -> list[GateAnswer]:
    """Return every recorded answer about any version of a registered model, oldest first."""
    versions = client.search_model_versions(f"name = '{name}'")
    answers = [answer for version in versions for answer in answers_of(client, version)]
    return sorted(answers, key=lambda answer: answer.when)


def _tags(client: Any, run_id: str) -> list[str]:
    tags = client.get_run(run_id).data.tags
    return [text for key, text in sorted(tags.items()) if key.startswith(keys.GATE_ANSWER)]
