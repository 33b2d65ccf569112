"""The parts of a model card that tell how a model came to be: data, protocol, search, selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from breakhis_search.evaluation.page_tables import HEADLINE_LABELS
from breakhis_search.reporting.facts import Facts
from breakhis_search.reporting.formulation import formulation_in_words
from breakhis_search.reporting.markdown import (
    NOTHING,
    bullets,
    code,
    escape,
    paragraphs,
    spoken,
    table,
)
from breakhis_search.reporting.measured import Measured
from breakhis_search.reporting.score_sections import plain, settings_table
from breakhis_search.reporting.search_space import searched_space
from breakhis_search.tracking import keys

_STAIN_WORDS = {
    "none": "none",
    "macenko": (
        "after Macenko et al. 2009; the reference comes from the training images alone and is"
        " packed with the model"
    ),
}


def intended_use(facts: Facts) -> str:
    """Return what the model is for, and what it is not for."""
    task = (
        "benign or malignant"
        if facts.tags.get(keys.TASK) == "binary"
        else "one of eight tumour types"
    )
    return (
        "For research on images like those of BreaKHis: breast tissue in H&E, one field of view at"
        f" {_magnifications(facts.out_of_fold)}. Its answer to an image, or to all images of a"
        f" patient, is {task}, with a probability.\n\n**Not a medical device.** Not for diagnosis,"
        " screening, triage or any decision about a patient; not for other stains, organs,"
        " magnifications, scanners, whole slides or other laboratories without an evaluation of its"
        " own."
    )


def data_section(facts: Facts) -> str:
    """Return where the images come from and who is in them."""
    measured = facts.out_of_fold
    if facts.version.demo:
        source = "Drawn by this program (`data demo`): no tissue, no patient, no diagnosis."
        truth = "truth: the type that the program drew"
    else:
        source = (
            "BreaKHis (F. A. Spanhol et al., IEEE Transactions on Biomedical Engineering 63(7),"
            " 2016), from one laboratory; the full set has 7,909 images. Age, sex and origin of"
            " the patients are not published with it."
        )
        truth = "truth: the pathologists' diagnosis that the folder of an image states"
    by_class = ", ".join(f"{spoken(k)} {v}" for k, v in measured.patients_by_class.items())
    lines = [
        (
            f"scored out-of-fold: {measured.images:,} images of {measured.patients} patients"
            f" (accessions); patients by class: {by_class}"
        ),
        f"patients by type: {_patients_by_type(measured)}",
        f"images by magnification: {_images_by_magnification(measured)}",
        truth,
        f"fingerprint of the files: {code(facts.tags.get(keys.DATA_FINGERPRINT, NOTHING))}",
    ]
    return f"{source}\n\n{bullets(lines)}"


def _patients_by_type(measured: Measured) -> str:
    cells = measured.cells
    rows = cells[(cells["magnification"] == "all") & (cells["type"] != "all")].to_dict("records")
    return ", ".join(f"{spoken(str(row['type']))} {row['patients']}" for row in rows)


def _images_by_magnification(measured: Measured) -> str:
    cells = measured.cells
    rows = cells[(cells["type"] == "all") & (cells["magnification"] != "all")].to_dict("records")
    return ", ".join(f"{row['magnification']}X {row['images']:,}" for row in rows)


def _magnifications(measured: Measured) -> str:
    """Return such as ``40X, 100X or 400X``: those that images were scored at.

    More are not claimed, even where the study asked for all.
    """
    *others, last = [f"{number}X" for number in scored_magnifications(measured)]
    return f"{', '.join(others)} or {last}" if others else last


def scored_magnifications(measured: Measured) -> list[int]:
    """Return the magnifications that images were scored at, ascending."""
    found = set(measured.cells["magnification"]) - {"all"}
    return sorted(int(number) for number in found)


def protocol_section(facts: Facts) -> str:
    """Return who was trained on and who was scored."""
    protocol = facts.config.get("protocol", {})
    folds = f"{protocol['folds']} folds, " if "folds" in protocol else ""
    kind = facts.tags.get(keys.PROTOCOL, "unknown")
    lines = [
        (
            f"protocol {code(kind)}: {folds}disjoint by"
            f" {escape(protocol.get('group_by', 'accession'))}; every image is scored by a model"
            " that saw none of its patient, and the scores of all folds are pooled"
        ),
        f"sealed test: {_sealed_test(facts)}",
        ("size: all patients that can be used; no sample size was calculated beforehand"),
        f"digest of the split: {code(facts.tags.get(keys.SPLIT_DIGEST, NOTHING))}",
    ]
    formulation = facts.tags.get(keys.FORMULATION)
    if formulation:
        lines.append(f"formulation: {escape(formulation_in_words(formulation))}")
    return bullets([*lines, *(escape(note) for note in facts.split_notes)])


def _sealed_test(facts: Facts) -> str:
    digest = facts.tags.get(keys.SEALED_DIGEST)
    who = escape(facts.tags.get(keys.SEALED_TEST, "unknown"))
    if not digest:
        return f"none ({who})"
    return (
        f"{who}, put away before the search and chosen by a hash of their names, so that every"
        f" study on these patients seals the same; digest {code(digest)}"
    )


def model_section(facts: Facts) -> str:
    """Return what the model is and how an image reaches it."""
    tags = facts.tags
    parameters = "" if facts.parameters is None else f", {facts.parameters:,} parameters"
    stain = facts.params.get("preprocessing/stain", "none")
    height, width = facts.params.get("data/height_px"), facts.params.get("data/width_px")
    lines = [
        f"{escape(tags.get(keys.ARCHITECTURE, NOTHING))}{parameters}; one network, no ensemble",
        f"weights started from: {_origin(facts.weights)}",
        f"images are brought to {height} × {width} px" if height and width else "",
        f"stain normalisation: {_STAIN_WORDS.get(stain, escape(stain))}",
        f"against class imbalance: {_imbalance(tags.get(keys.SAMPLING, NOTHING))}",
        f"file {code('model.keras')}, sha256 {code(tags.get(keys.MODEL_SHA256, NOTHING))}",
        (
            "fitted to all development patients, for as many epochs as its folds took; the"
            " out-of-fold scores below are of the same configuration fitted to parts of them"
        ),
    ]
    return (
        bullets([line for line in lines if line])
        + "\n\nHyperparameters:\n\n"
        + settings_table(dict(sorted(facts.params.items())))
    )


def _imbalance(strategy: str) -> str:
    return {"none": "nothing", "focal": "focal loss"}.get(strategy, spoken(strategy))


def _origin(weights: str) -> str:
    """Return in words what the tag ``ORIGIN [SHA256]`` says."""
    origin, _, digest = weights.partition(" ")
    words = {
        "": "not recorded",
        "none": "random values",
        "imagenet": "ImageNet, as Keras ships them",
        "file": "pretrained ones, from a file",
    }.get(origin, escape(origin))
    return f"{words}, sha256 {code(digest)}" if digest else words


def selection_section(facts: Facts) -> str:
    """Return what was searched and tried, and why this configuration is the one."""
    states = facts.trials["state"].value_counts().to_dict()
    counted = ", ".join(f"{count} {escape(state)}" for state, count in sorted(states.items()))
    optimism = facts.study_tags.get(keys.OPTIMISM)
    failures = _failures(facts)
    return paragraphs(
        f"{len(facts.trials)} trials of the search ({counted}), one seed each. {_again(facts)}",
        f"**{escape(facts.tags.get(keys.WHY_SELECTED, 'Why it was selected is not recorded.'))}**",
        _finalists(facts),
        f"Best score of the search: {escape(optimism)}." if optimism else "",
        "Searched:",
        _searched(facts),
        f"Failed trials:\n\n{failures}" if failures else "",
    )


def _again(facts: Facts) -> str:
    if len(facts.selection) == 1:
        return "The best was trained again as the one finalist."
    return "The best were trained again as finalists, and only those were compared."


def _failures(facts: Facts) -> str:
    failed = facts.trials[facts.trials["state"] == "failed"].sort_values("trial")
    return bullets(
        [
            f"trial {row['trial']}: {escape(row['reason'] or 'no reason recorded')}"
            for row in failed.to_dict("records")
        ]
    )


def _finalists(facts: Facts) -> str:
    if facts.selection.empty:
        return "The comparison of the finalists was not kept."
    rows = [
        [
            f"{row['trial']}",
            escape(row["name"]),
            f"{row['score']:.3f}",
            _difference(row),
            NOTHING if pd.isna(row["p_holm"]) else f"{row['p_holm']:.3f}",
            "selected" if row["selected"] else "tied" if row["tied"] else "no",
        ]
        for row in facts.selection.to_dict("records")
    ]
    objective = HEADLINE_LABELS[facts.rules.objective]
    heads = ["trial", "architecture", f"{objective}, images", "to the best", "p", "tied"]
    if len(rows) == 1:
        return table(heads, rows, right=["trial"])
    return table(heads, rows, right=["trial"]) + (
        "\n\nTo the best: difference, with its 95 % interval. p: of the patient-swap test that the"
        " best is better, corrected after Holm."
    )


def _difference(row: Mapping[Any, Any]) -> str:
    if row["difference"] == 0:
        return NOTHING
    known = not (pd.isna(row["low"]) or pd.isna(row["high"]))
    interval = rf" \[{row['low']:+.3f}, {row['high']:+.3f}\]" if known else " (too few patients)"
    return f"{row['difference']:+.3f}{interval}"


def _searched(facts: Facts) -> str:
    """Bounds and tried values of all that was searched or that varied over the trials."""
    bounds = searched_space(facts.config)
    tried = facts.search.tried
    varied = {name for name, values in tried.items() if len(values) > 1}
    names = sorted(varied | set(bounds))
    if not names:
        return "Nothing varied: every trial had the same hyperparameters."
    # Without the study file nothing is known; with it only what code of the user's own declares.
    unknown = "as the architecture's own code declares" if bounds else "not known"
    rows = [
        [
            escape(name),
            escape(bounds.get(name, unknown)),
            escape(_tried(tried.get(name, {}))),
        ]
        for name in names
    ]
    return table(["hyperparameter", "searched over", "tried (trials)"], rows)


def _tried(values: Mapping[str, int]) -> str:
    """Return the values that were tried: a range of many numbers, else each with its trials.

    >>> _tried({"16": 1, "24": 3}), _tried({"0.00012": 1, "0.03": 1, "0.5": 1, "0.7": 1})
    ('16 (1), 24 (3)', '0.00012 to 0.7 (4 values)')
    >>> _tried({})
    'in no trial'
    """
    if not values:
        return "in no trial"
    numbers = [_number(value) for value in values]
    known = sorted(number for number in numbers if number is not None)
    if len(known) == len(values) > 3:
        return f"{known[0]:.4g} to {known[-1]:.4g} ({len(known)} values)"
    ordered = sorted(values, key=lambda value: (_number(value) or 0.0, value))
    return ", ".join(f"{plain(value)} ({values[value]})" for value in ordered)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def reproduce_section(facts: Facts) -> str:
    """Return commands, versions and the commit."""
    tags = facts.tags
    versions = {
        key.removeprefix(keys.VERSIONS): value
        for key, value in sorted(tags.items())
        if key.startswith(keys.VERSIONS)
    }
    data = "" if facts.version.demo else " --data DIR"
    shipped = tags[keys.STUDY].partition("@v")[0].removesuffix("-demo")
    lines = [
        (
            f"study {code(tags[keys.STUDY])}, profile {escape(tags.get(keys.PROFILE, 'none'))},"
            f" trial {escape(tags.get(keys.SELECTED_TRIAL, NOTHING))}; commit"
            f" {code(tags.get(keys.GIT_COMMIT, 'unknown'))}"
        ),
        (
            f"what was run: {code(keys.ARTIFACT_CONFIG)} of MLflow run"
            f" {code(tags[keys.EVIDENCE_RUN])}; its predictions are"
            f" {code(keys.ARTIFACT_PREDICTIONS)} there"
        ),
        f"again: {code(f'python -m breakhis_search run --study study.yaml{data}')} with that file",
        f"this card: {code(_card_command(shipped, facts))}",
        f"device: {escape(tags.get(keys.DEVICE, NOTHING))}",
        "versions: " + ", ".join(f"{escape(k)} {escape(v)}" for k, v in versions.items()),
    ]
    if not facts.version.demo:
        lines.append(
            "the images: <https://web.inf.ufpr.br/vri/databases/"
            "breast-cancer-histopathological-database-breakhis/>"
        )
    return bullets(lines)


def _card_command(study: str, facts: Facts) -> str:
    demo = " --demo" if facts.version.demo else ""
    version = facts.version.version
    return f"python -m breakhis_search card --study {study} --version {version}{demo}"
