"""What BreaKHis is, as plain data: types, classes, file-name grammar and known counts.

Source: F. A. Spanhol, L. S. Oliveira, C. Petitjean, L. Heutte, "A Dataset for Breast Cancer
Histopathological Image Classification", IEEE TBME 63(7), 2016, and the published file list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Task = Literal["binary", "multiclass"]

LABELS: tuple[str, str] = ("benign", "malignant")
"""The two classes of the binary task, in the order of the logits."""

MAGNIFICATIONS: tuple[int, ...] = (40, 100, 200, 400)
"""The objective magnifications (×) every slide was photographed at."""


@dataclass(frozen=True)
class TumorType:
    """One of the eight histological types.

    Attributes:
        code: The short form used in file names, such as ``DC``.
        name: The folder name, such as ``ductal_carcinoma``; the class name everywhere here.
        label: ``benign`` or ``malignant``.
        images: Images in the full set at 40, 100, 200 and 400X.
        slides: Slide folders in the full set.
    """

    code: str
    name: str
    label: str
    images: tuple[int, int, int, int]
    slides: int


TUMOR_TYPES: tuple[TumorType, ...] = (
    TumorType("A", "adenosis", "benign", (114, 113, 111, 106), 4),
    TumorType("F", "fibroadenoma", "benign", (253, 260, 264, 237), 10),
    TumorType("PT", "phyllodes_tumor", "benign", (109, 121, 108, 115), 3),
    TumorType("TA", "tubular_adenoma", "benign", (149, 150, 140, 130), 7),
    TumorType("DC", "ductal_carcinoma", "malignant", (864, 903, 896, 788), 38),
    TumorType("LC", "lobular_carcinoma", "malignant", (156, 170, 163, 137), 5),
    TumorType("MC", "mucinous_carcinoma", "malignant", (205, 222, 196, 169), 9),
    TumorType("PC", "papillary_carcinoma", "malignant", (145, 142, 135, 138), 6),
)
"""All types in the order of the multiclass logits, with the counts of the full set."""

TYPE_BY_CODE: dict[str, TumorType] = {t.code: t for t in TUMOR_TYPES}
TYPE_BY_NAME: dict[str, TumorType] = {t.name: t for t in TUMOR_TYPES}

FULL_SET_IMAGES = sum(sum(t.images) for t in TUMOR_TYPES)  # 7,909
FULL_SET_SLIDE_FOLDERS = sum(t.slides for t in TUMOR_TYPES)  # 82

_NAME = re.compile(
    r"SOB_(?P<label>[BM])_(?P<type>A|F|PT|TA|DC|LC|MC|PC)-(?P<year>\d{2})-(?P<slide>\d+[A-Z]*)"
    r"-(?P<magnification>40|100|200|400)-(?P<sequence>\d{3})\.png"
)


@dataclass(frozen=True)
class ImageName:
    """The facts a BreaKHis file name states.

    Attributes:
        type: The tumour type.
        slide: Slide id, such as ``14-22549AB``.
        accession: The patient's case: the slide id without its trailing letters (``14-22549``).
        magnification: 40, 100, 200 or 400.
        sequence: Number of the field of view on that slide.
    """

    type: TumorType
    slide: str
    accession: str
    magnification: int
    sequence: int


def parse_image_name(name: str) -> ImageName | None:
    """Return what a file name states, or ``None`` if it is not a BreaKHis name.

    >>> image = parse_image_name("SOB_B_A-14-22549AB-100-001.png")
    >>> image.type.name, image.slide, image.accession, image.magnification
    ('adenosis', '14-22549AB', '14-22549', 100)
    >>> parse_image_name("SOB_M_A-14-22549AB-100-001.png") is None  # adenosis is benign
    True
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    tumor_type = TYPE_BY_CODE[match["type"]]
    if tumor_type.label[0].upper() != match["label"]:
        return None
    return ImageName(
        type=tumor_type,
        slide=f"{match['year']}-{match['slide']}",
        accession=f"{match['year']}-{match['slide'].rstrip('ABCDEFGHIJKLMNOPQRSTUVWXYZ')}",
        magnification=int(match["magnification"]),
        sequence=int(match["sequence"]),
    )


def formulation(task: Task, magnification: int | None) -> str:
    """Return which of the four reformulations of BreaKHis a study is, as the literature calls them.

    Magnification-specific or -independent, binary or multi-category: MSB, MIB, MSM, MIM
    (Y. Benhammou, B. Achchab, F. Herrera, S. Tabik, "BreakHis based breast cancer automatic
    diagnosis using deep learning: Taxonomy, survey and insights", Neurocomputing 375, 2020).

    Args:
        task: The task.
        magnification: The one magnification of the study, or ``None`` for all.

    >>> formulation("binary", 100), formulation("multiclass", None)
    ('MSB', 'MIM')
    """
    return f"M{'I' if magnification is None else 'S'}{'B' if task == 'binary' else 'M'}"


def class_names(task: Task) -> tuple[str, ...]:
    """Return the class names of a task in the order of its logits.

    >>> class_names("binary")
    ('benign', 'malignant')
    """
    return LABELS if task == "binary" else tuple(t.name for t in TUMOR_TYPES)
