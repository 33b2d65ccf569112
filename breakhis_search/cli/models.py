"""``promote``, ``predict`` and ``ui`` in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from breakhis_search.cli import console
from breakhis_search.cli.console import READING
from breakhis_search.cli.exit_codes import ExitCode
from breakhis_search.errors import DataError
from breakhis_search.settings import read_settings
from breakhis_search.wording import counted

if TYPE_CHECKING:
    from breakhis_search.workflow.prediction import Answer
    from breakhis_search.workflow.promotion import PromotionRequest
    from breakhis_search.workflow.serving import ServeRequest

_PROBABILITY = "probability_"
_NO_CLASS = ("image", "label", "explanation")
_SHOWN = 20

_LABEL_NOTE = (
    "label: decided as the model was scored out-of-fold (by the threshold named above, or before"
    " calibration), so it need not be the most probable class"
)


def promote_command(request: PromotionRequest) -> None:
    """Ask the gate, move the champion alias and say what was found."""
    if request.demo:
        console.print_demo_banner()
    with console.at_work("asking the gate"):
        from breakhis_search.workflow.promotion import promote

        outcome = promote(request, read_settings(), console.say)
    who = f"[bold]{outcome.name} version {outcome.version}[/]"
    if request.dry_run:
        passed = outcome.decision.passed
        answer = "is not refused by what is known" if passed else "would be refused"
        console.out.print(f"Dry run: {who} {answer}; nothing was changed.")
    elif outcome.change is None:
        console.out.print(f"{who} is champion and stays so.")
    else:
        before = outcome.change.previous
        replaced = f"it replaces version {before}" if before else "there was none before"
        console.out.print(f"{who} is champion now ({outcome.change.action}); {replaced}.")


def rollback_command(study: str, *, demo: bool) -> None:
    """Move the champion alias back and say to what."""
    if demo:
        console.print_demo_banner()
    with console.at_work(READING):
        from breakhis_search.workflow.promotion import rollback

        name, change = rollback(study, read_settings(), console.say, demo=demo)
    console.out.print(
        f"[bold]{name} version {change.version}[/] is champion again; it replaces version"
        f" {change.previous}."
    )


def history_command(studies: Sequence[str], *, as_json: bool) -> None:
    """Print every recorded move of the champion alias of the studies' registered models."""
    settings = read_settings()
    with console.at_work(READING):
        from breakhis_search.comparison.answers import all_answers
        from breakhis_search.comparison.history import read_history
        from breakhis_search.comparison.leaderboard import registered_names_of
        from breakhis_search.tracking.store import read_store, tracking_errors

        client = read_store(settings)
        with tracking_errors(settings.tracking_uri):
            names = registered_names_of(client, studies)
            histories = {name: read_history(client, name) for name in names}
            answers = {name: all_answers(client, name) for name in names}
    if as_json:
        console.print_json(
            {
                name: {
                    "moves": [asdict(c) for c in changes],
                    "answers": [asdict(a) for a in answers[name]],
                    "demo": name.endswith("-demo"),
                }
                for name, changes in histories.items()
            }
        )
        return
    columns = ["when (UTC)", "version", "before", "action", "scores", "why"]
    for name, changes in histories.items():
        if name.endswith("-demo"):
            console.print_demo_banner()
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
        rows += [
            [a.when.removesuffix("+00:00"), a.version, a.against, a.action, "", a.why]
            for a in answers[name]
        ]
        title = f"Champions of {name}, and what the gate answered without moving one"
        rows.sort(key=lambda row: str(row[0]))
        if rows:
            told = {"spare": ("scores", "before"), "wrapped": ("why", "scores")}
            console.print_table(title, columns, rows, **told)
        if not changes:
            console.out.print(f"{name} never had a champion.")


def predict_command(
    study: str,
    images: Sequence[Path],
    *,
    version: str | None,
    demo: bool,
    as_json: bool,
    out: Path | None,
    explains: bool,
) -> None:
    """Score images; bad ones are named and make the exit code 3, the others are scored."""
    from breakhis_search.workflow.prediction import predict_images

    with console.progress_bar("scoring images", quiet=as_json) as progress:
        answer = predict_images(
            study,
            images,
            read_settings(),
            version=version,
            demo=demo,
            explain_in=_explained(out) if explains else None,
            progress=progress,
        )
    if out is not None:
        _write_table(answer, out)
    if as_json:
        console.print_json(_answer_as_json(answer))
    else:
        _print_answer(answer, out=out)
        if answer.unexplained:
            console.warn(f"no maps: {answer.unexplained}")
        elif explains:
            console.tell(f"{counted(len(answer.table), 'map')} in {_explained(out)}")
        for path, why in answer.bad.items():
            console.warn(f"not scored: {path} ({why})")
    if answer.bad:
        raise typer.Exit(ExitCode.PARTLY)


def _explained(out: Path | None) -> Path:
    """The folder of the maps: beside the table, or here."""
    return Path("explained") if out is None else out.with_name(f"{out.stem}_explained")


def _write_table(answer: Answer, out: Path) -> None:
    """Write all answers as CSV, with what is doubted of each and what was not scored."""
    import pandas as pd

    doubts = ["; ".join(answer.doubts.get(path, ())) for path in answer.table["image"]]
    model = f"{answer.model.name} version {answer.model.version}"
    scored = answer.table.assign(model=model, doubts=doubts, not_scored="")
    bad = pd.DataFrame({"image": list(answer.bad), "not_scored": list(answer.bad.values())})
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        pd.concat([scored, bad], ignore_index=True).to_csv(out, index=False)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({error.strerror})", remedy="name another file with --out"
        ) from error


def _answer_as_json(answer: Answer) -> dict[str, object]:
    return {
        "model": f"{answer.model.name} version {answer.model.version}",
        "demo": answer.model.demo,
        "facts": asdict(answer.model),
        "notice": "not a medical device",
        "predictions": [
            {**record, "doubts": list(answer.doubts.get(record["image"], ()))}
            for record in answer.table.to_dict("records")
        ],
        "bad": answer.bad,
        "unexplained": answer.unexplained,
    }


def _print_answer(answer: Answer, *, out: Path | None = None) -> None:
    if answer.model.demo:
        console.print_demo_banner()
    names = [str(c).removeprefix(_PROBABILITY) for c in answer.table if str(c) not in _NO_CLASS]
    chances = answer.table[[_PROBABILITY + n for n in names]].to_numpy()
    labels = answer.table["label"].tolist()
    if len(names) == 2:
        columns, cells = names, [list(row) for row in chances]
    else:
        columns = ["most probable", "second", "third"]
        best = (-chances).argsort(axis=1, kind="stable")[:, : len(columns)]
        cells = [
            [f"{names[k]} {row[k]:.4f}" for k in ranks]
            for row, ranks in zip(chances, best, strict=True)
        ]
    files = _short_names(answer.table["image"].tolist())
    rows = [[f, label, *c] for f, label, c in zip(files, labels, cells, strict=True)]
    hidden = max(0, len(rows) - _SHOWN) if out is not None else 0
    if hidden:
        rows = rows[:_SHOWN]
    right = names if columns is names else ()
    notes = [_LABEL_NOTE] if labels != [names[k] for k in chances.argmax(axis=1)] else []
    console.print_table(
        answer.model.in_words(), ["image", "label", *columns], rows, right=right, notes=notes
    )
    if out is not None:
        more = f", {hidden} more than here" if hidden else ""
        console.tell(f"{counted(len(files), 'answer')} in {out}{more}")
    for doubt, paths in _by_doubt(answer.doubts).items():
        few = f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else paths[0]
        console.warn(f"{few}: {doubt}")


def _short_names(paths: list[str]) -> list[str]:
    """File names, or whole paths where two files have one name."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else paths


def _by_doubt(doubts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Names of the files, by what is doubted of them."""
    found: dict[str, list[str]] = {}
    for path, reasons in doubts.items():
        for reason in reasons:
            found.setdefault(reason, []).append(Path(path).name)
    return found


def serve_command(request: ServeRequest) -> None:
    """Serve a version over HTTP until Ctrl-C."""
    from breakhis_search.workflow.serving import serve_model

    if request.demo:
        console.print_demo_banner()
    serve_model(request, read_settings(), console.tell)


def ui_command(port: int, dashboard_port: int) -> None:
    """Serve the MLflow UI, and Optuna Dashboard beside it, until Ctrl-C."""
    from breakhis_search.workflow.ui import serve_ui

    serve_ui(read_settings(), port=port, dashboard_port=dashboard_port, say=console.tell)
