"""Who may be champion: the rules and what they say, computed from predictions and metrics alone.

Two questions, in this order:

1. *Out-of-fold*: are the configured floors reached, and is the challenger better than the champion
   by the patient-swap permutation test? With no champion only the floors are asked; with one, the
   stricter of the rules of both.
2. *On the sealed test*, which is opened only when the first answer is yes: are its floors reached,
   and is the challenger not worse than the champion by more than a margin? It may veto, never
   promote: it holds about three benign patients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from breakhis_search.comparison.difference import difference_interval
from breakhis_search.comparison.permutation import TOLERANCE, patient_swap_test
from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES, Objective


@dataclass(frozen=True)
class GateRules:
    """What a study demands of its champion; kept with every registered version.

    Attributes:
        objective: ``auroc`` or ``balanced_accuracy``.
        alpha: Of the permutation test.
        non_inferiority_margin: Of the objective on the sealed test.
        floors: Metric → least value out-of-fold.
        sealed_floors: Metric → least value on the sealed test.
    """

    objective: Objective
    alpha: float
    non_inferiority_margin: float
    floors: Mapping[str, float]
    sealed_floors: Mapping[str, float]

    def stricter(self, other: GateRules) -> GateRules:
        """Return what both sets of rules ask for together; they must share an objective.

        >>> mine = GateRules("auroc", 0.05, 0.05, {"image/auroc": 0.7}, {})
        >>> its = GateRules("auroc", 0.01, 0.10, {"image/auroc": 0.6, "image/mcc": 0.1}, {})
        >>> both = mine.stricter(its)
        >>> both.alpha, both.non_inferiority_margin, dict(both.floors)
        (0.01, 0.05, {'image/auroc': 0.7, 'image/mcc': 0.1})
        """
        return GateRules(
            self.objective,
            min(self.alpha, other.alpha),
            min(self.non_inferiority_margin, other.non_inferiority_margin),
            _higher(self.floors, other.floors),
            _higher(self.sealed_floors, other.sealed_floors),
        )

    def to_json(self) -> str:
        """Return the rules as JSON, for a tag."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GateRules:
        """Return the rules that :meth:`to_json` wrote."""
        return cls(**json.loads(text))


def _higher(mine: Mapping[str, float], its: Mapping[str, float]) -> dict[str, float]:
    names = [*mine, *(name for name in its if name not in mine)]
    lowest = float("-inf")
    return {name: max(mine.get(name, lowest), its.get(name, lowest)) for name in names}


def stricter_in_words(mine: GateRules, both: GateRules) -> str:
    """Return what ``both`` asks for beyond ``mine``; empty where that is nothing.

    >>> mine = GateRules("auroc", 0.05, 0.05, {"image/auroc": 0.7}, {})
    >>> its = GateRules("auroc", 0.01, 0.05, {"image/auroc": 0.8}, {"image/mcc": 0.1})
    >>> stricter_in_words(mine, mine.stricter(its))
    'p ≤ 0.01, out-of-fold image/auroc ≥ 0.8, on the sealed test image/mcc ≥ 0.1'
    """
    found = []
    if both.alpha != mine.alpha:
        found.append(f"p ≤ {both.alpha:g}")
    if both.non_inferiority_margin != mine.non_inferiority_margin:
        found.append(f"a margin of {both.non_inferiority_margin:g} on the sealed test")
    for where, all_of, own in (
        ("out-of-fold", both.floors, mine.floors),
        ("on the sealed test", both.sealed_floors, mine.sealed_floors),
    ):
        found += [f"{where} {n} ≥ {v:g}" for n, v in all_of.items() if own.get(n) != v]
    return ", ".join(found)


@dataclass(frozen=True)
class Decision:
    """What a question was answered with.

    Attributes:
        passed: Whether the way is free.
        reasons: Everything that was found, in words.
        refusals: Those of the reasons that stand in the way; empty if it passed.
    """

    passed: bool
    reasons: tuple[str, ...]
    refusals: tuple[str, ...] = ()

    @property
    def refusals_in_short(self) -> str:
        """What stands in the way, without the figures behind it.

        >>> Decision.of(False, "not shown to be better: AUROC +0.01, p = 0.4").refusals_in_short
        'not shown to be better'
        """
        return "; ".join(reason.partition(": ")[0] for reason in self.refusals)

    @classmethod
    def of(cls, passed: bool, reason: str) -> Decision:
        """Return the answer to one question."""
        return cls(passed, (reason,), () if passed else (reason,))

    def __add__(self, other: Decision) -> Decision:
        """Both questions together."""
        return Decision(
            self.passed and other.passed,
            (*self.reasons, *other.reasons),
            (*self.refusals, *other.refusals),
        )


def broken_floors(metrics: Mapping[str, float], floors: Mapping[str, float]) -> list[str]:
    """Return in words every floor that is not reached; a metric that is missing reaches none.

    >>> broken_floors({"patient/auroc": 0.7}, {"patient/auroc": 0.8, "image/mcc": 0.1})
    ['patient/auroc 0.700 < 0.800', 'image/mcc is not defined on this data (floor 0.100)']
    """
    broken = []
    for name, floor in floors.items():
        value = metrics.get(name)
        if value is None:
            broken.append(f"{name} is not defined on this data (floor {floor:.3f})")
        elif not value >= floor - TOLERANCE:  # nor does NaN reach a floor
            broken.append(f"{name} {value:.3f} < {floor:.3f}")
    return broken


def judge_floors(
    metrics: Mapping[str, float], floors: Mapping[str, float], *, where: str
) -> Decision:
    """Answer whether all floors are reached.

    >>> judge_floors({"image/auroc": 0.9}, {"image/auroc": 0.8}, where="out-of-fold").reasons
    ('out-of-fold, the 1 configured floor is reached',)
    """
    broken = broken_floors(metrics, floors)
    if broken:
        return Decision.of(False, f"{where}, below the configured floors: {'; '.join(broken)}")
    if not floors:
        return Decision.of(True, f"{where}, no floor is configured")
    count = len(floors)
    reached = "floors are" if count > 1 else "floor is"
    return Decision.of(True, f"{where}, the {count} configured {reached} reached")


def judge_superiority(
    challenger: pd.DataFrame, champion: pd.DataFrame, rules: GateRules
) -> Decision:
    """Answer whether the challenger's out-of-fold predictions are better than the champion's.

    Args:
        challenger: Its predictions table.
        champion: That of the champion, on the same images.
        rules: Objective and level of the test.

    Raises:
        ComparisonError: The tables are not about the same images.
    """
    test = patient_swap_test(challenger, champion, rules.objective)
    interval = difference_interval(challenger, champion, rules.objective)
    passed = test.p_greater <= rules.alpha
    found = (
        f"out-of-fold {OBJECTIVE_TITLES[rules.objective]} {test.difference:+.4f} against the"
        f" champion, {interval.in_words()}, p = {test.p_greater:.3g} (patient-swap permutation"
        f" test, {test.n_patients} patients)"
    )
    says = "better than the champion" if passed else "not shown to be better than the champion"
    return Decision.of(passed, f"{says}: {found}; p ≤ {rules.alpha:g} is asked for")


def judge_sealed(
    challenger: Mapping[str, float], champion: Mapping[str, float] | None, rules: GateRules
) -> Decision:
    """Answer whether the sealed test vetoes.

    Args:
        challenger: Its metrics on the sealed test.
        champion: Those of the champion on the same images; ``None`` when there is none.
        rules: Floors and margin.
    """
    decision = judge_floors(challenger, rules.sealed_floors, where="on the sealed test")
    name = f"image/{rules.objective}"
    if champion is None:
        value = challenger.get(name)
        found = "is not defined" if value is None else f"is {value:.4f}"
        return decision + Decision.of(True, f"on the sealed test {name} {found}")
    if name not in challenger or name not in champion:
        reason = f"on the sealed test, {name} is not defined: it cannot speak for the challenger"
        return decision + Decision.of(False, reason)
    difference = challenger[name] - champion[name]
    passed = difference >= -rules.non_inferiority_margin - TOLERANCE
    says = "not worse than the champion" if passed else "worse than the champion"
    reason = (
        f"on the sealed test {says}: {name} {challenger[name]:.4f} against {champion[name]:.4f}"
        f" ({difference:+.4f}, margin −{rules.non_inferiority_margin:g})"
    )
    return decision + Decision.of(passed, reason)
