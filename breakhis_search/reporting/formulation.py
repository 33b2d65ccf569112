"""What the letters of a formulation of BreaKHis stand for."""

from __future__ import annotations

_MAGNIFICATION = {
    "I": "magnification-independent (one model for images of all magnifications)",
    "S": "magnification-specific (images of one magnification alone)",
}
_CLASSES = {
    "B": "binary (benign or malignant)",
    "M": "multi-category (the eight tumour types)",
}


def formulation_in_words(letters: str) -> str:
    """Return one of the four formulations, MSB, MIB, MSM or MIM, with what it stands for.

    The names are those of Y. Benhammou et al., Neurocomputing 375, 2020.

    >>> print(formulation_in_words("MIB"))  # doctest: +NORMALIZE_WHITESPACE
    MIB: magnification-independent (one model for images of all magnifications), binary (benign or
    malignant); as Benhammou et al. 2020 call it
    """
    if len(letters) != 3 or letters[1] not in _MAGNIFICATION or letters[2] not in _CLASSES:
        return letters
    words = f"{_MAGNIFICATION[letters[1]]}, {_CLASSES[letters[2]]}"
    return f"{letters}: {words}; as Benhammou et al. 2020 call it"
