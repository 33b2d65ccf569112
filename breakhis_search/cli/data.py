"""``data``: check, describe, splits, make the demo, download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from breakhis_search.cli import console
from breakhis_search.cli.completion import complete_profile
from breakhis_search.cli.options import Study
from breakhis_search.cli.volume import with_volume
from breakhis_search.errors import BadImagesError
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    from breakhis_search.data.catalog import Catalog
    from breakhis_search.workflow.dataset import DataChoice

data_app = typer.Typer(
    help="Look at the images: check, describe, splits, demo, download.",
    epilog="Example: python -m breakhis_search data check --data BreaKHis_v1",
    no_args_is_help=True,
)

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with BreaKHis_v1 (else BREAKHIS_ROOT, ./data, the demo)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@data_app.command(epilog="Example: python -m breakhis_search data check --data BreaKHis_v1")
@with_volume
def check(data: DataOption = None, as_json: AsJson = False) -> None:
    """Print every problem with its file and a remedy; exit 1 if an image cannot be used."""
    from dataclasses import asdict

    from breakhis_search.workflow.dataset import open_catalog, problems_worth_telling

    catalog, choice = open_catalog(data, read_settings())
    problems = problems_worth_telling(catalog, choice)
    errors = catalog.errors
    if as_json:
        console.print_json(
            {
                "root": str(catalog.root),
                "demo": choice.is_demo,
                "images": len(catalog.table),
                "fingerprint": catalog.fingerprint,
                "is_full_set": catalog.is_full_set,
                "problems": [asdict(p) for p in problems],
            }
        )
    else:
        _print_source(catalog, choice)
        for problem in problems:
            color = "red" if problem.severity == "error" else "yellow"
            console.print_problem(
                color, problem.severity, problem.path, problem.detail, problem.remedy
            )
        notices = len(problems) - len(errors)
        console.tell(
            f"{len(catalog.table)} usable images, {_count(len(errors), 'error')},"
            f" {_count(notices, 'notice')}; fingerprint {catalog.fingerprint[:16]}"
        )
    if errors:
        raise BadImagesError(
            f"{_count(len(errors), 'problem')} in the way of using this data set as it is",
            remedy="mend them, or search with --set data.on_bad_image=skip",
        )
    catalog.require_usable("skip")  # a tree without images has no bad ones either


@data_app.command(epilog="Example: python -m breakhis_search data describe --csv images.csv")
@with_volume
def describe(
    data: DataOption = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table of all images to this file.")
    ] = None,
    accessions: Annotated[
        bool, typer.Option("--accessions", help="List the patients (accessions).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print images, slides and accessions per type and magnification."""
    from breakhis_search.data.catalog import describe as describe_table
    from breakhis_search.workflow.dataset import describe_accessions, open_catalog, write_csv

    catalog, choice = open_catalog(data, read_settings())
    summary = describe_accessions(catalog.table) if accessions else describe_table(catalog.table)
    if csv is not None:
        write_csv(catalog.table, csv)
        console.err.print(f"wrote {len(catalog.table)} rows to {csv}")
    frame = summary.reset_index()
    if as_json:
        console.print_json({"demo": choice.is_demo, "rows": frame.to_dict("records")})
        return
    _print_source(catalog, choice)
    columns = [str(c) for c in frame.columns]
    console.print_table("Images", columns, frame.itertuples(index=False), right=columns[1:])


@data_app.command(epilog="Example: python -m breakhis_search data splits --study binary")
@with_volume
def splits(
    study: Study,
    data: DataOption = None,
    names: Annotated[
        Path | None, typer.Option(help="A list of image names instead of images, one a line.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(autocompletion=complete_profile, help="Profile of the study file."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value: protocol.folds=5.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print who is sealed away, who validates which fold, the digest, and what leaks."""
    from breakhis_search.workflow.split_report import report_split

    if data is not None and names is not None:
        raise typer.BadParameter("--data and --names exclude each other")
    report = report_split(
        study,
        read_settings(),
        data=data,
        names=names,
        profile=profile,
        overrides=overrides or (),
    )
    if as_json:
        console.print_json(report.as_json())
        return
    protocol, split = report.config.protocol, report.split
    if report.is_demo:
        console.print_demo_banner()
    console.say(report.source)
    console.say(f"study {report.config.name}, protocol {protocol.kind}, split {split.digest}")
    console.tell(f"sealed test: {', '.join(report.sealed) or split.sealed.absent_because}")
    for number, accessions in enumerate(report.validated):
        console.tell(f"fold {number} validates: {', '.join(accessions)}")
    for title, frame in (("Accessions", report.patients), ("Images", report.images)):
        columns = ["", *map(str, frame.columns)]
        console.print_table(title, columns, frame.itertuples(), right=columns[1:])
    for note in report.notes:
        console.tell(f"note: {note}")


@data_app.command(epilog="Example: python -m breakhis_search data demo --out demo")
@with_volume
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other images.")] = 0,
    images_per_slide: Annotated[
        int, typer.Option(min=1, max=99, help="Per slide and magnification.")
    ] = 3,
) -> None:
    """Write the synthetic, BreaKHis-shaped demo tree."""
    from breakhis_search.data.demo import DEMO_NOTICE, make_demo

    folder = make_demo(out, seed=seed, images_per_slide=images_per_slide)
    console.out.print(f"{DEMO_NOTICE}\nwritten to {folder}")


@data_app.command(epilog="Example: python -m breakhis_search data download --out data")
@with_volume
def download(
    out: Annotated[Path, typer.Option(help="Folder to unpack into.")] = Path("data"),
    url: Annotated[
        str | None, typer.Option(help="Another place to fetch the archive from.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Digest the archive must have.")] = None,
) -> None:
    """Fetch BreaKHis (4 GB) with resume, verify, unpack and check it."""
    from breakhis_search.workflow.dataset import download_dataset

    catalog = download_dataset(out, read_settings(), url=url, sha256=sha256, say=console.say)
    console.out.print(
        f"{len(catalog.table)} images in {catalog.root}"
        + ("" if catalog.is_full_set else " (not the full set: see `data check`)")
    )


def _print_source(catalog: Catalog, choice: DataChoice) -> None:
    if choice.is_demo:
        console.print_demo_banner()
    console.say(f"{catalog.root} ({choice.source})")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
