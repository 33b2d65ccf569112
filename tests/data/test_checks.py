"""Each kind of problem is found, and nothing else."""

from __future__ import annotations

from typing import get_args

import pandas as pd
import pytest

from breakhis_search.data.catalog import table_from_names
from breakhis_search.data.checks import (
    Problem,
    ProblemKind,
    canonical_path,
    check_counts,
    check_duplicates,
    check_name,
    check_slide_types,
    is_dropping,
    is_full_set,
    make_problem,
)
from breakhis_search.data.taxonomy import parse_image_name

ADENOSIS = "benign/SOB/adenosis/SOB_B_A_14-22549AB/100X/SOB_B_A-14-22549AB-100-001.png"


def make_table(pixels_by_name: dict[str, str]) -> pd.DataFrame:
    """Return a table of names with the given pixel hashes."""
    table = table_from_names(pixels_by_name)
    names = table["path"].str.rsplit("/", n=1).str[-1]
    return table.assign(pixel_sha256=names.map(pixels_by_name))


def slide_folders(paths: list[str]) -> set[str]:
    return {path.rsplit("/", 2)[0] for path in paths}


def full_paths(names: list[str]) -> list[str]:
    return table_from_names(names)["path"].tolist()


def problem_of(path: str) -> Problem:
    problem = check_name(path)
    assert problem is not None
    return problem


@pytest.mark.parametrize("kind", get_args(ProblemKind))
def test_every_kind_has_a_remedy_in_words(kind: ProblemKind) -> None:
    problem = make_problem(kind, "a.png", "detail")
    assert len(problem.remedy.split()) > 2
    assert problem.severity in {"error", "notice"}


def test_image_in_its_place_has_no_problem() -> None:
    assert check_name(ADENOSIS) is None


def test_canonical_path_of_full_list_is_unique(names_7909: list[str]) -> None:
    paths = {canonical_path(name, parse_image_name(name)) for name in names_7909}  # type: ignore[arg-type]
    assert len(paths) == 7909


@pytest.mark.parametrize(
    "name",
    [
        "copy of SOB_B_A-14-22549AB-100-001.png",
        "SOB_B_A-14-22549AB-100-001 (1).png",
        "SOB_B_A-14-22549AB-100-001.PNG",
        "SOB_B_A-14-22549AB-100-001.jpg",
        "SOB_M_A-14-22549AB-100-001.png",  # adenosis is not malignant
        "SOB_B_A-14-22549AB-150-001.png",  # no such magnification
    ],
)
def test_bad_name_is_an_error(name: str) -> None:
    problem = problem_of(f"benign/SOB/adenosis/SOB_B_A_14-22549AB/100X/{name}")
    assert (problem.kind, problem.severity) == ("bad_name", "error")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("/100X/", "/400X/", "100X (name) against 400X (folder)"),
        ("/adenosis/", "/fibroadenoma/", "adenosis (name) against fibroadenoma (folder)"),
        ("benign/", "malignant/", "benign (name) against malignant (folder)"),
        ("_14-22549AB/", "_14-22549CD/", "SOB_B_A_14-22549AB (name) against SOB_B_A_14-22549CD"),
        ("/100X/", "/", "it lies in benign/SOB/adenosis/SOB_B_A_14-22549AB"),
    ],
)
def test_name_against_its_folder_is_an_error_that_says_which(
    right: str, wrong: str, said: str
) -> None:
    problem = problem_of(ADENOSIS.replace(right, wrong))
    assert (problem.kind, problem.severity) == ("contradicts_folder", "error")
    assert said in problem.detail


def test_image_at_the_top_is_an_error_that_says_where_it_belongs() -> None:
    problem = problem_of("SOB_B_A-14-22549AB-100-001.png")
    assert problem.kind == "contradicts_folder"
    assert "expected in benign/SOB/adenosis/SOB_B_A_14-22549AB/100X" in problem.detail


def test_unknown_file_is_a_notice() -> None:
    problem = problem_of("benign/SOB/README.txt")
    assert (problem.kind, problem.severity) == ("unknown_file", "notice")


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._SOB_B_A-14-22549AB-100-001.png", "Thumbs.db", "desktop.ini", "__MACOSX"],
)
def test_what_systems_leave_behind_is_a_dropping(name: str) -> None:
    assert is_dropping(name)


def test_image_is_no_dropping() -> None:
    assert not is_dropping("SOB_B_A-14-22549AB-100-001.png")


def test_identical_pixels_in_two_patients_are_one_notice() -> None:
    table = make_table(
        {
            "SOB_B_A-14-1-100-001.png": "p",
            "SOB_B_F-14-2-100-001.png": "p",
            "SOB_B_A-14-1-100-002.png": "q",
            "SOB_B_F-14-2-100-007.png": "q",
            "SOB_B_F-14-2-100-003.png": "r",
        }
    )
    (problem,) = check_duplicates(table)
    assert (problem.kind, problem.severity) == ("duplicate_pixels", "notice")
    assert problem.detail == (
        "2 pictures stored more than once in slides 14-1, 14-2, such as "
        "SOB_B_A-14-1-100-001.png = SOB_B_F-14-2-100-001.png"
    )
    assert "groups are joined" in problem.remedy


def test_identical_pixels_in_one_slide_are_a_notice() -> None:
    table = make_table({"SOB_B_A-14-1-100-001.png": "p", "SOB_B_A-14-1-100-002.png": "p"})
    (problem,) = check_duplicates(table)
    assert problem.detail.startswith("1 picture stored more than once in slide 14-1, ")


def test_identical_pixels_under_both_labels_are_an_error_for_each() -> None:
    table = make_table({"SOB_B_A-14-1-100-001.png": "p", "SOB_M_DC-14-2-100-001.png": "p"})
    problems = check_duplicates(table)
    assert [(p.kind, p.severity) for p in problems] == [("contradictory_pixels", "error")] * 2
    assert {p.path for p in problems} == set(table["path"])


def test_images_without_pixel_hash_are_no_duplicates(names_7909: list[str]) -> None:
    assert check_duplicates(table_from_names(names_7909)) == ()


def test_slide_filed_under_two_types_is_one_notice_with_the_known_fact() -> None:
    table = make_table(
        {
            "SOB_M_DC-14-13412-100-001.png": "p",
            "SOB_M_LC-14-13412-100-001.png": "p",
            "SOB_M_DC-14-13412-100-002.png": "q",
            "SOB_M_LC-14-13412-100-002.png": "q",
        }
    )
    assert check_duplicates(table) == ()
    (problem,) = check_slide_types(table)
    assert (problem.kind, problem.severity) == ("two_types", "notice")
    assert problem.detail == (
        "slide 14-13412 is filed under ductal_carcinoma and lobular_carcinoma (a known fact of "
        "BreaKHis); 2 pictures are pixel-identical"
    )
    assert "multiclass leaves the slide out, binary keeps one copy" in problem.remedy


def test_full_list_has_one_slide_under_two_types(names_7909: list[str]) -> None:
    (problem,) = check_slide_types(table_from_names(names_7909))
    assert "slide 14-13412 is filed under ductal_carcinoma and lobular" in problem.detail


def test_full_list_has_the_published_counts(names_7909: list[str]) -> None:
    paths = full_paths(names_7909)
    assert is_full_set(slide_folders(paths))
    assert check_counts(paths, slide_folders(paths)) == ()


def test_full_set_that_lacks_an_image_says_expected_and_received(names_7909: list[str]) -> None:
    paths = full_paths(names_7909)
    (problem,) = check_counts([path for path in paths if path != ADENOSIS], slide_folders(paths))
    assert (problem.kind, problem.severity) == ("wrong_count", "error")
    assert problem.path == "benign/SOB/adenosis"
    assert problem.detail == "100X: expected 113 images, received 112"


def test_full_set_with_an_image_too_many_says_so(names_7909: list[str]) -> None:
    paths = full_paths(names_7909)
    added = [*paths, ADENOSIS.replace("-001.png", "-999.png")]
    (problem,) = check_counts(added, slide_folders(paths))
    assert problem.detail == "100X: expected 113 images, received 114"


def test_set_that_lacks_a_slide_is_one_notice_with_counts(names_7909: list[str]) -> None:
    paths = [path for path in full_paths(names_7909) if "SOB_B_A_14-22549AB" not in path]
    (problem,) = check_counts(paths, slide_folders(paths))
    assert (problem.kind, problem.severity, problem.path) == ("partial_set", "notice", ".")
    assert problem.detail == (
        f"partial set: {len(paths):,} of 7,909 images, 81 of 82 slide folders"
    )


def test_slides_of_one_type_do_not_make_up_for_another(names_7909: list[str]) -> None:
    folders = slide_folders(full_paths(names_7909))
    moved = {f for f in folders if "adenosis" not in f}
    moved |= {f"benign/SOB/fibroadenoma/SOB_B_F_99-{i}" for i in range(4)}
    assert len(moved) == 82
    assert not is_full_set(moved)
