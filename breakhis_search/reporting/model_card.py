"""The model card of a registered version, in Markdown, from what was recorded of it.

Below each heading stand the items of TRIPOD+AI and CLAIM that it answers (:mod:`.guidelines`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from breakhis_search.evaluation.calibration import Calibration
from breakhis_search.evaluation.thresholds import RULE_TITLES
from breakhis_search.reporting.facts import Facts
from breakhis_search.reporting.guidelines import SECTIONS
from breakhis_search.reporting.markdown import bullets, escape, paragraphs, spoken
from breakhis_search.reporting.score_sections import (
    calibration_section,
    cell_section,
    class_section,
    magnification_section,
    score_in_words,
    score_section,
    threshold_section,
)
from breakhis_search.reporting.study_sections import (
    data_section,
    intended_use,
    model_section,
    protocol_section,
    reproduce_section,
    selection_section,
)
from breakhis_search.reporting.verdict_sections import (
    gate_section,
    limitations_section,
    mistakes_section,
    sealed_section,
)
from breakhis_search.tracking import keys

DEMO_BANNER = (
    "> **SYNTHETIC DEMO DATA.** These images were drawn by a program. Nothing here says anything"
    " about tissue."
)


def model_card(facts: Facts) -> str:
    """Return the card: what the model is, how it was chosen, what was measured, what it is not."""
    version = facts.version
    parts = [
        f"# Model card: {escape(version.name)} version {version.version}",
        DEMO_BANNER if version.demo else "",
        escape(version.in_words()) + ".",
        _as_of(facts),
    ]
    for heading, text in _sections(facts):
        parts += [f"## {heading}", f"*{SECTIONS[heading]}*", text]
    return paragraphs(*parts) + "\n"


def summary(facts: Facts) -> str:
    """Return the version in a few lines, for its description in the registry."""
    version = replace(facts.version, aliases=())  # they move on; the description would not
    out_of_fold, sealed = facts.out_of_fold, facts.sealed
    objective = facts.rules.objective
    names = (f"image/{objective}", f"patient/{objective}")
    openings = len(facts.openings)
    opened = f"opened {openings} time{'s' if openings > 1 else ''}" if openings else "never opened"
    lines = [
        *(f"out-of-fold {score_in_words(out_of_fold, name)}" for name in names),
        *(f"sealed test {score_in_words(sealed, name)}" for name in names if sealed),
        f"sealed test: {opened}" if facts.tags.get(keys.SEALED_DIGEST) else "no sealed test",
        *(escape(note) for note in facts.split_notes),
        f"why this one: {escape(facts.tags.get(keys.WHY_SELECTED, 'not recorded'))}",
        f"model card: {keys.ARTIFACT_CARD} of its run; `card` prints it",
    ]
    return paragraphs(
        DEMO_BANNER if version.demo else "",
        escape(version.in_words()) + ".",
        bullets(lines),
        "Not a medical device.",
    )


def _as_of(facts: Facts) -> str:
    """Up to which decision the card knows: a file does not change when a champion does.

    Not when it was made, so that the same records give the same card.
    """
    told = [change.when for change in facts.history]
    told += [answer.when for answer in facts.answers]
    told += [opening.when for opening in facts.openings]
    last = max([facts.registered, *map(datetime.fromisoformat, told)])
    return (
        f"It knows of decisions until {last:%Y-%m-%d %H:%M} UTC. A copy of it knows of no later"
        " move of the champion; the command under “How to reproduce” makes it again."
    )


def _sections(facts: Facts) -> Iterator[tuple[str, str]]:
    """Heading and text, in the order of :data:`.guidelines.SECTIONS`."""
    measured = facts.out_of_fold
    yield "Intended use", intended_use(facts)
    yield "Data", data_section(facts)
    yield "Who was trained on, who was scored", protocol_section(facts)
    yield "The model", model_section(facts)
    yield "Search and selection", selection_section(facts)
    yield "Scores out-of-fold", score_section(measured)
    yield "By class", class_section(measured)
    yield (
        "By tumour type and magnification",
        paragraphs(
            cell_section(measured, "`figures/cells.csv` of the finalist's run"),
            magnification_section(measured),
        ),
    )
    yield "Calibration", _calibration(facts)
    yield "Decision thresholds", _thresholds(facts)
    yield "Mistakes", mistakes_section(facts)
    yield "Gate", gate_section(facts)
    yield "Sealed test", sealed_section(facts)
    yield "Limitations", limitations_section(facts)
    yield "How to reproduce", reproduce_section(facts)


def _calibration(facts: Facts) -> str:
    if facts.calibration is None:
        return calibration_section(facts.out_of_fold)
    return paragraphs(
        f"The model's logits are {_shift(facts, facts.calibration)}divided by a temperature of"
        f" {facts.calibration.temperature:.3f}, which is packed with the model. Below, each patient"
        " is judged by a temperature fitted to the other patients.",
        calibration_section(facts.out_of_fold),
    )


def _shift(facts: Facts, calibration: Calibration) -> str:
    """What undoes the sampling strategy's share of the classes; nothing where it kept the share."""
    if not any(calibration.prior_correction):
        return ""
    by_class = zip(facts.out_of_fold.patients_by_class, calibration.prior_correction, strict=True)
    shift = ", ".join(f"{spoken(name)} {constant:+.3f}" for name, constant in by_class)
    return f"shifted, to undo what sampling did to the share of the classes ({shift}), and "


def _thresholds(facts: Facts) -> str:
    if facts.tags.get(keys.TASK) != "binary":
        return "There are none: of eight types the most probable one is the answer."
    points = facts.out_of_fold.points
    if not points:
        return "Not measured: too few patients, or the version was registered without thresholds."
    decision = facts.thresholds.decision if facts.thresholds else None
    rule = f"the rule “{RULE_TITLES[decision]}”" if decision else "the threshold 0.5"
    return paragraphs(
        threshold_section(points),
        f"The registered classifier decides by {rule}. The thresholds are those packed"
        " with it; to be fair, the rates here are what each rule does out-of-fold where a patient"
        " is judged by temperature and threshold of the other patients.",
    )
