"""How a training epoch draws its images: one strategy per trial, training folds only.

Every strategy gives a stream of row indices, a whole number of full batches per epoch (a partial
last batch would retrace the compiled step), and one weight per class. Focal loss changes the loss
alone and is listed here because corrections for imbalance must never be stacked.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from breakhis_search.data.draws import Draw, IntArray, TrainingRows, load_draw
from breakhis_search.errors import ConfigError
from breakhis_search.own_code import is_own_name

STRATEGIES: tuple[str, ...] = (
    "none",
    "class_weights",
    "oversample",
    "undersample",
    "class_balanced_batches",
    "patient_balanced",
    "focal",
)
CLASS_WEIGHTINGS: tuple[str, ...] = ("inverse", "sqrt_inverse", "effective_number")

EFFECTIVE_NUMBER_BETA = 0.999
"""β of Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019."""

_BALANCED: frozenset[str] = frozenset(
    {"oversample", "undersample", "class_balanced_batches", "patient_balanced"}
)
"""Strategies whose stream draws every class that is there equally often."""

FloatArray = npt.NDArray[np.float64]

_PRIOR_EPOCHS = 32
"""Of a strategy of the user's own, drawn to see which classes it shows how often. Of 1,000 images
an epoch, the share of a class is then known to ± 0.3 % (one standard deviation)."""


def class_weights(y: IntArray, n_classes: int, weighting: str) -> npt.NDArray[np.float32]:
    """Return one loss weight per class, float32 [n_classes], with mean 1 over the images.

    Args:
        y: Class index of each training image, int64 [n].
        n_classes: Number of classes; a class without images gets weight 0.
        weighting: ``inverse`` frequency, its square root, or ``effective_number``.

    >>> class_weights(np.array([0, 0, 0, 1]), 2, "inverse").astype(float).round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.bincount(y, minlength=n_classes).astype(np.float64)
    present = counts > 0
    raw = np.zeros(n_classes)
    if weighting == "inverse":
        raw[present] = 1.0 / counts[present]
    elif weighting == "sqrt_inverse":
        raw[present] = 1.0 / np.sqrt(counts[present])
    elif weighting == "effective_number":
        beta = EFFECTIVE_NUMBER_BETA
        raw[present] = (1.0 - beta) / (1.0 - beta ** counts[present])
    else:
        raise ConfigError(
            "sampling/class_weighting is not known",
            expected=" | ".join(CLASS_WEIGHTINGS),
            received=repr(weighting),
        )
    weights: npt.NDArray[np.float32] = (raw * counts.sum() / (raw * counts).sum()).astype(
        np.float32
    )
    return weights


def epoch_stream(
    rows: TrainingRows, strategy: str, *, batch_size: int, rng: np.random.Generator
) -> Iterator[IntArray]:
    """Yield, epoch by epoch and without end, the row indices to train on.

    Each epoch is int64 [steps * batch_size]: the number of steps is that of the plain training set
    (of the balanced subset for ``undersample``), at least one; epochs are filled up by drawing on.

    Args:
        rows: The training images.
        strategy: One of :data:`STRATEGIES`, or ``module:function`` of a :class:`.draws.Draw`.
        batch_size: Images per step.
        rng: Source of all randomness.

    Raises:
        ConfigError: The strategy is not known.
        TrialFailure: One of the user's own cannot draw from these rows.
    """
    draw = _draw_of(strategy)
    length = _epoch_length(rows, strategy, batch_size)
    while True:
        parts: list[IntArray] = []
        while sum(map(len, parts)) < length:
            parts.append(draw(rows, length, rng))
        yield np.concatenate(parts)[:length]


def effective_prior(
    rows: TrainingRows, strategy: str, n_classes: int, class_weighting: str | None = None
) -> FloatArray:
    """Return the class prior that a model trained with a strategy sees, float64 [n_classes], sum 1.

    ============================  ==================================================================
    ``none``                      the natural share of images n_k / n
    ``class_weights``             ∝ n_k · w_k: a weight in the loss is a repetition of the image
    the four balanced strategies  uniform over the classes that are there: the expected share of
                                  :func:`epoch_stream`, also where an epoch ends inside a draw
    ``focal``                     natural: the loss bends confidence with no closed form in the
                                  prior, and the temperature is left to straighten it
    ``module:function``           of the user's own: the share of its draws, of 32 epochs
    ============================  ==================================================================

    ``patient_balanced`` also changes which images speak for a class. That is no shift of the
    prior: no constant on the logits can undo it, and it is left to the temperature too.

    Args:
        rows: The training images, at least one.
        strategy: One of :data:`STRATEGIES`, or ``module:function``.
        n_classes: K; a class without images gets 0.
        class_weighting: One of :data:`CLASS_WEIGHTINGS`, for ``class_weights`` alone.

    Raises:
        ConfigError: The strategy or the weighting is not known.

    >>> names = np.array(["a"] * 4)
    >>> rows = TrainingRows(np.array([0, 0, 0, 1]), names, names)
    >>> effective_prior(rows, "none", 3).tolist(), effective_prior(rows, "oversample", 3).tolist()
    ([0.75, 0.25, 0.0], [0.5, 0.5, 0.0])
    """
    _check_strategy(strategy)
    mass = np.bincount(rows.y, minlength=n_classes).astype(np.float64)
    if strategy == "class_weights":
        mass *= class_weights(rows.y, n_classes, str(class_weighting))
    elif strategy in _BALANCED:
        mass = np.sign(mass)
    elif is_own_name(strategy):
        stream = epoch_stream(rows, strategy, batch_size=1, rng=np.random.default_rng(0))
        drawn = np.concatenate([next(stream) for _ in range(_PRIOR_EPOCHS)])
        mass = np.bincount(rows.y[drawn], minlength=n_classes).astype(np.float64)
    return np.asarray(mass / mass.sum())


def prior_correction(
    rows: TrainingRows, strategy: str, n_classes: int, class_weighting: str | None = None
) -> FloatArray:
    """Return what to add to logits to undo a strategy's shift of the prior, float64 [n_classes].

    It is log(natural prior) − log(effective prior): by Bayes' rule a model trained on p'(k) answers
    p'(k|x) ∝ p(x|k) p'(k), so the logits of the natural prior p(k) differ by the log ratio (M.
    Saerens, P. Latinne, C. Decaestecker, Neural Computation 14(1), 2002). Zero for
    ``none`` and ``focal``, and for a class without images, of which nothing is known.

    Arguments and errors are those of :func:`effective_prior`. Give the rows that the registered
    model is fitted to: a strategy that balances classes fully has the same effective prior in every
    fold, so that the same correction is right for the out-of-fold logits.

    >>> names = np.array(["a"] * 4)
    >>> rows = TrainingRows(np.array([0, 0, 0, 1]), names, names)
    >>> prior_correction(rows, "oversample", 2).round(3).tolist()  # ln(0.75/0.5), ln(0.25/0.5)
    [0.405, -0.693]
    """
    natural = effective_prior(rows, "none", n_classes)
    seen = effective_prior(rows, strategy, n_classes, class_weighting)
    ratio = np.divide(natural, seen, out=np.ones(n_classes), where=seen > 0)
    return np.asarray(np.log(ratio))


def steps_per_epoch(rows: TrainingRows, strategy: str, batch_size: int) -> int:
    """Return the number of batches in an epoch of :func:`epoch_stream`."""
    return _epoch_length(rows, strategy, batch_size) // batch_size


def _draw_of(strategy: str) -> Draw:
    _check_strategy(strategy)
    if is_own_name(strategy):
        return load_draw(strategy)
    ours: dict[str, Draw] = {
        "oversample": _oversample,
        "undersample": _undersample,
        "class_balanced_batches": _class_balanced,
        "patient_balanced": _patient_balanced,
    }
    return ours.get(strategy, _permute)


def _check_strategy(strategy: str) -> None:
    if strategy not in STRATEGIES and not is_own_name(strategy):
        raise ConfigError(
            "sampling/strategy is not known",
            expected=" | ".join((*STRATEGIES, "module:function")),
            received=repr(strategy),
        )


def _epoch_length(rows: TrainingRows, strategy: str, batch_size: int) -> int:
    n = len(rows.y)
    if strategy == "undersample":
        counts = np.bincount(rows.y)
        present = counts[counts > 0]
        n = int(present.min() * len(present))
    return max(1, round(n / batch_size)) * batch_size


def _permute(rows: TrainingRows, _: int, rng: np.random.Generator) -> IntArray:
    return rng.permutation(len(rows.y))


def _oversample(rows: TrainingRows, _: int, rng: np.random.Generator) -> IntArray:
    """Every image once, and rare classes drawn again up to the size of the largest."""
    members = _members(rows.y)
    largest = max(map(len, members))
    extra = [m[rng.integers(len(m), size=largest - len(m))] for m in members]
    return rng.permutation(np.concatenate([*members, *extra]))


def _undersample(rows: TrainingRows, _: int, rng: np.random.Generator) -> IntArray:
    """As many images of every class as the rarest has, chosen anew each epoch."""
    members = _members(rows.y)
    smallest = min(map(len, members))
    return rng.permutation(
        np.concatenate([rng.choice(m, size=smallest, replace=False) for m in members])
    )


def _class_balanced(rows: TrainingRows, length: int, rng: np.random.Generator) -> IntArray:
    """Classes in turn, so that every batch holds each of them equally often (± 1)."""
    members = _members(rows.y)
    turns = np.concatenate(
        [rng.permutation(len(members)) for _ in range(-(-length // len(members)))]
    )
    draws = [_endless(m, int((turns == c).sum()), rng) for c, m in enumerate(members)]
    order = np.empty(len(turns), dtype=np.int64)
    for c, drawn in enumerate(draws):
        order[turns == c] = drawn
    return order


def _patient_balanced(rows: TrainingRows, length: int, rng: np.random.Generator) -> IntArray:
    """Class, then type, then patient, then image: each level uniformly.

    Slides hold from 38 to 235 images; drawing by image lets a few patients speak for a type.
    """
    chosen = np.empty(length, dtype=np.int64)
    tree = _patient_tree(rows)
    for i, c in enumerate(rng.integers(len(tree), size=length)):
        patients = tree[c][rng.integers(len(tree[c]))]
        images = patients[rng.integers(len(patients))]
        chosen[i] = images[rng.integers(len(images))]
    return chosen


def _patient_tree(rows: TrainingRows) -> list[list[list[IntArray]]]:
    """Row indices nested as class → type → patient."""
    tree: list[list[list[IntArray]]] = []
    for c in np.unique(rows.y):
        types = []
        for t in np.unique(rows.types[rows.y == c]):
            mask = (rows.y == c) & (rows.types == t)
            types.append(
                [np.flatnonzero(mask & (rows.groups == g)) for g in np.unique(rows.groups[mask])]
            )
        tree.append(types)
    return tree


def _members(y: IntArray) -> list[IntArray]:
    return [np.flatnonzero(y == c) for c in np.unique(y)]


def _endless(members: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """``count`` members, each used equally often (± 1), in random order."""
    rounds = -(-count // len(members)) if count else 0
    if not rounds:
        return members[:0]
    return np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count]
