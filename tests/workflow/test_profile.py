"""``compare --profile``: where the time of a study went."""

from __future__ import annotations

import json

import pytest


def test_every_run_says_where_its_seconds_went(searched, capsys):
    assert searched.run("compare", "--study", "binary-demo", "--profile", "--json") == 0
    [(name, runs)] = json.loads(capsys.readouterr().out).items()
    assert name == "binary-demo@v1"
    assert [run["role"] for run in runs] == [*["trial"] * 3, "finalist", "refit"]
    assert [(run["import"] > 0, run["data"] > 0) for run in runs[:2]] == [
        (True, True),
        (False, False),
    ]
    for run in runs[:3]:
        assert run["train"] > 0
        assert run["ask"] > 0
        assert run["logging"] > 0
        assert run["checkpoint"] > 0
        assert run["pages (beside)"] > 0
        assert run["other"] < 0.5 * sum(v for v in run.values() if isinstance(v, float))
    assert runs[4]["verify"] > 0


def test_the_table_adds_up_and_the_page_shows_all_runs(searched, capsys):
    assert searched.run("compare", "--study", "binary-demo", "--profile") == 0
    told = capsys.readouterr().out
    assert "seconds of the trials, of one (median) and of all" in told
    assert "beside the search: finalist" in told
    page = (searched.settings.state_dir / "profile.html").read_text()
    assert '"type":"bar"' in page
    assert page.count('"finalist trial 00') >= 1
    assert "http://" not in page.split("</script>")[-1]


@pytest.mark.parametrize("option", ["--profile"])
def test_a_study_that_is_not_there_has_no_profile(home, capsys, option):
    assert home.run("compare", "--study", "nothing", option) == 1
    assert "error: " in capsys.readouterr().err
