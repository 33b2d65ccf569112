"""The real MLflow UI in a real browser: the runs, a ROC curve, the registered model."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from breakhis_search.tracking import keys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Chromium's own background traffic is switched off: the tests talk to this machine only.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def served(searched, tmp_path_factory) -> Iterator[str]:
    """What `breakhis_search ui` prints once its server answers; at the end it is told to end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "breakhis_search", "ui", "--port", str(port)]
    told = tmp_path_factory.mktemp("ui") / "told.txt"
    with (
        told.open("w") as out,
        subprocess.Popen(command, cwd=searched.folder, stdout=out, stderr=out) as server,
    ):
        try:
            wait_for("registered models", told, server)
            yield told.read_text()
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                assert server.wait(30) == 0
            finally:
                server.kill()
    assert "Traceback" not in told.read_text()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)


@pytest.fixture(scope="module")
def address(served) -> str:
    """Where the UI is, as it says itself: it answers there from that moment on."""
    [found] = re.findall(r"MLflow UI on (\S+)", served)
    with urllib.request.urlopen(f"{found}/health", timeout=5):
        return found


def wait_for(words: str, told: Path, server: subprocess.Popen) -> None:
    for _ in range(480):
        assert server.poll() is None, told.read_text()
        if words in told.read_text():
            return
        time.sleep(0.25)
    pytest.fail(f"{words!r} was not said within two minutes")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(45_000)
    yield page
    page.close()


@pytest.fixture(scope="module")
def first_trial(searched):
    client = searched.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    runs = client.search_runs([experiment.experiment_id], f"tags.`{keys.ROLE}` = 'trial'")
    return runs[-1]


def test_the_runs_page_lists_the_study(page, address, first_trial):
    page.goto(f"{address}/#/experiments/{first_trial.info.experiment_id}/runs")
    page.get_by_text("binary-demo@v1").first.wait_for()


def test_a_run_page_shows_its_metrics(page, address, first_trial):
    run = first_trial.info
    page.goto(f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}")
    page.get_by_text("optimizer/learning_rate").first.wait_for()


def test_the_trial_page_draws_the_roc_curve(page, address, first_trial):
    run = first_trial.info
    url = f"{address}/get-artifact?path={keys.ARTIFACT_PAGE}&run_uuid={run.run_id}"
    page.goto(f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts")
    page.get_by_text("figures").first.wait_for()
    html = page.request.get(url).text()
    page.set_content(html)
    page.locator(".js-plotly-plot .scatterlayer .js-line").first.wait_for(state="attached")
    assert page.get_by_text("ROC").count() > 0


def test_the_model_page_shows_the_champion(page, address):
    page.goto(f"{address}/#/models/breakhis-binary-demo")
    page.get_by_text("champion").first.wait_for()


def test_the_links_it_prints_open_the_newest_runs_and_the_models(page, served):
    runs, models = re.findall(r": (http\S+workflowType=machine_learning)", served)
    page.goto(runs)
    page.get_by_text("binary-demo@v1").first.wait_for()
    page.goto(models)
    page.get_by_text("breakhis-binary-demo").first.wait_for()
