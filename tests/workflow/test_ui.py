"""The real MLflow UI in a real browser: the runs, a ROC curve, the registered model."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from breakhis_search.tracking import keys
from tests.browser import NEEDS_CHROMIUM, chromium
from tests.patience import PATIENCE_S, wait_until

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def served(searched, tmp_path_factory) -> Iterator[str]:
    """What `breakhis_search ui` prints once its server answers; at the end it is told to end."""
    port, beside = free_port(), free_port()
    command = [sys.executable, "-m", "breakhis_search", "ui", "--port", str(port)]
    command += ["--dashboard-port", str(beside)]
    told = tmp_path_factory.mktemp("ui") / "told.txt"
    with (
        told.open("w") as out,
        subprocess.Popen(command, cwd=searched.folder, stdout=out, stderr=out) as server,
    ):
        try:
            wait_for("Optuna Dashboard on", told, server)
            yield told.read_text()
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                assert server.wait(PATIENCE_S) == 0
            finally:
                server.kill()
    assert "Traceback" not in told.read_text()
    for ended in (port, beside):
        with pytest.raises(urllib.error.URLError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{ended}/", timeout=1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def address(served) -> str:
    """Where the UI is, as it says itself: it answers there from that moment on."""
    [found] = re.findall(r"MLflow UI on (\S+)", served)
    with urllib.request.urlopen(f"{found}/health", timeout=PATIENCE_S):
        return found


def wait_for(words: str, told: Path, server: subprocess.Popen) -> None:
    def is_said() -> bool:
        assert server.poll() is None, told.read_text()
        return words in told.read_text()

    wait_until(is_said, f"{words!r} was not said")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


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


def test_optuna_dashboard_shows_the_study_beside_it(served, page):
    [address] = re.findall(r"Optuna Dashboard on (\S+)", served)
    page.goto(address)
    page.get_by_text("binary-demo@v1").first.click()
    page.get_by_text("Hyperparameter Importance").first.wait_for()
    page.goto(f"{page.url.rstrip('/')}/trials")
    page.get_by_text("Trial 2").first.wait_for()
