"""Where a model goes wrong, from predictions tables: images, pairs of classes, patients.

Where several seeds scored an image, the mean of their probabilities speaks for it here: it finds
the images and patients that are hard whatever the seed. Scores are never computed this way, see
:func:`.predictions.tables_by_seed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.errors import DataError
from breakhis_search.evaluation.predictions import (
    IMAGE_COLUMNS,
    PROBABILITY_PREFIX,
    by_patient_mean_probability,
    class_names_of,
    probabilities_of,
)
from breakhis_search.evaluation.resampled_metrics import MIN_PATIENTS
from breakhis_search.wording import counted

GALLERY_IMAGES = 24
IMAGES_PER_PATIENT = 2
"""How many mistakes are shown: as many as one looks through, and none of them a flood of one
patient, whose pictures tend to be wrong together."""


@dataclass(frozen=True)
class Mistake:
    """An image that was given to a wrong class.

    Attributes:
        image: Path of the image.
        accession: Its patient.
        magnification: 40, 100, 200 or 400.
        type: Tumour type by its folder name.
        fold: The fold it was held out in.
        true_class: Name of the true class.
        predicted_class: Name of the most probable class.
        predicted_index: Index of that class among the logits.
        probability: Of the predicted class, in [0, 1].
        true_probability: Of the true class, in [0, 1].
    """

    image: str
    accession: str
    magnification: int
    type: str
    fold: int
    true_class: str
    predicted_class: str
    predicted_index: int
    probability: float
    true_probability: float


@dataclass(frozen=True)
class ConfusedPair:
    """A tumour type and a wrong class that images of it were given to.

    Attributes:
        type: The tumour type by its folder name.
        predicted_class: The wrong class.
        images: Images of the type given to that class.
        of_images: Images of the type.
        patients: Patients with such an image.
        of_patients: Patients of the type.
    """

    type: str
    predicted_class: str
    images: int
    of_images: int
    patients: int
    of_patients: int

    def __str__(self) -> str:
        """What happened in words, with what a small number of patients leaves open.

        >>> print(ConfusedPair("fibroadenoma", "phyllodes_tumor", 12, 63, 3, 7))
        fibroadenoma is taken for phyllodes tumor: 12 of 63 images, from 3 of 7 patients
        """
        words = (
            f"{_spoken(self.type)} is taken for {_spoken(self.predicted_class)}: {self.images:,} "
            f"of {counted(self.of_images, 'image')}, from {self.patients} of "
            f"{counted(self.of_patients, 'patient')}"
        )
        too_few = self.of_patients < MIN_PATIENTS
        return words + (" (too few patients to speak of the type)" if too_few else "")


@dataclass(frozen=True)
class HardPatient:
    """A patient whose mean probability every trial puts into a wrong class.

    Attributes:
        accession: The patient.
        types: Tumour types of the patient's images, by folder name.
        true_class: Name of the true class.
        images: Number of images.
        predicted: How many trials gave the patient to which class, the most frequent first.
        true_probability: Mean over trials of the patient's mean probability of the true class.
    """

    accession: str
    types: tuple[str, ...]
    true_class: str
    images: int
    predicted: tuple[tuple[str, int], ...]
    true_probability: float

    def in_words(self, noun: str = "trial") -> str:
        """Return who it is and what the patient is taken for.

        >>> patient = HardPatient("14-9", ("adenosis",), "benign", 1, (("malignant", 6),), 0.125)
        >>> patient.in_words()
        '14-9 (adenosis, 1 image) is taken for malignant by all 6 trials; mean p(benign) 0.12'
        """
        trials = sum(count for _, count in self.predicted)
        if len(self.predicted) == 1:
            name = _spoken(self.predicted[0][0])
            everyone = f"all {trials} {noun}s" if trials > 1 else f"the one {noun}"
            taken = f"{name} by {everyone}"
        else:
            parts = [f"{_spoken(name)} by {count}" for name, count in self.predicted]
            taken = f"{', '.join(parts)} of {trials} {noun}s"
        types = ", ".join(map(_spoken, self.types))
        return (
            f"{self.accession} ({types}, {counted(self.images, 'image')}) is taken for {taken}; "
            f"mean p({_spoken(self.true_class)}) {self.true_probability:.2f}"
        )


_NAMED = 8
"""So many hard patients are named in a sentence; a table has all of them."""


@dataclass(frozen=True)
class HardPatients:
    """The patients that every trial gets wrong, and out of how many of both.

    Attributes:
        patients: Those patients, the most wrong first.
        of_patients: All patients.
        trials: All trials.
    """

    patients: tuple[HardPatient, ...]
    of_patients: int
    trials: int

    def in_words(self, noun: str = "trial") -> str:
        """Return how many there are, and what that is worth, in sentences.

        >>> HardPatients((), 57, 1).in_words()
        'None of 57 patients is wrong in the one trial. With one trial these are its own mistakes.'
        """
        count = len(self.patients)
        who = f"{count or 'None'} of {counted(self.of_patients, 'patient')}"
        verb = "are" if count > 1 else "is"
        if self.trials == 1:
            return (
                f"{who} {verb} wrong in the one {noun}. With one {noun} these are its own mistakes."
            )
        if not count:
            return (
                f"No patient of {self.of_patients} is wrong in every one of {self.trials} {noun}s."
            )
        return (
            f"{who} {verb} wrong in every one of {self.trials} {noun}s. The {noun}s learned from "
            "the same patients, so that they agree is no independent evidence; look at these "
            f"patients' slides before blaming a model: {self._named()}."
        )

    def _named(self) -> str:
        names = [patient.accession for patient in self.patients[:_NAMED]]
        more = len(self.patients) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")


def mean_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per image: its probabilities averaged over the seeds that scored it.

    Returns:
        The columns that describe an image, ``fold``, ``y_true``, ``y_pred`` (index of the most
        probable class, the first one on a tie) and one ``probability_<class>`` (float64) per class,
        sorted by image.
    """
    columns = [PROBABILITY_PREFIX + name for name in class_names_of(table)]
    facts = [*IMAGE_COLUMNS, "fold", "y_true"]
    probabilities = pd.DataFrame(probabilities_of(table), columns=columns)
    frame = table[facts].reset_index(drop=True).join(probabilities)
    groups = frame.groupby("image", sort=True)
    images = groups[facts[1:]].first().join(groups[columns].mean()).reset_index()
    images["y_pred"] = images[columns].to_numpy().argmax(axis=1)
    return images


def most_confident_mistakes(
    table: pd.DataFrame, *, count: int = GALLERY_IMAGES, per_patient: int = IMAGES_PER_PATIENT
) -> list[Mistake]:
    """Return the wrong images whose wrong class is the most probable, the surest first.

    Args:
        table: Predictions of one or more folds and seeds.
        count: At most so many.
        per_patient: At most so many of one patient.
    """
    images = mean_over_seeds(table)
    probabilities = _probabilities_in(images, class_names_of(table))
    images["probability"] = probabilities.max(axis=1)
    images["true_probability"] = probabilities[np.arange(len(images)), images["y_true"]]
    wrong = images[images["y_pred"] != images["y_true"]]
    ranked = wrong.sort_values(["probability", "image"], ascending=[False, True])
    nth_of_patient = ranked.groupby(["accession", "y_true"]).cumcount()
    chosen = ranked[nth_of_patient < per_patient].head(count)
    return [_mistake_from(row, class_names_of(table)) for row in chosen.to_dict("records")]


def mistakes_of_fold(
    table: pd.DataFrame, *, count: int = GALLERY_IMAGES, per_patient: int = IMAGES_PER_PATIENT
) -> list[Mistake]:
    """Return the mistakes of one trained model that the gallery of all folds may want to show.

    Ask while the model is at hand, to explain them. A patient lies in one fold, so with one seed
    the gallery of all folds shows none but these; with several seeds the mean over them decides
    there, and an image may be shown that was among these for none of them.

    Raises:
        DataError: The table holds more than one fold or seed: no single model scored it.
    """
    models = table[["fold", "seed"]].drop_duplicates()
    if len(models) != 1:
        raise DataError(
            "these predictions are not those of one model",
            expected="one fold and one seed",
            received=f"{len(models)} combinations of both",
            remedy="ask for the mistakes of each fold and seed on its own",
        )
    return most_confident_mistakes(table, count=count, per_patient=per_patient)


def confused_pairs(table: pd.DataFrame) -> list[ConfusedPair]:
    """Return which tumour type is taken for which class, by the share of its images, most first.

    The true side is the type in the binary task too: "ductal carcinoma is taken for benign" tells a
    pathologist more than "malignant is taken for benign".
    """
    names, images = class_names_of(table), mean_over_seeds(table)
    counts = {"images": ("image", "size"), "patients": ("accession", "nunique")}
    of_type = images.groupby("type").agg(**counts)
    wrong = images[images["y_pred"] != images["y_true"]]
    cells = wrong.groupby(["type", "y_pred"]).agg(**counts).reset_index()
    cells = cells.join(of_type.add_suffix("_of_type"), on="type")
    pairs = [
        ConfusedPair(
            type=cell["type"],
            predicted_class=names[cell["y_pred"]],
            images=cell["images"],
            of_images=cell["images_of_type"],
            patients=cell["patients"],
            of_patients=cell["patients_of_type"],
        )
        for cell in cells.to_dict("records")
    ]
    return sorted(pairs, key=lambda p: (-p.images / p.of_images, -p.images, p.type))


def hard_patients(tables_of_trials: Sequence[pd.DataFrame]) -> HardPatients:
    """Return the patients that every trial gets wrong by mean probability.

    A patient is an (accession, class) pair; wrong is whose mean probability, over all images and
    seeds of a trial, is highest for another class (in the binary task: at threshold 0.5).

    Args:
        tables_of_trials: The predictions of each trial, all of the same images.

    Raises:
        DataError: There is no table, or they hold other classes or images.
    """
    _check_comparable(tables_of_trials)
    names = class_names_of(tables_of_trials[0])
    by_trial = [by_patient_mean_probability(table) for table in tables_of_trials]
    patients = by_trial[0][["accession", "y_true"]]  # the same rows in the same order in all
    y_true = patients["y_true"].to_numpy()
    probabilities = np.stack([_probabilities_in(each, names) for each in by_trial])  # [T, P, K]
    predicted = probabilities.argmax(axis=2)
    of_truth = probabilities[:, np.arange(len(y_true)), y_true].mean(axis=0)
    hard = np.flatnonzero((predicted != y_true).all(axis=0))
    images = tables_of_trials[0].drop_duplicates("image")
    found = [
        _hard_patient(
            images[
                (images["accession"] == patients["accession"].iloc[index])
                & (images["y_true"] == y_true[index])
            ],
            [names[k] for k in predicted[:, index]],
            names[y_true[index]],
            float(of_truth[index]),
        )
        for index in hard[np.argsort(of_truth[hard], kind="stable")]
    ]
    return HardPatients(tuple(found), len(patients), len(tables_of_trials))


def _hard_patient(
    images: pd.DataFrame, predicted: list[str], true_class: str, true_probability: float
) -> HardPatient:
    return HardPatient(
        accession=str(images["accession"].iloc[0]),
        types=tuple(sorted(images["type"].unique())),
        true_class=true_class,
        images=len(images),
        predicted=tuple(Counter(predicted).most_common()),
        true_probability=true_probability,
    )


def _mistake_from(row: Mapping[Any, Any], names: Sequence[str]) -> Mistake:
    return Mistake(
        image=row["image"],
        accession=row["accession"],
        magnification=int(row["magnification"]),
        type=row["type"],
        fold=int(row["fold"]),
        true_class=names[row["y_true"]],
        predicted_class=names[row["y_pred"]],
        predicted_index=int(row["y_pred"]),
        probability=float(row["probability"]),
        true_probability=float(row["true_probability"]),
    )


def _probabilities_in(frame: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.float64]:
    return frame[[PROBABILITY_PREFIX + name for name in names]].to_numpy(dtype=np.float64)


def _check_comparable(tables: Sequence[pd.DataFrame]) -> None:
    if not tables:
        raise DataError("no trial to compare", expected="at least one predictions table")
    first = tables[0]
    images = _labelled_images(first)
    for table in tables[1:]:
        if class_names_of(table) != class_names_of(first) or _labelled_images(table) != images:
            raise DataError(
                "these trials did not score the same images",
                expected=f"{len(images):,} images of the classes {class_names_of(first)}",
                received=f"{table['image'].nunique():,} images of {class_names_of(table)}",
                remedy="compare trials of one study only",
            )


def _labelled_images(table: pd.DataFrame) -> set[tuple[str, int]]:
    return set(zip(table["image"], table["y_true"], strict=True))


def _spoken(name: str) -> str:
    return name.replace("_", " ")
