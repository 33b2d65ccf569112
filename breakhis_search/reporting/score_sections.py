"""The parts of a model card that are tables of scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from breakhis_search.evaluation.metrics import RECOGNITION_RATE
from breakhis_search.evaluation.page_tables import HEADLINE_LABELS
from breakhis_search.evaluation.samples import DRAWN_LEVELS, LEVELS
from breakhis_search.evaluation.thresholds import RULE_TITLES, Proportion
from breakhis_search.reporting.markdown import NOTHING, Footnotes, bullets, escape, spoken, table
from breakhis_search.reporting.measured import LockedPoint, Measured

_LEVEL_HEADS = {
    "image": "image",
    "patient": "patient, mean probability",
    "patient_mean_logit": "patient, mean logit",
    "patient_majority_vote": "patient, majority vote",
}
_CONFUSED_SHOWN = 8
_NOT_OF_A_VOTE = {
    f"patient_majority_vote/{name}": "a majority vote is a class, without a probability"
    for name in ("auroc", "average_precision", "nll", "brier")
}
_CALIBRATION_LABELS = {
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "ece_classwise": "the same, by class",
}


def score_section(measured: Measured) -> str:
    """Return the headline scores at all levels and the recognition rates, with intervals."""
    notes = Footnotes()
    rows = [
        [label, *(_score(measured, f"{level}/{name}", notes) for level in LEVELS)]
        for name, label in HEADLINE_LABELS.items()
    ]
    heads = ["metric", *(_LEVEL_HEADS[level] for level in LEVELS)]
    rates = [
        (f"image recognition rate (image/accuracy) {_score(measured, 'image/accuracy', notes)}"),
        (
            f"patient recognition rate (patient/{RECOGNITION_RATE}) "
            f"{_score(measured, f'patient/{RECOGNITION_RATE}', notes)}"
        ),
    ]
    parts = [
        _size(measured),
        (
            f"In brackets: {measured.intervals.level:.0%} interval, over patients, not images. A"
            " patient is scored three ways: by the mean of the probabilities of all images, by the"
            " mean of their logits, and by the class that most images are given to. Probabilities"
            " are the network's own, before calibration."
        ),
        table(heads, rows),
        "Spanhol's recognition rates, for comparison with the literature:\n\n" + bullets(rates),
        str(notes),
    ]
    return "\n\n".join(part for part in parts if part)


def score_in_words(measured: Measured, name: str) -> str:
    """Return one score with its interval or the reason for none, in words."""
    value = measured.intervals.values.get(name)
    if value is None:
        return f"{name}: {escape(measured.undefined.get(name, 'not computed'))}"
    interval = measured.intervals.known.get(name)
    reason = measured.intervals.reasons.get(name, "no interval")
    return f"{name} {value:.3f} {escape(interval if interval is not None else f'({reason})')}"


def class_section(measured: Measured) -> str:
    """Return recall, precision and AUROC of every class, with its number of patients."""
    notes = Footnotes()
    names = ("recall", "precision", "auroc")
    rows = [
        [
            spoken(name),
            f"{patients}",
            *(_score(measured, f"image/{metric}_{name}", notes) for metric in names),
            _score(measured, f"patient/recall_{name}", notes),
        ]
        for name, patients in measured.patients_by_class.items()
    ]
    heads = ["class", "patients", *(f"{n}, images" for n in ("recall", "precision", "AUROC"))]
    heads.append("recall, patients (mean probability)")
    text = table(heads, rows, right=["patients"])
    return "\n\n".join(part for part in (text, str(notes)) if part)


def cell_section(measured: Measured, file: str) -> str:
    """Return the shares that are right by tumour type and magnification, with counts.

    Args:
        measured: What was scored.
        file: Where all levels are, in Markdown.
    """
    cells = measured.cells
    magnifications = list(dict.fromkeys(cells["magnification"]))
    heads = ["type", *(f"{m}X" if m != "all" else "all" for m in magnifications)]
    rows = [
        [spoken(str(name)), *(_cell(group, m) for m in magnifications)]
        for name, group in cells.groupby("type", sort=False)
    ]
    return (
        "Share of images that are right, then of patients by the mean probability of their images;"
        " in brackets images / patients. A share of few patients is theirs, not the type's."
        f" {file} has the other patient levels.\n\n" + table(heads, rows)
    )


def magnification_section(measured: Measured) -> str:
    """Return AUROC and Spanhol's recognition rates of every magnification, with intervals."""
    names = ("image/auroc", "patient/auroc", "image/accuracy", f"patient/{RECOGNITION_RATE}")
    cells = measured.cells
    of_all = cells[(cells["type"] == "all") & (cells["magnification"] != "all")]
    notes = Footnotes()
    rows = [
        [
            f"{row['magnification']}X",
            f"{row['images']} / {row['patients']}",
            *(_score(measured, f"magnification_{row['magnification']}/{n}", notes) for n in names),
        ]
        for row in of_all.to_dict("records")
    ]
    heads = ["magnification", "images / patients", "AUROC, images"]
    heads += ["AUROC, patients (mean probability)", "image recognition rate"]
    heads.append("patient recognition rate")
    text = table(heads, rows)
    return "\n\n".join(part for part in (text, str(notes)) if part)


def calibration_section(measured: Measured) -> str:
    """Return how far probabilities can be taken at their word, before and after calibration."""
    scores = measured.calibration
    if not scores:
        return "Not measured: too few patients, or the version was registered without it."
    rows = [
        [
            label,
            *(
                _number(scores.get(f"calibration/{state}/{level}/{name}"))
                for level in DRAWN_LEVELS
                for state in ("before", "after")
            ),
        ]
        for name, label in _CALIBRATION_LABELS.items()
    ]
    heads = ["score (lower is better)"]
    heads += [f"{level}, {state}" for level in DRAWN_LEVELS for state in ("before", "after")]
    chance = scores.get("calibration/after/patient/ece_by_chance")
    luck = (
        f"\n\nWith so few patients, luck alone gives an expected calibration error of"
        f" {chance:.3f} by patient."
        if chance is not None
        else ""
    )
    return table(heads, rows, right=heads[1:]) + "".join(_no_help(scores)) + luck


def _no_help(scores: Mapping[str, float]) -> Iterator[str]:
    """A sentence for each level whose probabilities calibration made worse."""
    for level in DRAWN_LEVELS:
        before, after = (scores.get(f"calibration/{s}/{level}/nll") for s in ("before", "after"))
        if before is not None and after is not None and after > before:
            yield (
                f"\n\nCalibration does not help the probabilities of {level}s here: it is fitted to"
                " images, and their negative log-likelihood rises."
            )


def threshold_section(points: Sequence[LockedPoint]) -> str:
    """Return what each locked threshold does."""
    rows = [
        [
            point.point["level"],
            RULE_TITLES[point.rule],
            f"{point.point['threshold']:.3f}",
            _proportion(point.point["sensitivity"]),
            _proportion(point.point["specificity"]),
            _proportion(point.point["ppv"]),
            _proportion(point.point["npv"]),
        ]
        for point in points
    ]
    heads = ["level", "rule", "threshold", "sensitivity", "specificity", "PPV", "NPV"]
    seeds = max(point.point["seeds"] for point in points)
    counted = (
        f" Each image and patient is counted once for each of the {seeds} seeds."
        if seeds > 1
        else ""
    )
    return (
        "A case is called malignant from this calibrated probability on. PPV and NPV hold for the"
        f" share of malignant cases in these data only.{counted}\n\n" + table(heads, rows)
    )


def confusion_section(measured: Measured) -> str:
    """Return which type is taken for which class, most first."""
    if not measured.confused:
        return "No image was given to a wrong class."
    lines = [escape(str(pair)) for pair in measured.confused[:_CONFUSED_SHOWN]]
    more = len(measured.confused) - len(lines)
    return bullets([*lines, f"and {more} more, each rarer"] if more else lines)


def _size(measured: Measured) -> str:
    by_class = ", ".join(f"{spoken(k)} {v}" for k, v in measured.patients_by_class.items())
    seeds = f" Every score is the mean over {measured.seeds} seeds." if measured.seeds > 1 else ""
    return f"{measured.images:,} images of {measured.patients} patients ({by_class}).{seeds}"


def _score(measured: Measured, name: str, notes: Footnotes) -> str:
    """Such as ``0.812 [0.701, 0.890]``; a letter says why there is no interval, or no value."""
    intervals = measured.intervals
    value = intervals.values.get(name)
    if value is None:
        reason = measured.undefined.get(name) or _NOT_OF_A_VOTE.get(name)
        return f"{NOTHING} {notes.mark(_speak(reason, measured))}" if reason else NOTHING
    interval = intervals.known.get(name)
    if interval is not None:
        return f"{value:.3f} {escape(interval)}"
    reason = intervals.reasons.get(name)
    return f"{value:.3f}" + (f" {notes.mark(reason)}" if reason else "")


def _speak(reason: str, measured: Measured) -> str:
    """A reason with its class names as words."""
    for name in measured.patients_by_class:
        reason = reason.replace(name, name.replace("_", " "))
    return reason


def _cell(group: pd.DataFrame, magnification: str) -> str:
    rows = group[group["magnification"] == magnification].to_dict("records")
    if not rows:
        return NOTHING
    [row] = rows
    shares = f"{row['image_accuracy']:.2f}, {row['patient_accuracy']:.2f}"
    return f"{shares} ({row['images']} / {row['patients']})"


def _proportion(share: Proportion) -> str:
    if share["value"] is None:
        return NOTHING
    interval = (
        rf" \[{share['low']:.2f}, {share['high']:.2f}\]"
        if share["low"] is not None and share["high"] is not None
        else ""
    )
    return f"{share['value']:.3f}{interval} ({share['right']} of {share['of']})"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def settings_table(values: Mapping[str, Any]) -> str:
    """Return names and values as a table."""
    rows = [[escape(name), escape(plain(value))] for name, value in values.items()]
    return table(["name", "value"], rows)


def plain(value: Any) -> str:
    """Return numbers with four digits, yes and no, everything else as it is.

    >>> plain("0.8565290047937655"), plain("128"), plain("none"), plain(False)
    ('0.8565', '128', 'none', 'no')
    """
    text = {"True": "yes", "False": "no"}.get(str(value), str(value))
    try:
        return text if text.isdigit() else f"{float(text):.4g}"
    except ValueError:
        return text
