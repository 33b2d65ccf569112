"""``promote``, ``predict`` and ``ui`` in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from breakhis_search.cli import console
from breakhis_search.errors import DataError
from breakhis_search.settings import read_settings


def promote_command(study: str, *, version: str | None, demo: bool, force: bool) -> None:
    """Move the champion alias and say what it replaced."""
    from breakhis_search.comparison.registry import promote
    from breakhis_search.tracking.store import open_store, tracking_errors
    from breakhis_search.workflow.prediction import model_name_of

    settings = read_settings()
    name = model_name_of(study, settings, demo=demo)
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        promoted = promote(client, name=name, version=version, force=force)
    console.out.print(
        f"[bold]{promoted.name} version {promoted.version}[/] is champion now; {promoted.why}."
    )


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
