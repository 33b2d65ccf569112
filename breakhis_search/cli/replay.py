"""``replay`` in the terminal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from breakhis_search.cli import console
from breakhis_search.cli.exit_codes import ExitCode
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    from breakhis_search.workflow.replay import Replayed


def replay_command(
    named: str | tuple[str, int], *, data: Path | None, weights_dir: Path | None, as_json: bool
) -> None:
    """Train a trial again, named by its run or by study and number; print what is the same."""
    from breakhis_search.workflow.preparation import Watcher
    from breakhis_search.workflow.replay import replay, trial_run

    settings = read_settings()
    run_id = named if isinstance(named, str) else trial_run(*named, settings)
    watcher = Watcher() if as_json else Watcher(say=console.say)
    found = replay(run_id, settings, watcher, data=data, weights_dir=weights_dir)
    if as_json:
        facts = {"is_equal": found.is_equal, "differing": [i.name for i in found.differing]}
        console.print_json({**asdict(found), **facts})
    else:
        _print(found)
    if not found.is_equal:
        raise typer.Exit(ExitCode.PARTLY)


def _print(found: Replayed) -> None:
    # A hundred equal numbers say no more than a few.
    rows = [
        [name, f"{then!r}", f"{now!r}", "" if then == now else f"{now - then:+.2g}"]
        for name, (then, now) in sorted(found.metrics.items())
        if then != now or name in ("image/auroc", "image/balanced_accuracy", "image/nll")
    ]
    columns = ["metric", "then", "now", "difference"]
    title = f"{found.study} trial {found.trial}"
    console.print_table(title, columns, rows, right=columns[1:])
    if found.is_equal:
        console.tell(f"All {len(found.metrics)} metrics are the same, bit by bit.")
    else:
        largest = max(abs(now - then) for then, now in found.metrics.values())
        console.tell(f"Not the same: the largest difference is {largest:.2g}.")
        if found.missing:
            console.tell(f"Only one of the two has: {', '.join(found.missing)}.")
        if not found.is_deterministic:
            console.tell(
                "The study does not ask for deterministic operations"
                " (training.deterministic: true)."
            )
    for ingredient in found.differing:
        console.tell(f"{ingredient.name}: {ingredient.then} then, {ingredient.now} now")
    if not found.differing:
        console.tell(
            "All ingredients are the same: data, split, weights, versions, device, threads."
        )
