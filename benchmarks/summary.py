"""The table of all figures that `benchmarks/results` holds, beside what was aimed at.

python benchmarks/summary.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
TRACKED = ("optuna_mlflow",)
PARTS = {
    "searched": "until the last trial has ended",
    "tracked": "until all of them are in MLflow with their pages",
    "total": "until a model is registered",
}


def main() -> None:
    """Print the table; what has not been measured is left out."""
    print("| figure | aim | measured |\n|---|---|---|")
    for rows in (searches, overheads, startup, long_study, training_rates):
        for row in rows():
            print(f"| {' | '.join(row)} |")


def _read(name: str) -> Any | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _median(runs: list[dict], key: Callable[[dict], float]) -> float:
    return statistics.median(map(key, runs))


def searches() -> Iterator[tuple[str, str, str]]:
    """Yield trials per hour against the peers, and the time to their best scores."""
    aims = {"r1_64": "≥ 25×", "r1_256": "≥ 80×", "r2_16": "≥ 2×, tracked ≥ 3×", "r3_16": "≥ 2×"}
    for name, aim in aims.items():
        found = _read(f"reference_{name}")
        peers = (found or {}).get("peers")
        if not found or not peers:  # a ratio is of one run, with the peers beside ours
            continue
        search, repetitions = name.partition("_")[0].upper(), len(found["ours"])
        for part, what in PARTS.items():
            if part not in found["ours"][0]:
                continue  # measured before it was recorded
            each = _median(found["ours"], lambda run, part=part: run[part]) / found["trials"]
            told = [f"{label} {seconds_of(peer) / each:.1f}×" for label, peer in _labelled(peers)]
            yield (
                f"{search}, {found['trials']} trials: trials per hour, {what}",
                aim,
                f"{', '.join(told)} ({each:.2f} s a trial; median of {repetitions})",
            )
        yield _best(search, found, peers)
        for label, peer in _labelled(peers):
            if len(peer) > 1:
                seconds = {b: statistics.median(f["seconds"]) for b, f in peer.items()}
                told = ", ".join(f"{b} {value:.1f} s" for b, value in seconds.items())
                yield f"{search}: a trial of {label}", "", told


def _best(search: str, found: dict, peers: dict) -> tuple[str, str, str]:
    """Whether ours is as good, and how soon it is as good as the best of the peers."""
    whole = found.get("whole")
    if whole and len(whole["scores"]) < found["trials"]:
        whole = None  # cut off
    each = [whole] if whole else [f for peer in peers.values() for f in peer.values()]
    best, most = max(max(f["scores"]) for f in each), max(len(f["scores"]) for f in each)
    there = [_first(run["trials"], best) for run in found["ours"]]
    peers_s = found["trials"] * min(map(seconds_of, peers.values()))
    if whole:
        peers_s = seconds_of_whole(whole, peers["keras_tuner"])
    when = (
        "not reached"
        if None in there
        else f"after {statistics.median(there):.0f} s, {statistics.median(there) / peers_s:.3f} of"
        f" the {'same' if whole else 'fastest'} peer's {found['trials']} trials"
    )
    ours = _median(found["ours"], lambda run: run["best"])
    of = f"{most} trials" if whole else f"up to {most} trials with a backbone"
    return (
        f"{search}: best score; when the peers' best is reached",
        "not lower; ≤ 1/10 (R1), ≤ 1/3 (R2)",
        f"{ours:.4f}; peers {best:.4f}, of {of}; {when}",
    )


def seconds_of(peer: dict) -> float:
    """Seconds of a trial of a peer that tries all its backbones alike: the mean of the medians."""
    return statistics.mean(statistics.median(found["seconds"]) for found in peer.values())


def seconds_of_whole(whole: dict, peer: dict) -> float:
    """Seconds of a whole search, each trial taken as long as those of its backbone that were timed.

    A backbone that a search prefers counts as often as it was tried.
    """
    each = {backbone: statistics.median(found["seconds"]) for backbone, found in peer.items()}
    return sum(each[backbone] for backbone in whole["backbones"])


def _labelled(peers: dict) -> list[tuple[str, dict]]:
    """Every peer and what it is called: those that track nothing first."""
    names = sorted(peers, key=lambda name: name in TRACKED)
    return [(f"{name}{' (tracked)' if name in TRACKED else ''}", peers[name]) for name in names]


def _first(trials: list[dict], score: float) -> float | None:
    return next((trial["end"] for trial in trials if trial["score"] >= score), None)


def overheads() -> Iterator[tuple[str, str, str]]:
    """Yield what a trial costs beside its work, how soon it trains, and what a worker holds."""
    for name, where in (("r2_16", "SQLite"), ("r2_16_server", "local server")):
        found = _read(f"reference_{name}")
        if found:
            trials = [trial["seconds"] for run in found["ours"] for trial in run["trials"]]
            beside = [_beside(seconds) for seconds in trials]
            share = statistics.median(
                cost / seconds["total"] for cost, seconds in zip(beside, trials, strict=True)
            )
            yield (
                f"platform overhead of a trial of R2, {where}",
                "≤ 0.7 s, ≤ 5 %",
                (
                    f"{statistics.median(beside):.2f} s, {share:.1%}; its pages, beside the"
                    f" training: {statistics.median(s['figures'] for s in trials):.2f} s"
                ),
            )
    found = _read("reference_r2_16")
    if found:
        known = [trial["seconds"] for run in found["ours"] for trial in run["trials"][3:]]
        ready = [sum(s.get(p, 0.0) for p in ("ask", "build", "trace", "features")) for s in known]
        yield (
            "R2, known graph: from ask to the first step",
            "≤ 1 s",
            f"{statistics.median(ready):.2f} s",
        )
    for name in ("r1_256", "r2_64"):
        found = _read(f"reference_{name}")
        if found:
            memory = [
                run["trials"][49]["memory_mb"] / run["trials"][4]["memory_mb"]
                for run in found["ours"]
            ]
            yield (
                f"{name[:2].upper()}: peak memory after 50 trials ÷ after 5",
                "≤ 1.1",
                (
                    f"{statistics.median(memory):.2f}"
                    f" ({found['ours'][0]['trials'][49]['memory_mb']:.0f} MB)"
                ),
            )


def _beside(seconds: dict[str, float]) -> float:
    """All that is neither training, nor validation, nor the features they start from."""
    work = sum(seconds.get(part, 0.0) for part in ("train", "validate", "features"))
    return seconds["total"] + seconds.get("ask", 0.0) - work


def startup() -> Iterator[tuple[str, str, str]]:
    """Yield what typing a command costs."""
    found = _read("startup")
    if found:
        heavy = [*found["imported_by_import"], *found["imported_by_help"]]
        yield (
            "`--help`; import of the package",
            "≤ 0.4 s; no TensorFlow",
            f"{found['help']:.2f} s, {found['import']:.2f} s; imports {heavy or 'none of it'}",
        )


def long_study() -> Iterator[tuple[str, str, str]]:
    """Yield what a trial costs late in a study."""
    found = _read("long_study")
    if found:
        after = {int(n): values["seconds"] for n, values in found["after"].items()}
        told = ", ".join(f"{n}: {seconds:.2f} s" for n, seconds in sorted(after.items()))
        ratio = after[max(after)] / after[min(after)]
        yield (
            "cost of a trial of R1 by trials before it",
            "flat within 1.5×",
            f"{told} ({ratio:.2f}×)",
        )


def training_rates() -> Iterator[tuple[str, str, str]]:
    """Yield how near epochs come to the rate of a batch that lies ready."""
    for file in sorted(RESULTS.glob("training_rate*.json")):
        found = json.loads(file.read_text())
        for rate in found["rates"]:
            yield (
                (
                    f"{found['architecture']} {found['image_px'][0]}×{found['image_px'][1]},"
                    f" {found['precision']}, batch {rate['batch']} on {found['device']}"
                    f" ({found['backend']}): epochs ÷ ready batch"
                ),
                "≥ 0.97 (CPU), ≥ 0.95 (GPU)",
                (
                    f"{rate['end_to_end_share']:.3f}"
                    f" ({rate['end_to_end_images_per_s']:.0f} images/s)"
                    + (
                        f"; from the host {rate['from_host_share']:.3f}"
                        if "from_host_share" in rate
                        else ""
                    )
                ),
            )


if __name__ == "__main__":
    main()
