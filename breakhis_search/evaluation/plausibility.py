"""Scores too good to be true: on BreaKHis they have meant a leak, not a discovery.

Where patients are kept apart, published binary image accuracies are 0.83 to 0.93 by magnification
and AUROCs 0.90 to 0.97 (Spanhol et al. 2016; Amato et al. 2023; Priyanka et al. 2026); accuracies
over the eight types are 0.45 to 0.60. Published scores beyond the limits below come from splits by
image, where the pictures of one patient stand on both sides. The limits are those of the design of
this project, section 6 "Anchors of the domain" (``docs/protocols.md`` quotes them).
"""

from __future__ import annotations

from collections.abc import Mapping

from breakhis_search.data.taxonomy import Task

IMPLAUSIBLE_FROM: Mapping[Task, Mapping[str, float]] = {
    "binary": {"image/accuracy": 0.97, "image/auroc": 0.99},
    "multiclass": {"image/accuracy": 0.80},
}
"""Task → metric of :func:`~breakhis_search.evaluation.metrics.compute_metrics` → least score that
a patient-disjoint protocol is not believed to reach."""

MIN_PATIENTS = 30
"""Fewer scored patients, and a lucky draw of easy ones reaches the limits without any leak: of 30
patients told apart with the published 90 %, all are right in 0.9**30 = 4 % of the draws, of 10
patients in 35 %. The full set has 57 development patients."""


def implausible(metrics: Mapping[str, float], task: Task, n_patients: int) -> list[str]:
    """Return a sentence for every score that suggests a leak; none where all is plausible.

    Not for the synthetic demo, whose classes are as easy as they were drawn, nor for protocols
    that leak by definition.

    Args:
        metrics: Out-of-fold metrics by name; those that are absent are passed over.
        task: The task they belong to.
        n_patients: How many patients (accessions) were scored.

    >>> implausible({"image/accuracy": 0.91, "image/auroc": 0.95}, "binary", 57)
    []
    >>> print(*implausible({"image/accuracy": 0.985}, "binary", 57))
    image/accuracy 0.985 is implausible for disjoint patients (0.97 or more): look for a leak
    """
    if n_patients < MIN_PATIENTS:
        return []
    return [
        f"{name} {metrics[name]:.3f} is implausible for disjoint patients ({limit:.2f} or more):"
        " look for a leak"
        for name, limit in IMPLAUSIBLE_FROM[task].items()
        if metrics.get(name, 0.0) >= limit
    ]
