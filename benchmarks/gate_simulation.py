"""Simulated studies: how often the gate promotes models that are equal, worse or better.

    python benchmarks/gate_simulation.py                    # everything
    python benchmarks/gate_simulation.py --parts gate --studies 500 --power-studies 100

prints the tables of docs/statistics.md, writes them to benchmarks/results/gate_simulation.json and
draws docs/images/gate_power.png. The same seed gives the same numbers with any number of --jobs.
Single-threaded linear algebra (OPENBLAS_NUM_THREADS=1) is the fastest here.

One simulated study has the patients of BreaKHis (how many, and how many images of each), two
models, the champion and the challenger, and the decision of `breakhis_search.comparison.gate`:

* out-of-fold, on 57 development patients: the challenger is better by the patient-swap test
  (p <= 0.05, one-sided, 999 permutations instead of 10,000);
* on the 13 sealed patients: it is not more than 0.05 of AUROC below the champion.

A score is a sum: class, patient (shared by both models, since hard patients are hard for both, plus
a part of its own for each model), image (likewise), and what differs from seed to seed. All but the
class has variance 1 in total, so the separation of the classes is sqrt(2) times the normal quantile
of the AUROC that is asked for. Shares of the variance: see `Variance`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from breakhis_search.comparison.alignment import Aligned
from breakhis_search.comparison.difference import interval_of_first_two
from breakhis_search.comparison.optimism import optimism_of
from breakhis_search.comparison.permutation import (
    auroc_contributions,
    small_sample_factor,
    swap_tails,
)
from breakhis_search.evaluation.interval_bounds import wilson_bounds
from breakhis_search.evaluation.ranking import area_under_roc, count_by_threshold

# Images of each accession of the binary task, from the list of all 7,909 names by
# breakhis_search.data: `--names FILE` counts them anew and stops if they differ.
DEVELOPMENT = (
    (65, 236, 53, 256, 64, 65, 493, 383, 158, 138, 68, 129, 126),
    (64, 39, 60, 98, 100, 103, 146, 74, 90, 123, 119, 55, 145, 73, 131, 80, 62, 83, 127, 55, 87,
     74, 60, 178, 45, 137, 79, 108, 126, 125, 111, 75, 144, 84, 59, 95, 44, 88, 90, 90, 78, 38,
     90, 65),
)  # fmt: skip
SEALED = ((120, 60, 66), (95, 326, 53, 61, 129, 104, 142, 160, 84, 155))

ALPHA = 0.05
NON_INFERIORITY_MARGIN = 0.05
SENSITIVITY_LOCKED = (
    0.95  # the threshold is locked out-of-fold where it finds these malignant images
)
SENSITIVITY_FLOOR = 0.80  # of the sealed malignant images, in the column "with a floor"
PARTS = ["gate", "robustness", "selection", "interval", "optimism"]
RESULTS = Path(__file__).parent / "results" / "gate_simulation.json"
CHUNK = 100  # studies per task of a worker
Row = dict[str, object]


@dataclass(frozen=True)
class Variance:
    """Where the scores of one class differ.

    Measured on the 325 real images at 100X at hand (17 accessions), out-of-fold scores of logistic
    regressions on frozen MobileNet and DenseNet121 features, rank-normalised, analysis of variance
    within classes: patients hold 0.38-0.48 of it; the two models' patient effects correlate by
    0.65-0.82, their image effects by 0.56-0.61. How much of what is a model's own changes from
    seed to seed is assumed.

    Attributes:
        patients: Share of the variance that lies between patients.
        shared_patients: Share of that which both models have in common.
        shared_images: Share of the rest which both models have in common.
        by_seed: Share of a model's own part that is drawn anew by every seed.
        luck: Standard deviation of the AUROC itself from training to training.
    """

    patients: float = 0.45
    shared_patients: float = 0.8
    shared_images: float = 0.57
    by_seed: float = 0.5
    luck: float = 0.0


@dataclass(frozen=True)
class Cohort:
    """Patients and their images."""

    is_positive: np.ndarray
    patient: np.ndarray
    count: int

    @classmethod
    def of(cls, benign: Sequence[int], malignant: Sequence[int]) -> Cohort:
        images = np.array([*benign, *malignant])
        label = np.repeat([False, True], [len(benign), len(malignant)])
        return cls(np.repeat(label, images), np.repeat(np.arange(len(images)), images), len(images))


@dataclass(frozen=True)
class Point:
    """One setting to simulate."""

    champion: float
    difference: float
    seeds: int
    studies: int
    variance: Variance = Variance()
    note: str = ""
    best_of: tuple[int, int] = (1, 1)
    """Champion and challenger are the best of so many, chosen on the development patients."""
    stretched: bool = True
    """Whether the swaps are stretched by the small-sample factor, as the package does."""


@dataclass(frozen=True)
class Count:
    """What became of the studies of a point."""

    studies: int
    superior: int
    promoted: int
    with_floor: int

    def __add__(self, other: Count) -> Count:
        return Count(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))


def simulate_scores(
    cohort: Cohort,
    aurocs: Sequence[float],
    seeds: int,
    variance: Variance,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return scores, float64 [models, seeds, images], with these AUROCs in the population."""

    def effects(size: int, total: float, shared: float) -> np.ndarray:
        own = total * (1 - shared)
        common = rng.normal(0, np.sqrt(total * shared), (1, 1, size))
        lasting = rng.normal(0, np.sqrt(own * (1 - variance.by_seed)), (len(aurocs), 1, size))
        passing = rng.normal(0, np.sqrt(own * variance.by_seed), (len(aurocs), seeds, size))
        return common + lasting + passing

    reached: np.ndarray = np.array(aurocs)[:, None] + variance.luck * rng.normal(
        size=(len(aurocs), seeds)
    )
    separation = np.sqrt(2) * ndtri(np.clip(reached, 0.01, 0.99))
    scores = separation[:, :, None] * cohort.is_positive
    scores = (
        scores
        + effects(cohort.count, variance.patients, variance.shared_patients)[:, :, cohort.patient]
    )
    noise = effects(len(cohort.patient), 1 - variance.patients, variance.shared_images)
    return np.asarray(scores + noise)


def auroc(cohort: Cohort, scores: np.ndarray) -> float:
    value = area_under_roc(count_by_threshold(cohort.is_positive, scores))
    if value is None:
        raise ValueError("a cohort of one class")
    return value


def simulate_study(
    point: Point, development: Cohort, sealed: Cohort, permutations: int, rng: np.random.Generator
) -> Count:
    """Simulate one study and decide as the gate does."""
    aurocs = (point.champion, point.champion + point.difference)
    champion, challenger = chosen_models(point, development, aurocs, rng)
    contributions = np.mean(
        [
            auroc_contributions(
                development.is_positive, b, a, development.patient, development.count
            )
            for a, b in zip(champion, challenger, strict=True)
        ],
        axis=0,
    )
    factor = (
        small_sample_factor(development.is_positive, development.patient, development.count)
        if point.stretched
        else 1.0
    )
    p = swap_tails(
        contributions, permutations=permutations, rng=rng, swapped=factor * contributions
    ).p_greater
    if p > ALPHA:
        return Count(1, 0, 0, 0)
    old, new = simulate_scores(sealed, aurocs, 1, point.variance, rng)[:, 0]
    passed = auroc(sealed, new) - auroc(sealed, old) >= -NON_INFERIORITY_MARGIN
    malignant = challenger[:, development.is_positive]
    threshold = np.quantile(malignant, 1 - SENSITIVITY_LOCKED, axis=1).mean()
    sensitive = (new[sealed.is_positive] >= threshold).mean() >= SENSITIVITY_FLOOR
    return Count(1, 1, int(passed), int(passed and sensitive))


def chosen_models(
    point: Point, development: Cohort, aurocs: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Return champion and challenger, [2, seeds, images], each the best of its search."""
    sizes = point.best_of
    every = [value for value, size in zip(aurocs, sizes, strict=True) for _ in range(size)]
    scores = simulate_scores(development, every, point.seeds, point.variance, rng)
    if sizes == (1, 1):
        return scores
    reached = [np.mean([auroc(development, seed) for seed in model]) for model in scores]
    first, second = np.argmax(reached[: sizes[0]]), sizes[0] + np.argmax(reached[sizes[0] :])
    return scores[[first, second]]


def simulate_chunk(task: tuple[Point, int, int, np.random.SeedSequence]) -> Count:
    point, studies, permutations, seed = task
    rng = np.random.default_rng(seed)
    development, sealed = Cohort.of(*DEVELOPMENT), Cohort.of(*SEALED)
    counts = [simulate_study(point, development, sealed, permutations, rng) for _ in range(studies)]
    return sum(counts, Count(0, 0, 0, 0))


def simulate_points(
    points: Sequence[Point], permutations: int, seed: int, pool: ProcessPoolExecutor
) -> Iterator[Count]:
    for index, point in enumerate(points):
        chunks = -(-point.studies // CHUNK)
        seeds = np.random.SeedSequence([seed, index]).spawn(chunks)
        sizes = [min(CHUNK, point.studies - k * CHUNK) for k in range(chunks)]
        tasks = [(point, size, permutations, s) for size, s in zip(sizes, seeds, strict=True)]
        yield sum(pool.map(simulate_chunk, tasks), Count(0, 0, 0, 0))


def gate_points(studies: int, power_studies: int) -> list[Point]:
    """Return equal, worse and better challengers; AUROC cannot rise above 1."""
    steps = {0.80: (0.02, 0.05, 0.08, 0.10, 0.12, 0.15), 0.90: (0.02, 0.04, 0.06, 0.08)}
    many = {0.0: studies, -0.10: studies // 3}
    return [
        Point(champion, difference, seeds, many.get(difference, power_studies))
        for seeds in (1, 3)
        for champion, better in steps.items()
        for difference in (-0.10, 0.0, *better)
    ]


def selection_points(studies: int) -> list[Point]:
    """Return equal models that were the best of searches of different sizes."""
    sizes = ((1, 1), (3, 3), (10, 10), (1, 3), (1, 10), (3, 10), (10, 3))
    return [
        Point(0.90, 0.0, 1, studies, note=f"champion best of {a}, challenger best of {b}",
              best_of=(a, b))
        for a, b in sizes
    ]  # fmt: skip


def robustness_points(studies: int, power_studies: int) -> list[Point]:
    """Return other assumptions about what is not known."""
    others = [
        ("patients matter little", Variance(patients=0.2)),
        ("patients matter most", Variance(patients=0.7)),
        ("models have little in common", Variance(shared_patients=0.3, shared_images=0.3)),
    ]
    alike = [
        Point(0.90, d, 1, studies if d == 0 else power_studies, variance, note)
        for note, variance in others
        for d in (0.0, 0.05)
    ]
    lucky = [
        Point(0.90, 0.0, seeds, studies, Variance(luck=luck), f"luck of a training ±{luck:g}")
        for luck in (0.01, 0.02)
        for seeds in (1, 3)
    ]
    bare = [
        Point(
            champion, 0.0, seeds, studies, note="without the small-sample factor", stretched=False
        )
        for champion in (0.80, 0.90)
        for seeds in (1, 3)
    ]
    return alike + lucky + bare


def wilson(hits: int, total: int) -> list[float]:
    return [round(end, 5) for end in wilson_bounds(hits / total, total, 0.95)]


def percent(hits: int, total: int, digits: int = 1) -> str:
    low, high = wilson(hits, total)
    return f"{100 * hits / total:.{digits}f} % [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def print_gate(points: Sequence[Point], counts: Sequence[Count]) -> list[Row]:
    print("\n| champion's AUROC | challenger | seeds | studies | better out-of-fold | promoted"
          " | promoted, with a floor | |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    rows: list[Row] = []
    for point, count in zip(points, counts, strict=True):
        rates = [
            percent(hits, count.studies)
            for hits in (count.superior, count.promoted, count.with_floor)
        ]
        print(
            f"| {point.champion:.2f} | {point.difference:+.2f} | {point.seeds} | {count.studies:,}"
            f" | {' | '.join(rates)} | {point.note} |",
            flush=True,
        )
        rows.append(
            {"champion": point.champion, "difference": point.difference, "seeds": point.seeds}
            | asdict(count)
            | {"promoted_95": wilson(count.promoted, count.studies), "note": point.note}
        )
    return rows


def print_pooled(points: Sequence[Point], counts: Sequence[Count]) -> None:
    """Print the rates over all settings of equal, and of worse challengers."""
    for name, difference in (("equal", 0.0), ("worse by 0.10", -0.10)):
        chosen = [c for p, c in zip(points, counts, strict=True) if p.difference == difference]
        total = sum(chosen, Count(0, 0, 0, 0))
        print(f"\n{name}, all {len(chosen)} settings, {total.studies:,} studies: better"
              f" out-of-fold {percent(total.superior, total.studies)}, promoted"
              f" {percent(total.promoted, total.studies, digits=2)}", flush=True)  # fmt: skip


def aligned_models(
    groups: Sequence[Sequence[int]], aurocs: Sequence[float], rng: np.random.Generator
) -> Aligned:
    """Return simulated models of one seed as the comparison sees them."""
    cohort = Cohort.of(*groups)
    scores = simulate_scores(cohort, aurocs, 1, Variance(), rng)
    malignant = 1 / (1 + np.exp(-scores))
    label = np.repeat([0, 1], [len(part) for part in groups])
    return Aligned(
        y_true=cohort.is_positive.astype(np.int64),
        patient=cohort.patient,
        accessions=tuple(f"p{index:03d}" for index in range(cohort.count)),
        stratum=label,
        class_names=("benign", "malignant"),
        probabilities=tuple(np.stack([1 - malignant, malignant], axis=-1)),
    )


def thinned(benign: int, malignant: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the first patients of each class, with a quarter of their images: it is faster."""
    return tuple(
        tuple(max(5, images // 4) for images in part[:count])
        for part, count in zip(DEVELOPMENT, (benign, malignant), strict=True)
    )  # type: ignore[return-value]


def cover_chunk(task: tuple[int, int, float, float, int, np.random.SeedSequence]) -> int:
    benign, malignant, a, b, studies, seed = task
    rng = np.random.default_rng(seed)
    covered = 0
    for _ in range(studies):
        aligned = aligned_models(thinned(benign, malignant), (a, b), rng)
        interval = interval_of_first_two(
            aligned, "auroc", resamples=2000, level=0.95, seed=int(rng.integers(2**31))
        )
        if interval.low is None or interval.high is None:
            raise ValueError(interval.reason)
        covered += interval.low <= a - b <= interval.high
    return covered


def print_coverage(studies: int, seed: int, pool: ProcessPoolExecutor) -> list[Row]:
    rows: list[Row] = []
    print("\n| patients (benign + malignant) | AUROC of A and B | interval holds the truth |"
          "\n|---|---|---|")  # fmt: skip
    for benign, malignant in ((5, 17), (8, 27), (13, 44)):
        for a, b in ((0.90, 0.90), (0.90, 0.85), (0.95, 0.80)):
            seeds = np.random.SeedSequence([seed, benign, int(100 * b)]).spawn(-(-studies // CHUNK))
            tasks = [(benign, malignant, a, b, CHUNK, s) for s in seeds]
            covered, total = sum(pool.map(cover_chunk, tasks)), CHUNK * len(seeds)
            print(f"| {benign} + {malignant} | {a:.2f}, {b:.2f} | {percent(covered, total)} |",
                  flush=True)  # fmt: skip
            rows.append({"benign": benign, "malignant": malignant, "auroc": [a, b]}
                        | {"studies": total, "covered": covered})  # fmt: skip
    return rows


def optimism_chunk(
    task: tuple[int, int, int, float, int, np.random.SeedSequence],
) -> list[tuple[float, float, float]]:
    benign, malignant, candidates, spread, studies, seed = task
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(studies):
        aurocs = np.clip(0.85 + spread * rng.normal(size=candidates), 0.6, 0.97)
        aligned = aligned_models(thinned(benign, malignant), aurocs.tolist(), rng)
        outcome = optimism_of(aligned, "auroc", resamples=200, seed=int(rng.integers(2**31)))
        scores = [auroc(Cohort.of(*thinned(benign, malignant)), p[0, :, 1])
                  for p in aligned.probabilities]  # fmt: skip
        if outcome.corrected is None:
            raise ValueError(outcome.reason)
        found.append((outcome.raw_best, outcome.corrected, float(aurocs[int(np.argmax(scores))])))
    return found


def print_optimism(studies: int, seed: int, pool: ProcessPoolExecutor) -> list[Row]:
    rows: list[Row] = []
    print("\n| patients (benign + malignant) | candidates | spread of their true AUROC | best score"
          " | true AUROC of the chosen | true optimism | estimated | scatter of one estimate |"
          "\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for benign, malignant in ((2, 8), (5, 17), (13, 44)):
        for candidates, spread in ((10, 0.0), (40, 0.0), (10, 0.03)):
            seeds = np.random.SeedSequence([seed, benign, candidates]).spawn(-(-studies // 20))
            tasks = [(benign, malignant, candidates, spread, 20, s) for s in seeds]
            found = np.array([row for part in pool.map(optimism_chunk, tasks) for row in part])
            raw, corrected, truth = found.mean(axis=0)
            error = (found[:, 1] - found[:, 2]).std(ddof=1)
            mean_error = error / np.sqrt(len(found))
            print(
                f"| {benign} + {malignant} | {candidates} | {spread:g} | {raw:.3f} | {truth:.3f}"
                f" | {raw - truth:+.3f} | {raw - corrected:+.3f} ± {mean_error:.3f}"
                f" | {error:.3f} |",
                flush=True,
            )
            rows.append(
                {"benign": benign, "malignant": malignant, "candidates": candidates}
                | {"spread": spread, "studies": len(found), "raw_best": round(raw, 4)}
                | {"truth": round(truth, 4), "corrected": round(corrected, 4)}
                | {"standard_error": round(mean_error, 4), "scatter": round(error, 4)}
            )
    return rows


def draw_power(points: Sequence[Point], counts: Sequence[Count], file: Path) -> None:
    """Draw the share promoted against the true difference."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.6, 5.4), dpi=130, layout="constrained")
    styles = {0.80: ("#0072B2", "o"), 0.90: ("#D55E00", "s")}  # Okabe & Ito: safe for all eyes
    for champion, (color, marker) in styles.items():
        for seeds, line, fill in ((1, "--", "white"), (3, "-", color)):
            chosen = sorted(
                (p.difference, c.promoted / c.studies, c)
                for p, c in zip(points, counts, strict=True)
                if p.champion == champion and p.seeds == seeds
            )
            x, y = [c[0] for c in chosen], np.array([100 * c[1] for c in chosen])
            ends = 100 * np.array([wilson_bounds(c[1], c[2].studies, 0.95) for c in chosen]).T
            axes.errorbar(
                x, y, yerr=np.abs(ends - y), color=color, linestyle=line, marker=marker,
                markersize=6, markerfacecolor=fill, capsize=3, linewidth=1.8,
                label=f"champion {champion:.2f}, {seeds} seed{'s' if seeds > 1 else ''} per model",
            )  # fmt: skip
    axes.axhline(5, color="#767676", linewidth=1, linestyle=":")
    axes.annotate("5 %: the most that is allowed for an equal model", (0.155, 6.5), ha="right",
                  fontsize=10, color="#444444")  # fmt: skip
    axes.axvline(0, color="#767676", linewidth=1)
    axes.annotate("equal", (0.003, 97), fontsize=10, color="#444444")
    axes.annotate("← challenger is worse", (-0.003, 97), ha="right", fontsize=10, color="#444444")
    axes.annotate("challenger is better →", (0.155, 40), ha="right", fontsize=10, color="#444444")
    axes.set(xlim=(-0.106, 0.158), ylim=(-2, 102))
    axes.set_xlabel("true lead of the challenger over the champion (AUROC)", fontsize=11)
    axes.set_ylabel("simulated studies in which it is promoted (%)", fontsize=11)
    axes.set_title("How often does the gate promote? (57 + 13 patients, as in BreaKHis)\n"
                   "bars: 95 % of the simulation's own uncertainty", fontsize=11)  # fmt: skip
    axes.grid(color="#E5E5E5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(0.01, 0.55), frameon=True, fontsize=10)
    figure.savefig(file)
    print(f"\ndrawn: {file}")


def counted_groups(names: Path) -> tuple[object, object]:
    """Return the images of the development and of the sealed accessions, by class."""
    from breakhis_search.data.catalog import table_from_names
    from breakhis_search.data.cohort import select_cohort
    from breakhis_search.data.splits import choose_sealed_test

    table = table_from_names(names.read_text().split())
    cohort = select_cohort(table, "binary", group_by="accession")
    sealed = cohort["patient"].isin(choose_sealed_test(table).groups)
    groups = cohort.groupby([sealed.rename("sealed"), "y", "patient"]).size()
    development, test = (
        tuple(tuple(int(n) for n in np.asarray(groups[side, label])) for label in (0, 1))
        for side in (False, True)
    )
    return development, test


def main() -> None:
    parser = argparse.ArgumentParser(description="How often does the gate promote?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--names", type=Path, help="list of all file names, to count groups anew")
    parser.add_argument("--studies", type=int, default=6_000, help="of every equal model")
    parser.add_argument("--power-studies", type=int, default=500, help="of every better model")
    parser.add_argument("--permutations", type=int, default=999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--figure", type=Path, default=Path("docs/images/gate_power.png"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.names and counted_groups(options.names) != (DEVELOPMENT, SEALED):
        parser.error(f"{options.names} has other groups than DEVELOPMENT and SEALED in this script")
    with ProcessPoolExecutor(options.jobs) as pool:
        found = {part: simulate_part(part, options, pool) for part in options.parts}
    options.results.parent.mkdir(exist_ok=True)
    told = {key: getattr(options, key) for key in ("studies", "power_studies", "permutations")}
    told |= {"seed": options.seed, "alpha": ALPHA, "margin": NON_INFERIORITY_MARGIN}
    rows = [f'"{part}": [\n  ' + ",\n  ".join(map(json.dumps, found[part])) + "\n]"
            for part in found]  # fmt: skip
    text = "{\n" + ",\n".join([f'"settings": {json.dumps(told)}', *rows]) + "\n}\n"
    options.results.write_text(text)
    print(f"\nwritten: {options.results}")


def simulate_part(part: str, options: argparse.Namespace, pool: ProcessPoolExecutor) -> list[Row]:
    studies, few, seed = options.studies, options.power_studies, options.seed
    if part == "interval":
        return print_coverage(few, seed, pool)
    if part == "optimism":
        return print_optimism(few // 5, seed, pool)
    points = {
        "gate": gate_points(studies, few),
        "robustness": robustness_points(studies // 4, few),
        "selection": selection_points(studies // 6),
    }[part]
    counts = list(simulate_points(points, options.permutations, seed, pool))
    rows = print_gate(points, counts)
    if part == "gate":
        print_pooled(points, counts)
        draw_power(points, counts, options.figure)
    return rows


if __name__ == "__main__":
    main()
