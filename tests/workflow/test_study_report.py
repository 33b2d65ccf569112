"""``report``: one page about a study, made from what its search left in both stores."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal
from breakhis_search.workflow import study_report
from breakhis_search.workflow.study_report import write_report
from tests.browser import NEEDS_CHROMIUM, chromium


@pytest.fixture(scope="module")
def written(searched, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "study.html"
    assert searched.run("report", "--study", "binary", "--demo", "--out", str(out)) == 0
    return out.read_text(), out.with_suffix(".md").read_text()


def test_report_has_every_section_and_asks_the_network_for_nothing(written) -> None:
    page, _ = written
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    for wanted in (
        "The answer",
        "What was searched",
        "How the search went",
        "What mattered",
        "Architectures and sampling strategies side by side",
        "The winner: scores",
        "The winner: curves",
        "The winner: confusion",
        "The winner: by tumour type and magnification",
        "Calibration",
        "Decision thresholds",
        "The winner: patient by patient",
        "The winner: most confident mistakes",
        "What it cost",
        "What was decided",
        "How to do it again",
    ):
        assert wanted in headings
    assert len(re.findall(r'href="#part-\d+"', page)) == len(headings)
    own = page.split("</script>", 1)[1]
    assert not re.search(r'(?:src|href)\s*=\s*"https?:', own)
    assert "default-src 'none'" in page
    assert len(page.encode()) < 15_000_000
    assert page.count("SYNTHETIC DEMO") >= 1


def test_only_records_of_the_study_itself_are_told_as_missing(home) -> None:
    for name in ("one@v1", "two@v1"):
        journal = Journal(home.settings.journal_dir / name)
        tags = {keys.STUDY: name}
        journal.begin(name=name, tags=tags, parent_uid=None, experiment="breakhis-test")
        journal.release()
    [told] = study_report._not_delivered(home.settings, "one@v1")
    assert "not in this report: 1 record of this study." in told
    assert list(study_report._not_delivered(home.settings, "three@v1")) == []


def test_report_says_what_compare_says(written, searched, capsys) -> None:
    page, text = written
    assert searched.run("compare", "--study", "binary-demo") == 0
    assert "is the only finalist" in capsys.readouterr().out
    for told in (page, text):
        assert "is the only finalist" in told
        assert "3 of 3 trials done" in told
        assert "device hours in all" in told
    assert "replay " in text


def test_report_is_kept_with_the_study_in_mlflow(written, searched) -> None:
    client = searched.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    [study] = client.search_runs([experiment.experiment_id], f"tags.`{keys.ROLE}` = 'study'")
    kept = {a.path for a in client.list_artifacts(study.info.run_id, keys.ARTIFACT_REPORT)}
    assert kept == {"report/study.html", "report/study.md"}


def test_report_that_is_asked_for_by_its_markdown_has_both_files(searched, tmp_path) -> None:
    out = tmp_path / "study.md"
    assert searched.run("report", "--study", "binary", "--demo", "--out", str(out)) == 0
    assert out.read_text().startswith("# binary-demo@v1: report")
    assert out.with_suffix(".html").read_text().startswith("<!DOCTYPE html>")


def test_report_of_an_unknown_study_names_the_known_ones(searched, capsys) -> None:
    assert searched.run("report", "--study", "binray") == 1
    assert "expected one of binary-demo@v1" in capsys.readouterr().err


def test_report_has_the_bounds_that_the_study_file_leaves_to_the_code(written) -> None:
    _, text = written
    for row in (
        "| augmentation/strength | 0 to 1 |",
        "| sampling/strategy | none, ",
        "| head/dropout_rate | 0 to 0.6 in steps of 0.05 |",
        "| optimizer/label_smoothing | 0 to 0.15 |",
        "| optimizer/weight_decay | 1e-06 to 0.01, log scale |",
        "| small_cnn/blocks | 2 (pinned) |",
    ):
        assert row in text
    assert "imagenet" not in text, "a small CNN starts from random values"


def test_report_and_card_tell_the_same_bounds(written, searched) -> None:
    version = searched.client.get_model_version_by_alias("breakhis-binary-demo", "champion")
    card = searched.client.download_artifacts(version.run_id, keys.ARTIFACT_CARD)
    row = re.compile(r"^\| (\S+/\S+) \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)
    told = dict(row.findall(Path(card).read_text()))
    assert "augmentation/strength" in told
    for name, bounds in told.items():
        assert f"| {name} | {bounds} |" in written[1]


def test_report_says_what_the_letters_of_its_formulation_stand_for(written) -> None:
    for told in written:
        assert "MIB: magnification-independent" in told
        assert "binary (benign or malignant)" in told


def test_report_says_when_it_was_made(searched, tmp_path) -> None:
    def written_at(name: str) -> str:
        out, made = tmp_path / name, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        write_report("binary-demo", searched.settings, out=out, say=lambda _: None, made=made)
        return out.read_text()

    page = written_at("study.html")
    assert "Made 2026-01-02 03:04 UTC" in page
    assert "report --study binary-demo@v1" in page
    assert page == written_at("study.html"), "the same records at the same time: the same bytes"


@NEEDS_CHROMIUM
def test_report_can_be_read_on_a_desk_a_phone_in_the_dark_and_on_paper(written, tmp_path) -> None:
    file = tmp_path / "study.html"
    file.write_text(written[0])
    with chromium() as browser:
        for width_px, scheme in ((1280, "light"), (390, "dark")):
            page = browser.new_page(
                viewport={"width": width_px, "height": 800}, color_scheme=scheme
            )
            complaints: list[str] = []
            page.on("pageerror", lambda error, told=complaints: told.append(str(error)))
            page.on("requestfailed", lambda asked, told=complaints: told.append(asked.url[:80]))
            page.goto(file.as_uri())
            page.wait_for_selector("svg.main-svg")
            figures = page.locator(".plotly-graph-div").count()
            drawn = page.locator(".plotly-graph-div:has(svg.main-svg)").count()
            assert figures == drawn > 5
            assert not complaints
            # Wide tables and figures scroll by themselves; the page does not.
            assert page.evaluate("document.documentElement.scrollWidth") <= width_px
            paper, ink = (
                page.evaluate(f"getComputedStyle(document.body).{name}")
                for name in ("backgroundColor", "color")
            )
            assert (brightness(paper) < brightness(ink)) == (scheme == "dark")
            page.close()
        page = browser.new_page()
        page.goto(file.as_uri())
        page.wait_for_selector("svg.main-svg")
        assert len(page.pdf(format="A4")) > 100_000


def brightness(color: str) -> float:
    """Mean of the channels of a CSS colour ``rgb(r, g, b)``."""
    channels = [float(number) for number in re.findall(r"[\d.]+", color)[:3]]
    return sum(channels) / 3
