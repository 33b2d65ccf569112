"""The model card of a registered version, in Markdown, from what was recorded of it.

Headings name the items of TRIPOD+AI (G. S. Collins et al., BMJ 385:e078378, 2024) that they answer;
``docs/model_card.md`` sets them beside the topics of CLAIM (A. S. Tejani et al., Radiology:
Artificial Intelligence 6(4), 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from breakhis_search.data.taxonomy import TYPE_BY_NAME
from breakhis_search.evaluation.resampled_metrics import MIN_PATIENTS
from breakhis_search.reporting.facts import Facts
from breakhis_search.reporting.markdown import NOTHING, bullets, code, escape, spoken, table
from breakhis_search.reporting.score_sections import (
    calibration_section,
    cell_section,
    class_section,
    confusion_section,
    score_section,
    settings_table,
    threshold_section,
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
    ]
    for heading, items, text in _sections(facts):
        parts += [f"## {heading}", f"*TRIPOD+AI {items}*" if items else "", text]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """Heading, items of TRIPOD+AI, text."""
    measured = facts.out_of_fold
    yield "Intended use", "items 3b, 27", _intended_use(facts)
    yield "Data", "items 5a, 6, 20", _data(facts)
    yield "Who was trained on, who was scored", "items 8, 10, 16", _protocol(facts)
    yield "The model", "items 12, 13, 22", _model(facts)
    yield "Search and selection", "items 12, 21", _selection(facts)
    yield "Scores out-of-fold", "items 12, 23a", score_section(measured)
    yield "By class", "item 23a", class_section(measured)
    yield "By tumour type and magnification", "items 14, 23b", cell_section(measured)
    yield "Calibration", "items 12, 15", calibration_section(measured)
    if measured.points:
        yield "Decision thresholds", "item 15", threshold_section(measured.points)
    yield "What is taken for what", "item 25", confusion_section(measured)
    yield "Sealed test", "items 16, 23a", _sealed(facts)
    yield "Limitations", "item 26", _limitations(facts)
    yield "How to reproduce", "items 18e, 18f", _reproduce(facts)


def _intended_use(facts: Facts) -> str:
    task = (
        "benign or malignant"
        if facts.tags.get(keys.TASK) == "binary"
        else "one of eight tumour types"
    )
    return (
        f"Research on breast-histology images like those of BreaKHis: H&E, a field of view of"
        f" {_magnifications(facts)}, answered by {task}.\n\n**Not a medical device.** Not for"
        " diagnosis, screening, triage or any decision about a patient; not for other stains,"
        " organs, scanners, whole slides or other laboratories without an evaluation of its own."
    )


def _magnifications(facts: Facts) -> str:
    one = facts.version.magnification_x
    return f"{one}X" if one else "40X, 100X, 200X or 400X"


def _data(facts: Facts) -> str:
    measured = facts.out_of_fold
    source = (
        "Drawn by this program (`data demo`)."
        if facts.version.demo
        else "BreaKHis (F. A. Spanhol et al., IEEE TBME 63(7), 2016): one laboratory, 82 slide"
        " folders, 70 accessions, 7,909 images in the full set."
    )
    types = ", ".join(spoken(name) for name in measured.types)
    by_class = ", ".join(f"{spoken(k)} {v}" for k, v in measured.patients_by_class.items())
    return f"{source}\n\n" + bullets(
        [
            (
                f"scored out-of-fold here: {measured.images:,} images of {measured.patients}"
                f" patients (accessions); patients by class: {by_class}"
            ),
            f"types among them: {types}",
            f"magnification: {_magnifications(facts)}",
            f"fingerprint of the files: {code(facts.tags.get(keys.DATA_FINGERPRINT, NOTHING))}",
            "truth: the pathologists' diagnosis that the folder of an image states",
        ]
    )


def _protocol(facts: Facts) -> str:
    protocol = facts.config.get("protocol", {})
    formulation = facts.tags.get(keys.FORMULATION, NOTHING)
    folds = protocol.get("folds", NOTHING)
    lines = [
        (
            f"protocol {code(facts.tags.get(keys.PROTOCOL, NOTHING))}, {folds} folds, disjoint by"
            f" {escape(protocol.get('group_by', 'accession'))}; scores are pooled out-of-fold"
        ),
        (
            f"sealed test: {escape(facts.tags.get(keys.SEALED_TEST, NOTHING))}; put away before the"
            " search, the same for every study on these patients"
        ),
        f"digest of the split: {code(facts.tags.get(keys.SPLIT_DIGEST, NOTHING))}",
        f"formulation of Benhammou et al. 2020: {escape(formulation)}",
        *(escape(note) for note in facts.split_notes),
    ]
    return bullets(lines)


def _model(facts: Facts) -> str:
    parameters = NOTHING if facts.parameters is None else f"{facts.parameters:,}"
    head = bullets(
        [
            f"{escape(facts.tags.get(keys.ARCHITECTURE, NOTHING))}, {parameters} parameters",
            f"against class imbalance: {escape(facts.tags.get(keys.SAMPLING, NOTHING))}",
            (
                f"file {code('model.keras')} with sha256"
                f" {code(facts.tags.get(keys.MODEL_SHA256, NOTHING))}"
            ),
            (
                "fitted to all development patients for a number of epochs that its folds gave; the"
                " scores below are of the same configuration fitted to folds of them"
            ),
        ]
    )
    return f"{head}\n\nHyperparameters:\n\n{settings_table(dict(sorted(facts.params.items())))}"


def _selection(facts: Facts) -> str:
    states = facts.trials["state"].value_counts().to_dict()
    counted = ", ".join(f"{count} {escape(state)}" for state, count in sorted(states.items()))
    parts = [
        (
            f"{len(facts.trials)} trials of the search ({counted}), one seed each. The best were"
            " trained again as finalists, and only those were compared."
        ),
        f"**{escape(facts.tags.get(keys.WHY_SELECTED, NOTHING))}**",
        _finalists(facts),
    ]
    optimism = facts.study_tags.get(keys.OPTIMISM)
    if optimism:
        parts.append(f"Best score of the search: {escape(optimism)}.")
    parts.append(f"Searched:\n\n{_space(facts)}")
    failures = _failures(facts)
    if failures:
        parts.append(f"Failed trials:\n\n{failures}")
    return "\n\n".join(parts)


def _finalists(facts: Facts) -> str:
    if facts.selection.empty:
        return "The comparison of the finalists was not kept."
    rows = [
        [
            f"{row['trial']}",
            escape(row["name"]),
            f"{row['score']:.3f}",
            _difference(row),
            NOTHING if row["p_holm"] != row["p_holm"] else f"{row['p_holm']:.3f}",
            "selected" if row["selected"] else "tied" if row["tied"] else "no",
        ]
        for row in facts.selection.to_dict("records")
    ]
    heads = [
        "trial",
        "architecture",
        f"{facts.rules.objective}, images",
        "to the best",
        "p",
        "tied",
    ]
    return table(heads, rows) + (
        "\n\np: that the best is no better (patient-swap test, Holm); differences with their 95 %"
        " interval."
    )


def _difference(row: dict[Any, Any]) -> str:
    if row["difference"] == 0:
        return NOTHING
    interval = rf" \[{row['low']:+.3f}, {row['high']:+.3f}\]" if row["low"] == row["low"] else ""
    return f"{row['difference']:+.3f}{interval}"


def _space(facts: Facts) -> str:
    space = facts.config.get("space", {})
    if not space:
        return "the bounds that the code declares."
    return settings_table({name: _bounds(value) for name, value in sorted(space.items())})


def _bounds(value: Any) -> str:
    if isinstance(value, dict):
        scale = ", log" if value.get("log") else ""
        return f"{value['low']:g} to {value['high']:g}{scale}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value} (pinned)"


def _failures(facts: Facts) -> str:
    failed = facts.trials[facts.trials["state"] == "failed"]
    return bullets(
        [f"trial {row['trial']}: {escape(row['reason'])}" for row in failed.to_dict("records")]
    )


def _sealed(facts: Facts) -> str:
    count = len(facts.openings)
    if not facts.tags.get(keys.SEALED_DIGEST):
        return f"There is none ({escape(facts.tags.get(keys.SEALED_TEST, 'unknown'))})."
    if not count:
        return (
            "Never opened for this version: every score above is out-of-fold, of patients that the"
            " search has seen the scores of."
        )
    times = "once" if count == 1 else f"{count} TIMES: only the first opening was blind"
    parts = [
        f"Opened {times}, first on {facts.openings[0]['when']}.",
        f"Floors asked for: {_floors(facts)}.",
    ]
    if facts.sealed is None:
        return "\n\n".join([*parts, "Its predictions were not kept: scoring was cut off."])
    parts.append(score_section(facts.sealed))
    if facts.sealed.points:
        parts.append(threshold_section(facts.sealed.points))
    return "\n\n".join(parts)


def _floors(facts: Facts) -> str:
    floors = facts.rules.sealed_floors
    return ", ".join(f"{code(name)} {value:g}" for name, value in sorted(floors.items())) or "none"


def _limitations(facts: Facts) -> str:
    return bullets([escape(line) for line in _limits(facts)])


def _limits(facts: Facts) -> Iterator[str]:
    measured = facts.out_of_fold
    if facts.version.demo:
        yield "the images are synthetic: scores say nothing about tissue"
    else:
        yield (
            "one laboratory, one stain, one microscope: nothing is known of other places; no age,"
            " sex or ethnicity is recorded, so no subgroup of people can be looked at"
        )
    for name, patients in measured.patients_by_class.items():
        if patients < MIN_PATIENTS:
            yield f"{name.replace('_', ' ')}: {patients} patients, too few for an interval"
    if facts.sealed is not None:
        absent = [t for t in measured.types if t not in facts.sealed.types]
        if absent:
            yield f"no sealed patient has {', '.join(a.replace('_', ' ') for a in absent)}"
    yield from (note for note in facts.split_notes if "no sealed patient" in note)
    missing = [name for name in TYPE_BY_NAME if name not in measured.types]
    if missing:
        yield f"no image here is of {', '.join(m.replace('_', ' ') for m in missing)}"
    yield (
        f"trained with {measured.seeds} seeds in the comparison: another seed scores differently"
        if measured.seeds > 1
        else "one seed: another one would score differently"
    )
    yield "selected by the scores that are shown, which are therefore optimistic"
    if facts.version.below_floors:
        yield f"below its floors: {', '.join(facts.version.below_floors)}"
    if facts.version.forced:
        yield "made champion against the gate, on purpose (--force)"
    alarm = facts.study_tags.get(keys.LEAK_ALARM)
    if alarm:
        yield f"LEAK ALARM: {alarm}"


def _reproduce(facts: Facts) -> str:
    versions = {
        key.removeprefix(keys.VERSIONS): value
        for key, value in sorted(facts.tags.items())
        if key.startswith(keys.VERSIONS)
    }
    study = facts.tags[keys.STUDY].partition("@v")[0].removesuffix("-demo")
    profile = facts.tags.get(keys.PROFILE, "none")
    command = f"python -m breakhis_search run --study {study}"
    command += f" --profile {profile}" if profile != "none" else ""
    command += "" if facts.version.demo else " --data DIR"
    lines = [
        (
            f"study {code(facts.tags[keys.STUDY])}, trial"
            f" {escape(facts.tags.get(keys.SELECTED_TRIAL, NOTHING))}, commit"
            f" {code(facts.tags.get(keys.GIT_COMMIT, NOTHING))}"
        ),
        (
            f"command: {code(command)}; the configuration as run is"
            f" {code(keys.ARTIFACT_CONFIG)} of run {code(facts.tags[keys.EVIDENCE_RUN])}"
        ),
        f"device: {escape(facts.tags.get(keys.DEVICE, NOTHING))}",
        "versions: " + ", ".join(f"{escape(k)} {escape(v)}" for k, v in versions.items()),
    ]
    return bullets(lines)
