"""How often an interval of nominal 95 % holds the truth, by number of patients: a simulation.

A study is made of patients who hold images: the score of an image is the class's mean, plus an
effect of the patient, plus noise. Half of the variance is the patient's. How many images a patient
has is drawn from the 70 accessions of BreaKHis. The truth is known: by formula where there is one,
else from a population of 20,000 patients. Draws and intervals are those of the package.

    python benchmarks/interval_coverage.py             # the tables of docs/statistics.md
    python benchmarks/interval_coverage.py --studies 50   # a quick look

Prints Markdown and writes benchmarks/results/interval_coverage.json. The same seed gives the same
numbers with any number of --jobs. Single-threaded linear algebra (OPENBLAS_NUM_THREADS=1) is the
fastest here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from breakhis_search.evaluation.interval_bounds import (
    expanded_percentile_bounds,
    logit_bounds,
    wilson_bounds,
)
from breakhis_search.evaluation.intervals import (
    Basis,
    Interval,
    groups_needed,
    method_of,
    metric_interval,
)
from breakhis_search.evaluation.pairwise import FloatArray, IntArray, pairwise_wins
from breakhis_search.evaluation.resampled_metrics import (
    average_precisions,
    decision_values,
    draw_weights,
    strata_of,
)
from breakhis_search.evaluation.samples import Sample

LEVEL, RESAMPLES = 0.95, 2000
PATIENTS = ((3, 10), (5, 17), (7, 24), (10, 34), (15, 51), (24, 81))  # benign, malignant
AUROCS = (0.80, 0.95)
CHUNK = 25  # studies per task of a worker
RESULTS = Path(__file__).parent / "results" / "interval_coverage.json"
CLASSES = ("benign", "malignant")

# fmt: off
IMAGES_OF_ACCESSIONS = np.array([
    38, 39, 44, 45, 53, 53, 55, 55, 59, 60, 60, 60, 61, 62, 64, 64, 65, 65, 65, 66, 68, 73, 74, 74,
    75, 78, 79, 80, 83, 84, 84, 87, 88, 90, 90, 90, 90, 95, 95, 98, 100, 103, 104, 108, 111, 119,
    120, 125, 126, 126, 127, 129, 129, 131, 137, 138, 142, 144, 145, 146, 155, 158, 160, 178, 236,
    246, 256, 326, 383, 493,
])
# fmt: on
"""Images of the 70 accessions of BreaKHis, counted from its 7,909 file names."""

METRICS = (
    "image/auroc",
    "image/average_precision",
    "image/accuracy",
    "image/balanced_accuracy",
    "image/recall_benign",
    "image/brier",
    "patient/auroc",
    "patient/balanced_accuracy",
    "patient/accuracy",
    "patient/recall_benign",
    "patient/recognition_rate",
)
CANDIDATES = ("plain percentile", "expanded percentile", "logit t", "as used")
NAIVE = "image/accuracy, images drawn as if independent"


@dataclass(frozen=True)
class Study:
    """Scores of the images of a number of patients.

    Attributes:
        y_true: Class of each patient, int [P].
        owner: Patient of each image, int [n].
        probability: Of *malignant*, float64 [n].
    """

    y_true: IntArray
    owner: IntArray
    probability: FloatArray

    @property
    def image_truth(self) -> IntArray:
        return self.y_true[self.owner]

    def by_patient(self, values: FloatArray) -> FloatArray:
        return np.bincount(self.owner, values) / np.bincount(self.owner)


@dataclass
class Tally:
    """What became of one kind of interval."""

    held: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    absent: int = 0

    def add(self, bounds: tuple[float, float] | None, truth: float) -> None:
        if bounds is None:
            self.absent += 1
            return
        self.held.append(bounds[0] - 1e-9 <= truth <= bounds[1] + 1e-9)
        self.widths.append(bounds[1] - bounds[0])

    def take(self, other: Tally) -> None:
        self.held += other.held
        self.widths += other.widths
        self.absent += other.absent

    @property
    def coverage(self) -> float:
        return float(np.mean(self.held)) if self.held else float("nan")


def simulate(
    rng: np.random.Generator, benign: int, malignant: int, auroc: float, patient_share: float
) -> Study:
    """Return a study whose images have this AUROC; a share of the variance is the patients'."""
    y_true = np.repeat([0, 1], [benign, malignant])
    owner = np.repeat(np.arange(len(y_true)), rng.choice(IMAGES_OF_ACCESSIONS, len(y_true)))
    effect = np.sqrt(patient_share) * rng.normal(size=len(y_true))
    noise = np.sqrt(1 - patient_share) * rng.normal(size=len(owner))
    score = separation(auroc) * (y_true - 0.5)[owner] + effect[owner] + noise
    return Study(y_true, owner, 1 / (1 + np.exp(-3 * score)))


def separation(auroc: float) -> float:
    """Return the distance of two unit normals with this AUROC: Φ(distance / √2)."""
    return float(np.sqrt(2) * stats.norm.ppf(auroc))


def truths(benign: int, malignant: int, auroc: float, patient_share: float) -> dict[str, float]:
    """Return the true values in a population with the classes of the study."""
    population = simulate(np.random.default_rng(0), 10_000, 10_000, auroc, patient_share)
    weight = np.array([benign, malignant])
    truth, p = population.image_truth, population.probability
    by_patient = population.by_patient(p)
    right = (by_patient > 0.5) == population.y_true
    recalls = np.array([right[population.y_true == index].mean() for index in (0, 1)])
    recall = float(stats.norm.cdf(separation(auroc) / 2))  # equal for both classes, by symmetry
    return {
        "image/auroc": auroc,
        "image/average_precision": average_precision_score(truth, p, sample_weight=weight[truth]),
        "image/accuracy": recall,
        "image/balanced_accuracy": recall,
        "image/recall_benign": recall,
        "image/brier": float(np.average((p - truth) ** 2, weights=weight[truth])),
        "patient/auroc": roc_auc_score(population.y_true, by_patient),
        "patient/balanced_accuracy": float(recalls.mean()),
        "patient/accuracy": float(np.average(recalls, weights=weight)),
        "patient/recall_benign": float(recalls[0]),
        "patient/recognition_rate": recall,
    }


def samples_of(study: Study) -> tuple[Sample, Sample]:
    """Return the images and the patients of a study."""
    accessions = np.arange(len(study.y_true)).astype(object)
    by_patient = study.by_patient(study.probability)
    return tuple(  # type: ignore[return-value]
        Sample(truth, np.column_stack([1 - p, p]), CLASSES, accession)
        for truth, p, accession in (
            (study.image_truth, study.probability, accessions[study.owner]),
            (study.y_true, by_patient, accessions),
        )
    )


def values_of(study: Study, weights: FloatArray) -> dict[str, FloatArray]:
    """Return the metrics of every weighting of the patients, each [B]."""
    images, patients = samples_of(study)
    n_patients = len(study.y_true)
    values = {}
    for level, sample, owner in (
        ("image", images, study.owner),
        ("patient", patients, np.arange(n_patients)),
    ):
        decided = decision_values(sample.decisions, owner, weights)
        for metric in ("accuracy", "balanced_accuracy", "recall_benign"):
            values[f"{level}/{metric}"] = decided[metric]
        ranking = pairwise_wins(sample.y_true == 1, sample.probabilities[:, 1], owner, n_patients)
        values[f"{level}/auroc"] = ranking.auroc(weights)
    p, truth = study.probability, study.image_truth
    values["image/average_precision"] = average_precisions(truth == 1, p, study.owner, weights)
    sizes = np.bincount(study.owner)
    errors = study.by_patient((p - truth) ** 2) * sizes
    values["image/brier"] = (weights @ errors) / (weights @ sizes)
    shares = study.by_patient(((p > 0.5) == truth).astype(float))
    values["patient/recognition_rate"] = weights @ shares / n_patients
    return values


def basis_of(study: Study) -> dict[str, Basis]:
    images, patients = samples_of(study)
    counts = dict(zip(CLASSES, np.bincount(study.y_true).tolist(), strict=True))
    bases = {}
    for level, sample in (("image", images), ("patient", patients)):
        right = sample.y_pred == sample.y_true
        recalls = {n: float(right[sample.y_true == i].mean()) for i, n in enumerate(CLASSES)}
        bases[level] = Basis(counts, recalls)
    return bases


def intervals_of(
    study: Study, rng: np.random.Generator
) -> Iterator[tuple[str, str, tuple[float, float] | None]]:
    """Yield (metric, candidate, its ends or ``None``) of one study."""
    patients = pd.DataFrame({"accession": np.arange(len(study.y_true)), "y_true": study.y_true})
    drawn = draw_weights(strata_of(patients), RESAMPLES, rng)
    values = values_of(study, np.vstack([np.ones(len(study.y_true)), drawn]))
    bases = basis_of(study)
    for metric in METRICS:
        value, draws = float(values[metric][0]), values[metric][1:]
        basis = bases[metric.partition("/")[0]]
        used = metric_interval(metric, value, draws, basis, level=LEVEL)
        yield metric, "as used", (used.low, used.high) if isinstance(used, Interval) else None
        defined = draws[~np.isnan(draws)]
        n = min(groups_needed(metric, basis.patients).values())
        flat = np.ptp(defined) < 1e-12
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        yield metric, "plain percentile", None if flat else (float(low), float(high))
        expanded = expanded_percentile_bounds(defined, n, LEVEL)
        yield metric, "expanded percentile", None if flat else expanded
        inside = not flat and 0 < value < 1
        yield metric, "logit t", logit_bounds(value, defined, n, LEVEL) if inside else None
    accuracy = float(values["image/accuracy"][0])
    yield NAIVE, "as used", wilson_bounds(accuracy, len(study.owner), LEVEL)


Tallies = dict[tuple[str, str], Tally]
Cell = tuple[int, int, float, float]


def tally_chunk(task: tuple[Cell, dict[str, float], int, np.random.SeedSequence]) -> Tallies:
    cell, known, studies, seed = task
    rng = np.random.default_rng(seed)
    tallies: Tallies = defaultdict(Tally)
    for _ in range(studies):
        study = simulate(rng, *cell)
        for metric, candidate, bounds in intervals_of(study, rng):
            tallies[metric, candidate].add(bounds, known[metric])
    return dict(tallies)


def measure(cell: Cell, studies: int, seed: int, pool: ProcessPoolExecutor) -> Tallies:
    """Return the tally of every metric and candidate over simulated studies."""
    known = truths(*cell)
    known[NAIVE] = known["image/accuracy"]
    benign, malignant, auroc, _ = cell
    seeds = np.random.SeedSequence([seed, benign, malignant, round(1000 * auroc)]).spawn(
        -(-studies // CHUNK)
    )
    sizes = [min(CHUNK, studies - k * CHUNK) for k in range(len(seeds))]
    tasks = [(cell, known, size, s) for size, s in zip(sizes, seeds, strict=True)]
    tallies: Tallies = defaultdict(Tally)
    for part in pool.map(tally_chunk, tasks):
        for key, tally in part.items():
            tallies[key].take(tally)
    return tallies


def print_coverage(auroc: float, found: dict[str, Tallies]) -> None:
    """Print the coverage as used, and that of a plain percentile interval, by patients."""
    print(f"\n#### Image AUROC {auroc:.2f}: coverage as used (plain percentile)\n")
    print("| metric | method | " + " | ".join(found) + " |")
    print("|---|---|" + "---|" * len(found))
    for metric in METRICS:
        cells = []
        for tallies in found.values():
            used, plain = tallies[metric, "as used"], tallies[metric, "plain percentile"]
            share = used.absent / (used.absent + len(used.held))
            mark = "" if share < 0.005 or not used.held else f", {share:.0%} none"
            main = f"**{used.coverage:.2f}**" if used.held else "none"
            cells.append(f"{main} ({plain.coverage:.2f}){mark}")
        print(f"| `{metric}` | {method_of(metric)} | " + " | ".join(cells) + " |")
    naive = [f"{tallies[NAIVE, 'as used'].coverage:.2f}" for tallies in found.values()]
    print(f"| {NAIVE} | Wilson | " + " | ".join(naive) + " |")


def print_candidates(auroc: float, patients: str, tallies: Tallies) -> None:
    """Print coverage and median width of every candidate for one number of patients."""
    print(f"\n#### Candidates, image AUROC {auroc:.2f}, {patients}: coverage (median width)\n")
    print("| metric | " + " | ".join(CANDIDATES) + " |")
    print("|---|" + "---|" * len(CANDIDATES))
    for metric in METRICS:
        cells = [
            f"{tally.coverage:.2f} ({np.median(tally.widths):.2f})" if tally.held else "none"
            for tally in (tallies[metric, candidate] for candidate in CANDIDATES)
        ]
        print(f"| `{metric}` | " + " | ".join(cells) + " |")


COLUMNS = [
    *("benign", "malignant", "auroc", "metric", "interval", "studies", "without"),
    *("coverage", "median_width"),  # none where no study has an interval
]


def rows_of(cell: Cell, tallies: Tallies) -> list[list[object]]:
    """Return coverage and median width of everything in one cell, for the file of results."""
    rows: list[list[object]] = []
    for (metric, candidate), tally in sorted(tallies.items()):
        found: list[object] = [None, None]
        if tally.held:
            found = [round(tally.coverage, 4), round(float(np.median(tally.widths)), 4)]
        rows.append([*cell[:3], metric, candidate, len(tally.held), tally.absent, *found])
    return rows


def write(file: Path, settings: dict[str, object], rows: Sequence[list[object]]) -> None:
    file.parent.mkdir(exist_ok=True)
    lines = ",\n".join(map(json.dumps, rows))
    head = f'"settings": {json.dumps(settings)},\n"columns": {json.dumps(COLUMNS)}'
    file.write_text(f'{{{head},\n"rows": [\n{lines}\n]}}\n')
    print(f"\nwritten: {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=300, help="simulated studies per cell")
    parser.add_argument("--patient-share", type=float, default=0.5, help="of the variance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    start = time.perf_counter()
    rows: list[list[object]] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for auroc in AUROCS:
            found = {}
            for benign, malignant in PATIENTS:
                cell = (benign, malignant, auroc, options.patient_share)
                tallies = measure(cell, options.studies, options.seed, pool)
                found[f"{benign} benign / {malignant}"] = tallies
                rows += rows_of(cell, tallies)
            print_coverage(auroc, found)
            for patients in (list(found)[1], list(found)[-1]):
                print_candidates(auroc, patients, found[patients])
    error = np.sqrt(0.95 * 0.05 / options.studies)
    print(f"\n{options.studies} studies a cell (standard error of a coverage of 0.95: {error:.3f})")
    print(f"{RESAMPLES} draws a study, {time.perf_counter() - start:.0f} s in all")
    settings = {"studies": options.studies, "patient_share": options.patient_share}
    write(options.results, settings | {"seed": options.seed, "resamples": RESAMPLES}, rows)


if __name__ == "__main__":
    main()
