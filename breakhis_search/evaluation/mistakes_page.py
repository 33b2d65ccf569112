"""One self-contained HTML page on where a model goes wrong: pictures, pairs, patients.

Every picture is in the page once, as a JPEG of at most 410 px; the overlay draws the same picture
again under a Grad-CAM map of a few kilobytes. The page asks the network for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import PurePath

import pandas as pd

from breakhis_search.evaluation.document import document, figure_html
from breakhis_search.evaluation.mistakes import (
    Mistake,
    confused_pairs,
    hard_patients,
    mean_over_seeds,
    most_confident_mistakes,
)
from breakhis_search.evaluation.mistakes_pictures import (
    ByteArray,
    FloatArray,
    Picture,
    encode_pictures,
    map_gradient,
    map_uri,
)
from breakhis_search.evaluation.page_tables import facts_table
from breakhis_search.evaluation.patient_strips import patient_strips
from breakhis_search.evaluation.predictions import class_names_of, is_binary, tables_by_seed
from breakhis_search.evaluation.style import REFERENCE_COLOR, label_of

ImageOf = Callable[[str], ByteArray]

MAX_PAIRS = 12

GALLERY_STYLE = f"""
.cases {{ display: grid; gap: 28px 32px; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); }}
.case {{ margin: 0; min-width: 0; }}
.case .pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 6px; }}
.case svg {{ display: block; width: 100%; height: auto; background: #eee; }}
.case .unmapped {{ display: flex; align-items: center; padding: 0 1rem; background: #f3f3f3;
  color: var(--faint); font-size: .85rem; }}
.case figcaption {{ margin-top: .35rem; font-size: .9rem; line-height: 1.4;
  overflow-wrap: anywhere; }}
.case code {{ color: var(--faint); }}
.scale {{ display: flex; align-items: center; gap: .6rem; font-size: .85rem; margin: .6rem 0;
  flex-wrap: wrap; }}
.scale span.bar {{ width: 120px; height: 14px; border: 1px solid {REFERENCE_COLOR}; }}
li {{ margin: .25rem 0; max-width: 90ch; }}
h3 {{ font-size: 1rem; margin: 1.2rem 0 .3rem; }}
@media (max-width: 520px) {{ .case .pair {{ grid-template-columns: 1fr; }} }}
"""


@dataclass(frozen=True)
class ClassMap:
    """Where one trained model found a class in a picture.

    Attributes:
        places: float32 [h, w] in [0, 1], of the whole picture at any size.
        seed: Seed of the model.
    """

    places: FloatArray
    seed: int


@dataclass(frozen=True)
class Explanations:
    """The Grad-CAM maps at hand, or why there are none.

    Attributes:
        maps: By image and by the name of the class that the map is about.
        grid: Height and width in cells of the feature map they come from.
        absence: Why no picture has a map, as a clause; empty where maps were made.
    """

    maps: Mapping[tuple[str, str], ClassMap] = field(default_factory=dict)
    grid: tuple[int, int] = (0, 0)
    absence: str = ""


def build_mistakes_page(
    table: pd.DataFrame,
    *,
    title: str,
    subtitle_facts: Mapping[str, str],
    image_of: ImageOf,
    explanations: Explanations,
    tables_of_trials: Sequence[pd.DataFrame] = (),
) -> str:
    """Return the page on the mistakes of one configuration.

    Args:
        table: Its pooled out-of-fold predictions, of one or more seeds.
        title: The heading, as plain text.
        subtitle_facts: What to know of the configuration, by name, as plain text.
        image_of: Gives the picture at a path of ``table``, uint8 [h, w, 3] RGB.
        explanations: Grad-CAM maps for the mistakes, see :func:`.mistakes.mistakes_of_fold`.
        tables_of_trials: Predictions of all trials of the study, to find the patients that every
            one gets wrong; without them the seeds of ``table`` are compared.

    Returns:
        One HTML document of less than 6 MB, nearly all of it plotly.js; it works offline.

    Raises:
        DataError: The trials did not score the same images.
    """
    gallery = build_gallery(table, image_of=image_of, explanations=explanations)
    body = "".join(
        [
            f"<h1>{escape(title)}</h1>",
            facts_table(subtitle_facts),
            f"<h2>The most confident mistakes</h2>{gallery}",
            f"<h2>What is taken for what</h2>{_pairs_html(table)}",
            f"<h2>Patients that are always wrong</h2>{_hard_html(table, tables_of_trials)}",
            f"<h2>Patient by patient</h2>{_strips_html(table)}",
        ]
    )
    return document(escape(title), body)


def build_gallery(table: pd.DataFrame, *, image_of: ImageOf, explanations: Explanations) -> str:
    """Return the most confident mistakes as a part of a page, with its style.

    Args:
        table: As for :func:`build_mistakes_page`.
        image_of: As there.
        explanations: As there.
    """
    mistakes = most_confident_mistakes(table)
    pictures = _gallery_html(table, mistakes, image_of, explanations) if mistakes else ""
    return f"<style>{GALLERY_STYLE}</style>{_extent_html(table, mistakes)}{pictures}"


def _extent_html(table: pd.DataFrame, mistakes: list[Mistake]) -> str:
    """How much is wrong at all, and which part of it is shown."""
    images = mean_over_seeds(table)
    wrong = images[images["y_pred"] != images["y_true"]]
    patients = images["accession"].nunique()
    extent = (
        f"{len(wrong):,} of {len(images):,} images ({len(wrong) / len(images):.0%}) are given to a "
        f"wrong class; they are of {wrong['accession'].nunique()} of {patients} patients."
    )
    seeds = table["seed"].nunique()
    means = (
        f" Probabilities are means over {seeds} seeds, that is of {seeds} models of each fold."
        if seeds > 1
        else ""
    )
    unseen = (
        " Each image was scored by models that had not seen it, and goes to its most probable class"
        " before calibration, as in all out-of-fold scores; a registered model decides by its own"
        " threshold."
    )
    if not mistakes:
        return f"<p>{extent}{means}{unseen} There is nothing to show.</p>"
    return (
        f"<p>{extent} Shown are the {len(mistakes)} to which the wrong class got the highest "
        "probability, at most two of one patient, because a patient's pictures tend to be wrong "
        f"together.{means}{unseen}</p>"
    )


def _gallery_html(
    table: pd.DataFrame,
    mistakes: list[Mistake],
    image_of: ImageOf,
    explanations: Explanations,
) -> str:
    images = mean_over_seeds(table)
    is_wrong = images["y_pred"] != images["y_true"]
    of_patient = {
        key: (int(wrong.sum()), len(wrong))
        for key, wrong in is_wrong.groupby([images["accession"], images["y_true"]])
    }
    names = class_names_of(table)
    pictures = encode_pictures([image_of(mistake.image) for mistake in mistakes])
    cases = [
        _case_html(
            number,
            mistake,
            picture,
            explanations,
            of_patient[mistake.accession, names.index(mistake.true_class)],
            is_binary(names),
        )
        for number, (mistake, picture) in enumerate(zip(mistakes, pictures, strict=True), start=1)
    ]
    return f'{_reading_html(explanations)}<div class="cases">{"".join(cases)}</div>'


def _reading_html(explanations: Explanations) -> str:
    """How to read the overlays and what they cannot tell, or why there are none."""
    if explanations.absence:
        return (
            '<p class="absent">Grad-CAM maps are not available: '
            f"{escape(explanations.absence)}.</p>"
        )
    height, width = explanations.grid
    return (
        "<h3>How to read the pictures</h3><p>Beside each picture (below it on a narrow screen) "
        "stands the same picture with the places that raised the score of the class it was "
        "<em>wrongly given to</em>, by Grad-CAM (Selvaraju et al. 2017).</p>"
        f'<div class="scale"><span>no push towards the class</span>'
        f'<span class="bar" style="background:{map_gradient()}"></span>'
        "<span>strongest push in this picture</span></div>"
        f"<p>The map has {height} × {width} cells over the whole picture, so it points at regions, "
        "not at single nuclei. Its colours compare places inside one picture: the strongest is "
        "always yellow, however weak it is, so two pictures cannot be compared.</p>"
        "<h3>What Grad-CAM cannot tell</h3><ul>"
        "<li>It shows where the network found reasons for its class, not which reasons, and not "
        "whether a pathologist would call them reasons.</li>"
        "<li>What spoke against the class, or for the true one, is not shown.</li>"
        "<li>A map on the tumour does not mean that the answer came from the tumour's features; "
        "stain, focus and the edge of the field can raise a score as well.</li>"
        "<li>Each map is of one model, that of the fold which held the picture out, and not of "
        "the model that is registered later, which learns from all of them.</li></ul>"
    )


def _case_html(
    number: int,
    mistake: Mistake,
    picture: Picture,
    explanations: Explanations,
    wrong_of_images: tuple[int, int],
    binary: bool,
) -> str:
    """One mistake: the picture, its overlay, and what is known of both."""
    size = f'viewBox="0 0 {picture.width_px} {picture.height_px}" role="img"'
    predicted, true = label_of(mistake.predicted_class), label_of(mistake.true_class)
    truth = f"{true} ({label_of(mistake.type)})" if binary else true
    return (
        f'<figure class="case"><div class="pair"><svg {size} aria-label="picture {number}">'
        f'<image id="picture-{number}" width="{picture.width_px}" height="{picture.height_px}" '
        f'href="{picture.uri}"/></svg>{_overlay_html(number, mistake, picture, explanations)}</div>'
        f"<figcaption><b>{number}. Taken for {predicted}, p = {mistake.probability:.3f}</b><br>"
        f"truth: {truth}, p = {mistake.true_probability:.3f}<br>"
        f"{mistake.magnification}×, patient {escape(mistake.accession)}: "
        f"{_patient_in_words(*wrong_of_images)}<br>"
        f"<code>{escape(PurePath(mistake.image).name)}</code></figcaption></figure>"
    )


def _patient_in_words(wrong: int, images: int) -> str:
    """Return how many of a patient's images are wrong.

    >>> _patient_in_words(1, 1), _patient_in_words(9, 9)
    ('its only image', 'all of its 9 images are wrong')
    >>> _patient_in_words(1, 9)
    '1 of its 9 images is wrong'
    """
    if images == 1:
        return "its only image"
    share = f"all of its {images}" if wrong == images else f"{wrong} of its {images}"
    return f"{share} images {'is' if wrong == 1 else 'are'} wrong"


def _overlay_html(
    number: int, mistake: Mistake, picture: Picture, explanations: Explanations
) -> str:
    if explanations.absence:
        return '<div class="unmapped">no map, see above</div>'
    predicted = label_of(mistake.predicted_class)
    found = explanations.maps.get((mistake.image, mistake.predicted_class))
    if found is None:
        return (
            '<div class="unmapped">No map: for no single model was this among the most confident '
            f"mistakes as {predicted}.</div>"
        )
    if not found.places.any():
        return (
            f'<div class="unmapped">An empty map: no place raised the score of {predicted}.</div>'
        )
    size = f'width="{picture.width_px}" height="{picture.height_px}"'
    label = f"places of picture {number} that raised the score of {predicted}, seed {found.seed}"
    return (
        f'<svg viewBox="0 0 {picture.width_px} {picture.height_px}" role="img" '
        f'aria-label="{label}"><use href="#picture-{number}"/>'
        f'<image {size} preserveAspectRatio="none" href="{map_uri(found.places)}"/>'
        f"<title>{label}</title></svg>"
    )


def _pairs_html(table: pd.DataFrame) -> str:
    pairs = confused_pairs(table)
    if not pairs:
        return "<p>No image is given to a wrong class.</p>"
    shown = "".join(f"<li>{escape(str(pair))}</li>" for pair in pairs[:MAX_PAIRS])
    rest = len(pairs) - MAX_PAIRS
    more = f"<p>{rest} rarer pairs are left out.</p>" if rest > 0 else ""
    return (
        "<p>By the share of the type's images, the highest first. The pictures of a patient go "
        "wrong together, so what counts is the number of patients: a type with two or three of "
        f"them shows what happened to these, not what will happen.</p><ol>{shown}</ol>{more}"
    )


def _hard_html(table: pd.DataFrame, tables_of_trials: Sequence[pd.DataFrame]) -> str:
    noun = "trial" if tables_of_trials else "seed"
    hard = hard_patients(tables_of_trials or tables_by_seed(table))
    items = "".join(f"<li>{escape(patient.in_words(noun))}</li>" for patient in hard.patients)
    return (
        f"<p>{escape(hard.in_words(noun))} A patient is wrong where the mean probability of all "
        "the patient's images is highest for a wrong class.</p>"
        f"{f'<ol>{items}</ol>' if items else ''}"
    )


def _strips_html(table: pd.DataFrame) -> str:
    if is_binary(class_names_of(table)):
        where = (
            "at its probability of malignant: marks of benign patients belong left of the dotted "
            "line (0.5), those of malignant ones right of it"
        )
    else:
        where = (
            "at the probability of its true class: the further right, the better; right of 0.5 no "
            "other class can win"
        )
    return (
        f"<p>A row is a patient, a mark one of the patient's images, {where}. Crosses are images "
        "given to a wrong class. A patient whose marks lie close together is one picture to the "
        "model; one whose marks are spread out depends on the field of view. Point at a mark for "
        "the name of the image.</p>"
        f'<div class="figures single">{figure_html(patient_strips(table), "figure-1")}</div>'
    )
