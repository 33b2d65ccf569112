"""The predictions table: one row per scored image and seed, the only thing evaluation ever reads.

==================  ========  ======================================================================
column              type      meaning
==================  ========  ======================================================================
``image``           str       path of the image; scored once by each seed
``slide``           str       slide id, such as ``14-22549AB``
``accession``       str       the patient's case, such as ``14-22549``
``magnification``   int       40, 100, 200 or 400
``type``            str       tumour type by its folder name, such as ``ductal_carcinoma``
``fold``            int       the fold this image was held out in
``seed``            int       the repetition that scored it, from 0; a search trial has only 0
``y_true``          int       index of the true class among the classes of this table
``logit_<class>``   float32   one column per class, in class order; finite
==================  ========  ======================================================================

The class names and their order are those of the ``logit_`` columns. Further columns are allowed and
left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from breakhis_search.data.taxonomy import LABELS, TYPE_BY_NAME
from breakhis_search.errors import DataError

IMAGE_COLUMNS: tuple[str, ...] = ("image", "slide", "accession", "magnification", "type")
"""The columns that describe an image; they come from the catalog."""

LOGIT_PREFIX = "logit_"
PROBABILITY_PREFIX = "probability_"


def build_predictions(
    rows: pd.DataFrame,
    *,
    fold: int,
    seed: int = 0,
    y_true: npt.ArrayLike,
    logits: npt.ArrayLike,
    class_names: Sequence[str],
) -> pd.DataFrame:
    """Return the checked predictions table of one scored fold.

    Args:
        rows: One row per image, in the order of ``logits``, with at least :data:`IMAGE_COLUMNS`.
        fold: The fold these images were held out in.
        seed: The repetition that scored them, from 0.
        y_true: Class indices, int [n].
        logits: Scores before the softmax, float [n, K].
        class_names: The K class names in the order of the logits.

    Returns:
        A new table with a fresh index; concatenate the tables of several folds to pool them.

    Raises:
        DataError: The lengths disagree, or :func:`check_predictions` refuses the result.
    """
    labels, scores = np.asarray(y_true), np.asarray(logits, dtype=np.float32)
    _check_columns(rows, IMAGE_COLUMNS)
    _check_shapes(len(rows), labels, scores, len(class_names))
    table = rows.loc[:, list(IMAGE_COLUMNS)].reset_index(drop=True)
    text_columns = ["image", "slide", "accession", "type"]
    table[text_columns] = table[text_columns].astype(str)
    table["magnification"] = table["magnification"].astype(np.int64)
    table["fold"] = np.int64(fold)
    table["seed"] = np.int64(seed)
    table["y_true"] = labels
    for index, name in enumerate(class_names):
        table[LOGIT_PREFIX + name] = scores[:, index]
    check_predictions(table)
    return table


def check_predictions(table: pd.DataFrame) -> None:
    """Raise unless the table keeps every promise of this module.

    Raises:
        DataError: A column is missing, there are no rows, fewer than two classes, a logit that is
            not finite, a ``y_true`` out of range or at odds with ``type``, an image scored twice
            by one seed.
    """
    _check_columns(table, (*IMAGE_COLUMNS, "fold", "seed", "y_true"))
    names = class_names_of(table)
    if table.empty:
        raise DataError("the predictions table is empty", expected="one row per scored image")
    _check_logits(table)
    _check_labels(table["y_true"], len(names))
    _check_types(table, names)
    _check_images_once(table)


def class_names_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the class names of a table in the order of its logits.

    Raises:
        DataError: The table has fewer than two ``logit_`` columns.

    >>> class_names_of(pd.DataFrame(columns=["image", "logit_benign", "logit_malignant"]))
    ('benign', 'malignant')
    """
    names = tuple(
        column.removeprefix(LOGIT_PREFIX)
        for column in table.columns
        if column.startswith(LOGIT_PREFIX)
    )
    if len(names) < 2:
        raise DataError(
            "a predictions table has too few classes",
            expected=f"at least two columns that start with {LOGIT_PREFIX!r}",
            received=f"{len(names)}",
        )
    return names


def is_binary(class_names: Sequence[str]) -> bool:
    """Return whether these are the two classes of the binary task.

    >>> is_binary(["benign", "malignant"]), is_binary(["adenosis", "fibroadenoma"])
    (True, False)
    """
    return tuple(class_names) == LABELS


def logits_of(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Return the logits, float32 [n, K], classes in table order."""
    columns = [LOGIT_PREFIX + name for name in class_names_of(table)]
    return table[columns].to_numpy(dtype=np.float32)


def tables_by_seed(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the table of each seed, in order of the seeds.

    A metric of a configuration is the mean of its metrics over these tables: one table answers for
    one trained model per fold, which is what gets registered. Averaging the logits instead would
    score an ensemble that nobody ships.
    """
    if table["seed"].nunique() == 1:
        return [table]
    return [part for _, part in table.groupby("seed", sort=True)]


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the softmax over the last axis, float64, each row summing to 1.

    >>> softmax([[0.0, 0.0], [1000.0, 0.0]]).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    scores = np.asarray(logits, dtype=np.float64)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def probabilities_of(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the probabilities, float64 [n, K], each row summing to 1."""
    return softmax(logits_of(table))


def by_patient_mean_probability(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per patient: the mean of the probabilities of the patient's images.

    A patient is an (``accession``, ``y_true``) pair: the few accessions that hold tumours of two
    types count once per type.

    Returns:
        Columns ``accession``, ``y_true``, ``images`` (how many were averaged) and one
        ``probability_<class>`` (float64) per class, sorted by accession and class.
    """
    columns = [PROBABILITY_PREFIX + name for name in class_names_of(table)]
    frame = pd.DataFrame(probabilities_of(table), columns=columns)
    frame.insert(0, "accession", table["accession"].to_numpy())
    frame.insert(1, "y_true", table["y_true"].to_numpy())
    groups = frame.groupby(["accession", "y_true"], sort=True)
    patients = groups[columns].mean()
    patients.insert(0, "images", groups.size())
    return patients.reset_index()


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table that passes :func:`check_predictions`; a reader never sees half a file.

    Raises:
        DataError: The table is not a predictions table.
    """
    check_predictions(table)
    unfinished = path.with_name(path.name + ".unfinished")
    table.to_parquet(unfinished, engine="pyarrow", index=False)
    unfinished.replace(path)


def read_parquet(path: Path) -> pd.DataFrame:
    """Return the checked predictions table that :func:`write_parquet` wrote.

    Raises:
        DataError: The file is missing, is not parquet, or holds something else.
    """
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"cannot read predictions from {path}",
            expected="a parquet file written by this package",
            received=str(error),
        ) from error
    check_predictions(table)
    return table


def _check_columns(table: pd.DataFrame, wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise DataError(
            "columns are missing from a predictions table",
            expected=", ".join(wanted),
            received=f"a table without {', '.join(missing)}",
        )


def _check_shapes(
    rows: int, labels: npt.NDArray[np.generic], scores: npt.NDArray[np.float32], classes: int
) -> None:
    if labels.shape != (rows,) or scores.shape != (rows, classes):
        raise DataError(
            "images, labels and logits do not belong together",
            expected=f"y_true [{rows}] and logits [{rows}, {classes}]",
            received=f"y_true {list(labels.shape)} and logits {list(scores.shape)}",
        )


def _check_logits(table: pd.DataFrame) -> None:
    broken = ~np.isfinite(logits_of(table)).all(axis=1)
    if broken.any():
        raise DataError(
            "logits are not finite",
            expected="a number for every image and class",
            received=f"NaN or infinity for {broken.sum()} of {len(table)} images, "
            f"first {table['image'].iloc[int(broken.argmax())]}",
            remedy="treat the training as diverged, for instance by lowering its learning rate",
        )


def _check_labels(labels: pd.Series, classes: int) -> None:
    if not pd.api.types.is_integer_dtype(labels.dtype):
        raise DataError("y_true is not an integer column", received=str(labels.dtype))
    outside = ~labels.between(0, classes - 1)
    if outside.any():
        raise DataError(
            "y_true is out of range",
            expected=f"class indices from 0 to {classes - 1}",
            received=", ".join(map(str, sorted(labels[outside].unique())[:5])),
        )


def _check_types(table: pd.DataFrame, names: tuple[str, ...]) -> None:
    """Raise where the true class is not that of the tumour type: a class order mixed up."""
    for tumor_type, index in table[["type", "y_true"]].drop_duplicates().itertuples(index=False):
        known = TYPE_BY_NAME.get(tumor_type)
        if known is None:
            raise DataError(
                "a tumour type is unknown", expected=", ".join(TYPE_BY_NAME), received=tumor_type
            )
        wanted = known.label if is_binary(names) else known.name
        if names[index] != wanted:
            raise DataError(
                "y_true contradicts the tumour type",
                expected=f"class {wanted!r} for images of type {tumor_type!r}",
                received=f"y_true {index}, which is class {names[index]!r}",
                remedy="give class_names in the order that y_true counts in",
            )


def _check_images_once(table: pd.DataFrame) -> None:
    repeated = table.duplicated(["image", "seed"])
    if repeated.any():
        raise DataError(
            "an image was scored twice",
            expected="every image in exactly one fold, once by each seed",
            received=f"{repeated.sum()} repeated rows, first {table['image'][repeated].iloc[0]}",
        )
