"""``promote``, ``predict`` and ``ui`` in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from breakhis_search.cli import console
from breakhis_search.errors import DataError
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    from breakhis_search.workflow.promotion import PromotionRequest


def promote_command(request: PromotionRequest) -> None:
    """Ask the gate, move the champion alias and say what was found."""
    from breakhis_search.workflow.promotion import promote

    outcome = promote(request, read_settings(), console.say)
    for reason in outcome.decision.reasons:
        console.say(f"  {reason}")
    who = f"[bold]{outcome.name} version {outcome.version}[/]"
    if request.dry_run:
        answer = "would go on to be promoted" if outcome.decision.passed else "would be refused"
        console.out.print(f"Dry run: {who} {answer}; nothing was changed.")
    elif outcome.change is None:
        console.out.print(f"{who} is champion and stays so.")
    else:
        before = outcome.change.previous
        replaced = f"it replaces version {before}" if before else "there was none before"
        console.out.print(f"{who} is champion now ({outcome.change.action}); {replaced}.")


def rollback_command(study: str, *, demo: bool) -> None:
    """Move the champion alias back and say to what."""
    from breakhis_search.workflow.promotion import rollback

    name, change = rollback(study, read_settings(), demo=demo)
    console.out.print(
        f"[bold]{name} version {change.version}[/] is champion again; it replaces version"
        f" {change.previous}."
    )


def history_command(studies: Sequence[str], *, as_json: bool) -> None:
    """Print every recorded move of the champion alias of the studies' registered models."""
    from breakhis_search.comparison.history import read_history
    from breakhis_search.comparison.leaderboard import registered_names_of
    from breakhis_search.tracking.store import open_store, tracking_errors

    settings = read_settings()
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        names = registered_names_of(client, studies)
        histories = {name: read_history(client, name) for name in names}
    if as_json:
        console.print_json({name: [asdict(c) for c in h] for name, h in histories.items()})
        return
    columns = ["when (UTC)", "champion", "before", "action", "scores", "why"]
    for name, changes in histories.items():
        rows = [
            [
                change.when.removesuffix("+00:00"),
                change.version,
                change.previous,
                change.action,
                ", ".join(f"{k} {v:.4f}" for k, v in change.scores.items()),
                change.why,
            ]
            for change in changes
        ]
        console.print_table(f"Champions of {name}", columns, rows)
        if not changes:
            console.out.print(f"{name} never had a champion.")


def predict_command(
    study: str, images: Sequence[Path], *, version: str | None, demo: bool, as_json: bool
) -> None:
    """Score images; bad ones are named and make the exit code 1, the others are scored."""
    from breakhis_search.workflow.prediction import predict_images

    answer = predict_images(study, images, read_settings(), version=version, demo=demo)
    records = answer.table.to_dict("records")
    if as_json:
        console.print_json({"model": answer.model, "predictions": records, "bad": answer.bad})
    else:
        columns = [str(c) for c in answer.table.columns]
        shown = [c.removeprefix("probability_") for c in columns]
        rows = [[record[c] for c in columns] for record in records]
        console.print_table(answer.model, shown, rows, right=shown[2:])
    if answer.bad:
        first = next(iter(answer.bad.items()))
        raise DataError(
            f"{len(answer.bad)} of {len(answer.bad) + len(records)} images were not scored,"
            f" such as {first[0]} ({first[1]})",
            expected="8-bit RGB image files",
            remedy="mend or leave them out",
        )


def ui_command(port: int) -> None:
    """Serve the MLflow UI until Ctrl-C."""
    from breakhis_search.workflow.ui import serve_ui

    serve_ui(read_settings(), port=port, say=console.out.print)
