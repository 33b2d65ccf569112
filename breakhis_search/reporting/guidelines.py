"""Which items of the reporting guidelines the sections of a model card answer.

Numbers and topics: TRIPOD+AI (G. S. Collins et al., BMJ 385:e078378, 2024, expanded checklist) and
CLAIM, 2024 update (A. S. Tejani et al., Radiology: Artificial Intelligence 6(4):e240300, 2024).
``docs/model_card.md`` shows the same mapping to readers; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TRIPOD_AI_TOPICS: Mapping[str, str] = {
    "3b": "background: target population, intended purpose and users",
    "5a": "sources of data",
    "6a": "setting, number and location of centres",
    "7": "data preparation",
    "8a": "outcome, and how it was assessed",
    "10": "sample size",
    "12a": "how the data were used, partitions",
    "12b": "handling of predictors",
    "12c": "type of model, hyperparameter tuning, internal validation",
    "12e": "measures of performance, comparison of models",
    "13": "class imbalance and recalibration",
    "15": "model output and thresholds",
    "18e": "data sharing",
    "18f": "code sharing",
    "20b": "characteristics of participants",
    "20c": "evaluation data beside development data",
    "21": "participants in each analysis",
    "22": "model specification",
    "23a": "performance with confidence intervals, key subgroups",
    "26": "limitations",
}
"""The items that a card answers, in a few words of our own."""

CLAIM_TOPICS: Mapping[int, str] = {
    3: "background and intended use",
    7: "data sources",
    9: "data pre-processing",
    13: "image acquisition",
    14: "reference standard",
    19: "assignment to partitions",
    20: "level at which partitions are disjoint",
    21: "sample size",
    22: "description of the model",
    23: "software",
    24: "initialisation of parameters",
    25: "training",
    26: "selection of the final model",
    28: "metrics",
    29: "statistical significance and uncertainty",
    32: "evaluation on internal data",
    36: "characteristics of cases in each partition",
    37: "performance with uncertainty",
    38: "diagnostic performance and its precision",
    39: "failure analysis",
    40: "limitations",
    41: "implications for practice",
    42: "full protocol",
    43: "availability of software, model and data",
}
"""The items that a card answers, in a few words of our own."""


@dataclass(frozen=True)
class Items:
    """What a section answers.

    Attributes:
        tripod_ai: Items of TRIPOD+AI; none where it asks for no such thing.
        claim: Items of CLAIM.
    """

    tripod_ai: Sequence[str]
    claim: Sequence[int]

    def __str__(self) -> str:
        """Return such as ``TRIPOD+AI 26; CLAIM 40``."""
        parts = []
        if self.tripod_ai:
            parts.append(f"TRIPOD+AI {', '.join(self.tripod_ai)}")
        if self.claim:
            parts.append(f"CLAIM {', '.join(map(str, self.claim))}")
        return "; ".join(parts)


SECTIONS: Mapping[str, Items] = {
    "Intended use": Items(("3b",), (3, 41)),
    "Data": Items(("5a", "6a", "8a", "20b"), (7, 13, 14, 36)),
    "Who was trained on, who was scored": Items(("10", "12a", "21"), (19, 20, 21)),
    "The model": Items(("7", "12b", "12c", "13", "22"), (9, 22, 24, 25)),
    "Search and selection": Items(("12c", "12e", "21"), (25, 26, 29)),
    "Scores out-of-fold": Items(("12e", "23a"), (28, 29, 32, 37)),
    "By class": Items(("23a",), (38,)),
    "By tumour type and magnification": Items(("23a",), (36, 37)),
    "Calibration": Items(("12e", "13"), (28, 37)),
    "Decision thresholds": Items(("15",), (38,)),
    "Mistakes": Items((), (39,)),
    "Gate": Items(("12e",), (26, 29)),
    "Sealed test": Items(("12a", "20c", "23a"), (32, 36, 37)),
    "Limitations": Items(("26",), (40,)),
    "How to reproduce": Items(("18e", "18f", "22"), (23, 42, 43)),
}
"""The sections of a model card, in their order."""
