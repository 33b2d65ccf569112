"""The parts of a model card that judge: the gate, the sealed test, the limitations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from breakhis_search.data.taxonomy import MAGNIFICATIONS, TYPE_BY_NAME
from breakhis_search.evaluation.page_tables import HEADLINE_LABELS
from breakhis_search.evaluation.resampled_metrics import MIN_PATIENTS
from breakhis_search.reporting.facts import Facts
from breakhis_search.reporting.markdown import (
    NOTHING,
    bullets,
    code,
    escape,
    paragraphs,
    table,
)
from breakhis_search.reporting.measured import Measured
from breakhis_search.reporting.score_sections import (
    calibration_section,
    cell_section,
    class_section,
    confusion_section,
    magnification_section,
    score_section,
    threshold_section,
)
from breakhis_search.reporting.study_sections import scored_magnifications
from breakhis_search.tracking import keys

FEW_PATIENTS = 30
"""Below so many of a class its figures are called rough: 27 of 30 is 0.74 to 0.97 (Wilson)."""


def mistakes_section(facts: Facts) -> str:
    """Return which type is taken for what, and whom no trial of the search got right."""
    hard = facts.study_tags.get(keys.HARD_PATIENTS)
    return paragraphs(
        "Every image goes to its most probable class, mean of the seeds:",
        confusion_section(facts.out_of_fold),
        f"Patients that all trials of the search get wrong: {escape(hard)}" if hard else "",
    )


def gate_section(facts: Facts) -> str:
    """Return what is asked of a champion, and what was decided about this version."""
    rules = facts.rules
    objective = HEADLINE_LABELS[rules.objective]
    sealed_floors = _floors(rules.sealed_floors)
    asked = [
        f"out-of-fold floors: {_floors(rules.floors)}",
        (
            f"against a champion: better in {objective} of images, patient-swap test at p ≤"
            f" {rules.alpha:g}"
        ),
        (
            f"on the sealed test, which can only veto: {sealed_floors}; {objective} of images not"
            f" more than {rules.non_inferiority_margin:g} below the champion's"
        ),
    ]
    decided = _decisions(facts)
    return paragraphs(
        "Asked of a champion:",
        bullets(asked),
        f"Decided:\n\n{decided}"
        if decided
        else "Not decided yet: `promote` asks the gate about this version.",
    )


def _decisions(facts: Facts) -> str:
    number = facts.version.version
    rows: list[tuple[str, str, str, str, str]] = [
        (
            change.when,
            change.action if change.version == number else f"replaced by version {change.version}",
            (change.previous if change.version == number else change.version) or NOTHING,
            change.why,
            _figures(change.scores) if change.version == number else NOTHING,
        )
        for change in facts.history
        if number in (change.version, change.previous)
    ]
    rows += [
        (answer.when, answer.action, answer.against or NOTHING, answer.why, NOTHING)
        for answer in facts.answers
    ]
    if not rows:
        return ""
    cells = [
        [_day(when), escape(action), escape(against), escape(why), figures]
        for when, action, against, why, figures in sorted(rows, key=lambda row: row[0])
    ]
    return table(["when (UTC)", "decision", "other version", "reasons", "figures"], cells)


def _figures(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{code(name)} {value:.3f}" for name, value in scores.items()) or NOTHING


def _floors(floors: Mapping[str, float]) -> str:
    listed = ", ".join(f"{code(name)} ≥ {value:g}" for name, value in sorted(floors.items()))
    return listed or "no floors"


def _day(when: str) -> str:
    return f"{datetime.fromisoformat(when):%Y-%m-%d %H:%M}"


def sealed_section(facts: Facts) -> str:
    """Return how often the sealed test was opened for this version, and what it said."""
    if not facts.tags.get(keys.SEALED_DIGEST):
        return f"There is none ({escape(facts.tags.get(keys.SEALED_TEST, 'unknown'))})."
    count = len(facts.openings)
    if not count:
        return (
            "Never opened for this version: every score above is out-of-fold, of patients whose"
            " scores the search has seen."
        )
    times = "once" if count == 1 else f"{count} TIMES; only the first opening was blind"
    opened = f"Opened {times}: {', '.join(_day(opening.when) for opening in facts.openings)} UTC."
    if facts.also_opened_for:
        opened += (
            f" The same patients also answered for {', '.join(facts.also_opened_for)} of this"
            " model's versions: the more of them, the less their answer says of others."
        )
    if facts.sealed is None:
        return paragraphs(
            opened, "Its predictions are not there: scoring was cut off, or they were lost since."
        )
    sealed = facts.sealed
    return paragraphs(
        opened + " These are scores of the registered file itself; its calibration and thresholds"
        " were locked out-of-fold before. Where no threshold is named, the decision is the class of"
        " the highest probability before calibration, as in the out-of-fold tables; `predict`"
        " decides at the locked threshold.",
        score_section(sealed),
        "### Sealed test: by class",
        class_section(sealed),
        "### Sealed test: by tumour type and magnification",
        cell_section(sealed, f"`{keys.ARTIFACT_SEALED}/…/cells.csv` of this version's run"),
        magnification_section(sealed),
        "### Sealed test: calibration",
        calibration_section(sealed),
        "### Sealed test: locked thresholds" if sealed.points else "",
        threshold_section(sealed.points) if sealed.points else "",
        "### Sealed test: mistakes",
        confusion_section(sealed),
    )


def limitations_section(facts: Facts) -> str:
    """Return what a reader must not conclude."""
    return bullets([escape(line) for line in _limits(facts)])


def _limits(facts: Facts) -> Iterator[str]:
    if facts.version.demo:
        yield "the images are synthetic: scores say nothing about tissue"
    else:
        yield (
            "one laboratory, one stain, one microscope: nothing is known of other places; age, sex"
            " and origin of the patients are unknown, so fairness between groups cannot be examined"
        )
    yield from _few_patients(facts.out_of_fold, "out-of-fold")
    if facts.sealed is not None:
        yield from _few_patients(facts.sealed, "sealed test")
    yield from _absent_types(facts)
    yield from _of_the_study(facts)
    if facts.version.below_floors:
        yield f"below its floors: {', '.join(facts.version.below_floors)}"
    if facts.version.forced:
        yield "was made champion against the gate, on purpose (--force)"
    if facts.version.fails_sealed:
        yield "it did not hold what is asked of a champion on the sealed test (see Gate)"
    alarm = facts.study_tags.get(keys.LEAK_ALARM)
    if alarm:
        yield f"LEAK ALARM: {alarm}"


def _few_patients(measured: Measured, where: str) -> Iterator[str]:
    few = {n: p for n, p in measured.patients_by_class.items() if p < FEW_PATIENTS}
    if not few:
        return
    counts = ", ".join(f"{p} {n.replace('_', ' ')}" for n, p in few.items())
    scarce = any(p < MIN_PATIENTS for p in few.values())
    why = f"; with fewer than {MIN_PATIENTS} there is no interval at all" if scarce else ""
    yield f"few patients, {where}: {counts}; their figures are rough{why}"


def _absent_types(facts: Facts) -> Iterator[str]:
    """Types nobody stands for, by name: in the sealed test, and at all; magnifications as well."""
    scored = facts.out_of_fold.types
    said = [note for note in facts.split_notes if "no sealed patient" in note]
    if facts.sealed is not None:
        absent = [name for name in scored if name not in facts.sealed.types]
        if absent:
            said = [f"no sealed patient has: {', '.join(absent)}"]
    yield from (note.replace("_", " ") for note in said)
    missing = [name for name in TYPE_BY_NAME if name not in scored]
    if missing:
        yield f"out-of-fold no image is of: {', '.join(missing).replace('_', ' ')}"
    found = scored_magnifications(facts.out_of_fold)
    unseen = [f"{number}X" for number in MAGNIFICATIONS if number not in found]
    if unseen:
        yield f"out-of-fold no image was taken at: {', '.join(unseen)}"


def _of_the_study(facts: Facts) -> Iterator[str]:
    seeds = facts.out_of_fold.seeds
    if seeds > 1:
        yield (
            f"scores are means over {seeds} seeds; the registered file is one more fit, which may"
            " score better or worse"
        )
    else:
        yield "one seed: another one would score differently, which no interval here knows of"
    yield "it was selected by the out-of-fold scores shown here, which are therefore optimistic"
