"""What a registered version is: read from its tags, for everybody who shows one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from breakhis_search.comparison.answers import answers_of
from breakhis_search.comparison.gate import GateRules, broken_floors
from breakhis_search.comparison.history import read_history
from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES
from breakhis_search.evaluation.thresholds import RULE_TITLES, Thresholds
from breakhis_search.tracking import keys

SCORE = "score_out_of_fold"


@dataclass(frozen=True)
class VersionFacts:
    """One registered version.

    Attributes:
        name: Registered model.
        version: Its number.
        aliases: Its aliases, such as ``champion``.
        study: The study it came from.
        objective: What ``score`` is, such as ``auroc`` (of images).
        score: Pooled out-of-fold; ``None`` where it is not written down.
        magnification: ``all``, or the one it was trained at.
        below_floors: Every floor it does not hold out-of-fold, in words.
        forced: Whether it last became champion against the gate.
        fails_sealed: Whether the sealed test was opened for it and it did not hold what is asked
            of a champion.
        demo: Whether it learned from synthetic images.
        decides: By which threshold it decides about an image, in words; empty where the most
            probable class counts.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    study: str
    objective: str
    score: float | None
    magnification: str
    below_floors: tuple[str, ...]
    forced: bool
    fails_sealed: bool
    demo: bool
    decides: str = ""

    @property
    def magnification_x(self) -> int | None:
        """The one magnification it was trained at, or ``None`` for all."""
        return int(self.magnification) if self.magnification.isdigit() else None

    def in_words(self) -> str:
        """Return what somebody who reads its answers must know, in one line."""
        alias = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.name} version {self.version}{alias}: " + "; ".join(self._facts())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What speaks against it, in words."""
        below = f"BELOW ITS FLOORS ({', '.join(self.below_floors)})"
        sealed = "DOES NOT HOLD THE SEALED TEST (its model card has the scores)"
        found = (
            (bool(self.below_floors), below),
            (self.forced, "FORCED past the gate"),
            (self.fails_sealed, sealed),
        )
        return tuple(remark for applies, remark in found if applies)

    def _facts(self) -> Iterator[str]:
        trained = f"{self.magnification}X" if self.magnification_x else "all magnifications"
        yield f"trained at {trained} in {self.study or 'an unknown study'}"
        if self.score is not None:
            yield f"out-of-fold {_title(self.objective)} {self.score:.4f} of images"
        if self.decides:
            yield self.decides
        yield from self.remarks
        if self.demo:
            yield "SYNTHETIC DEMO"
        yield "not a medical device"


def _title(objective: str) -> str:
    """Return the objective as people read it; a version of another program may name any."""
    return OBJECTIVE_TITLES.get(objective, objective)


def read_facts(client: Any, version: Any, aliases: Mapping[str, str]) -> VersionFacts:
    """Return the facts of a version.

    Args:
        client: An MLflow client.
        version: MLflow's model version.
        aliases: All aliases of its registered model, alias → version.
    """
    tags, number = version.tags, str(version.version)
    return VersionFacts(
        name=version.name,
        version=number,
        aliases=tuple(sorted(a for a, v in aliases.items() if str(v) == number)),
        study=tags.get(keys.STUDY, ""),
        objective=tags.get(keys.OBJECTIVE, ""),
        score=_number(tags.get(SCORE)),
        magnification=tags.get(keys.MAGNIFICATION, "all"),
        below_floors=tuple(_below_floors(client, tags)),
        forced=_is_forced(client, version.name, number),
        fails_sealed=_fails_sealed(client, version),
        demo=tags.get(keys.DEMO) == "true",
        decides=_decides(tags.get(keys.THRESHOLDS)),
    )


def _decides(locked: str | None) -> str:
    if locked is None:
        return ""
    thresholds = Thresholds.from_dict(json.loads(locked))
    rule = RULE_TITLES[thresholds.decision]
    return f"an image is malignant from {thresholds.value('image'):.3f} on ({rule})"


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _below_floors(client: Any, tags: Mapping[str, str]) -> list[str]:
    """Every floor that the version's finalist did not hold; nothing where that is not known."""
    rules, run_id = tags.get(keys.GATE_RULES), tags.get(keys.EVIDENCE_RUN)
    if rules is None or run_id is None:
        return []
    try:
        metrics = client.get_run(run_id).data.metrics
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    return broken_floors(metrics, GateRules.from_json(rules).floors)


def _fails_sealed(client: Any, version: Any) -> bool:
    """Whether the sealed test spoke against it when it last spoke of it."""
    answers = answers_of(client, version)
    spoken = [a for a in answers if a.vetoed or a.action != "refused"]
    if not spoken or not (spoken[-1].vetoed or spoken[-1].action == "not confirmed"):
        return False
    moves = read_history(client, version.name)
    return not any(
        move.version == str(version.version)
        and move.action == "promoted"
        and move.when > spoken[-1].when
        for move in moves
    )


def _is_forced(client: Any, name: str, version: str) -> bool:
    moves = [change for change in read_history(client, name) if change.version == version]
    made = [change.action for change in moves if change.action != "rolled back"]
    return bool(made) and made[-1] == "forced"
