"""A model card says what the facts hold, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from breakhis_search.comparison.answers import GateAnswer
from breakhis_search.comparison.history import ChampionChange
from breakhis_search.comparison.openings import Opening
from breakhis_search.reporting.guidelines import SECTIONS
from breakhis_search.reporting.model_card import model_card, summary
from breakhis_search.reporting.search_facts import SearchFacts
from breakhis_search.tracking import keys

OPENING = Opening("1", "2026-01-03T10:00:00+00:00", "s", "m", None)
REFUSED = GateAnswer("2", "1", "refused", "2026-01-03T00:00:00+00:00", "p = 0.3 | not better")


def section(card: str, heading: str) -> str:
    """The text of one section."""
    return card.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_card_has_every_section_of_the_guidelines_and_none_is_empty(make_facts):
    card = model_card(make_facts())
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == list(SECTIONS)
    for heading, items in SECTIONS.items():
        first, _, text = section(card, heading).strip().partition("\n\n")
        assert first == f"*{items}*"
        assert len(text) > 40, heading


def test_card_shows_no_nan_and_no_long_number(make_facts):
    card = model_card(make_facts())
    assert not re.search(r"\b(nan|NaN|None|True|False)\b", card)
    assert not re.search(r"\d\.\d{9}", card)
    assert "0.0004421" in card


def test_names_cannot_break_out_of_a_table(make_facts):
    card = model_card(make_facts())
    [row] = [line for line in card.splitlines() if line.startswith("| 0 |")]
    assert r"my\|net\_" in row
    assert r"out of memory \| \<b\>" in section(card, "Search and selection")


def test_every_score_without_a_value_or_interval_has_its_reason(make_facts):
    text = section(model_card(make_facts()), "Scores out-of-fold")
    [vote] = [line for line in text.splitlines() if line.startswith("| AUROC |")]
    mark = re.search(r"– (\([a-z]\)) \|$", vote)
    assert mark
    assert f"{mark[1]} a majority vote is a class, without a probability" in text
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| metric", "| ---")):
            for cell in line.split(" | ")[1:]:
                assert "[" in cell or "(" in cell, line


def test_thresholds_shown_are_those_that_are_packed(make_facts):
    facts = make_facts()
    text = section(model_card(facts), "Decision thresholds")
    for level in ("image", "patient"):
        for rule, words in (("youden", "Youden"), ("sensitivity_95", "95 % sensitivity")):
            locked = facts.thresholds.value(level, rule)
            assert f"| {level} | {words} | {locked:.3f} |" in text
    assert "decides by the rule “Youden”" in text


def test_calibration_says_shift_and_temperature(make_facts):
    text = section(model_card(make_facts()), "Calibration")
    assert "benign +0.250, malignant -0.250" in text
    assert "temperature of 1.500" in text


def test_searched_names_bounds_and_what_was_tried(make_facts):
    text = section(model_card(make_facts()), "Search and selection")
    wanted = "| optimizer/learning_rate | 0.0001 to 0.01, log scale | 0.0004421 (1), 0.001 (1) |"
    assert wanted in text
    assert "| optimizer/weight_decay | 1e-06 to 0.01, log scale | in no trial |" in text
    assert "data/height_px" not in text  # the same in every trial, and not searched
    assert "2 trials of the search (1 complete, 1 failed)" in text


def test_search_of_one_configuration_is_said_to_be_that(make_facts):
    facts = make_facts(config={}, search=SearchFacts({}, None))
    assert "Nothing varied" in section(model_card(facts), "Search and selection")


def test_difference_without_an_interval_says_why(make_facts):
    facts = make_facts()
    loser = facts.selection.assign(trial=3, difference=-0.1, p_holm=0.5, selected=False, tied=False)
    card = model_card(replace(facts, selection=loser))
    assert "| -0.100 (too few patients) | 0.500 | no |" in card


def test_unopened_sealed_test_is_said_and_the_absent_type_named(make_facts):
    card = model_card(make_facts())
    assert "Never opened" in section(card, "Sealed test")
    assert "no sealed patient has: tubular adenoma" in section(card, "Limitations")


def test_opened_sealed_test_shows_its_scores_and_names_absent_types(make_facts, sealed):
    again = replace(OPENING, key="2", when="2026-01-04T10:00:00+00:00", opened_before=1)
    facts = make_facts(sealed=sealed, openings=(OPENING, again), also_opened_for=("1", "4"))
    card = model_card(facts)
    text = section(card, "Sealed test")
    assert "Opened 2 TIMES; only the first opening was blind: 2026-01-03 10:00, 2026-01-04" in text
    assert "The same patients also answered for 1, 4 of this model's versions" in text
    assert "8 images of 4 patients (benign 2, malignant 2)" in text
    assert "### Sealed test: locked thresholds" in text
    limits = section(card, "Limitations")
    assert "no sealed patient has: adenosis" in limits
    assert "few patients, sealed test: 2 benign, 2 malignant" in limits


def test_sealed_test_that_was_cut_off_is_not_hidden(make_facts):
    text = section(model_card(make_facts(openings=(OPENING,))), "Sealed test")
    assert "Opened once" in text
    assert "scoring was cut off" in text


def test_study_without_a_sealed_test_says_why(make_facts):
    tags = {k: v for k, v in make_facts().tags.items() if k != keys.SEALED_DIGEST}
    facts = make_facts(tags={**tags, keys.SEALED_TEST: "only 3 benign patients"})
    assert "There is none (only 3 benign patients)" in section(model_card(facts), "Sealed test")


def test_gate_tells_what_is_asked_and_that_nothing_is_decided(make_facts):
    text = section(model_card(make_facts()), "Gate")
    assert "`image/auroc` ≥ 0.7" in text
    assert "Not decided yet" in text  # version 1's registration is no decision about version 2


def test_gate_tells_refusals_promotions_and_replacements_in_order(make_facts):
    score = {"sealed_test/image/auroc": 0.91234}
    promoted = ChampionChange("2", "1", "promoted", "2026-01-04T00:00:00+00:00", "better", score)
    replaced = ChampionChange("3", "2", "promoted", "2026-01-05T00:00:00+00:00", "even better")
    facts = make_facts(answers=(REFUSED,), history=(promoted, replaced))
    rows = [
        line
        for line in section(model_card(facts), "Gate").splitlines()
        if line.startswith("| 2026")
    ]
    assert [row.split(" | ")[1] for row in rows] == [
        "refused",
        "promoted",
        "replaced by version 3",
    ]
    assert r"p = 0.3 \| not better" in rows[0]
    assert "`sealed_test/image/auroc` 0.912" in rows[1]


def test_limits_name_unseen_magnifications_and_one_seed(make_facts):
    limits = section(model_card(make_facts()), "Limitations")
    assert "no image was taken at: 200X, 400X" in limits
    assert "one seed" in limits
    assert "one laboratory" in limits


def test_intended_use_claims_no_magnification_that_was_not_scored(make_facts):
    text = section(model_card(make_facts()), "Intended use")
    assert "at 40X or 100X." in text
    assert "200X" not in text


def test_demo_is_marked_everywhere(make_facts):
    facts = make_facts()
    demo = replace(facts, version=replace(facts.version, demo=True))
    assert model_card(demo).split("\n\n")[1].startswith("> **SYNTHETIC DEMO DATA.**")
    assert summary(demo).startswith("> **SYNTHETIC DEMO DATA.**")
    assert "BreaKHis (F. A. Spanhol" not in model_card(demo)
    assert "SYNTHETIC" not in model_card(facts)


def test_summary_holds_scores_and_says_where_the_card_is(make_facts, sealed):
    facts = make_facts(sealed=sealed, openings=(OPENING,))
    text = summary(facts)
    value = facts.out_of_fold.intervals.values["image/auroc"]
    assert f"out-of-fold image/auroc {value:.3f} \\[" in text
    assert "sealed test image/auroc" in text
    assert "too few patients for an interval" in text
    assert "opened 1 time\n" in text
    assert keys.ARTIFACT_CARD in text
    assert "challenger" not in text  # an alias moves on; the description would not
    assert text.endswith("Not a medical device.")


def test_stain_weights_and_forced_promotion_are_told(make_facts):
    facts = make_facts()
    forced = replace(facts, version=replace(facts.version, forced=True))
    card = model_card(forced)
    assert "Macenko" in section(card, "The model")
    assert "from a file, sha256 `abc`" in section(card, "The model")
    assert "--force" in section(card, "Limitations")


def test_version_without_calibration_says_so(make_facts, measured):
    bare = replace(measured, calibration=None, points=None)
    card = model_card(make_facts(out_of_fold=bare, calibration=None, thresholds=None))
    assert "Not measured" in section(card, "Calibration")
    assert "Not measured" in section(card, "Decision thresholds")


def test_selection_that_was_not_kept_is_said(make_facts):
    facts = make_facts()
    card = model_card(replace(facts, selection=facts.selection.iloc[:0]))
    assert "The comparison of the finalists was not kept." in card


def test_leak_alarm_stands_in_the_limits(make_facts):
    facts = make_facts(study_tags={keys.LEAK_ALARM: "image/auroc 0.999", keys.OPTIMISM: "0.8"})
    assert "LEAK ALARM: image/auroc 0.999" in section(model_card(facts), "Limitations")


def test_p_value_that_is_known_is_shown(make_facts):
    facts = make_facts()
    other = facts.selection.assign(difference=-0.02, low=-0.1, high=0.05, p_holm=np.float64(0.2))
    assert r"| -0.020 \[-0.100, +0.050\] | 0.200 |" in model_card(replace(facts, selection=other))


def test_hyperparameter_of_an_architecture_of_the_users_own_says_so(make_facts):
    tried = SearchFacts({"TwoBlocks/filters": {"8": 1, "16": 1}}, None)
    text = section(model_card(make_facts(search=tried)), "Search and selection")
    assert "| TwoBlocks/filters | as the architecture's own code declares | 8 (1), 16 (1) |" in text


def test_card_says_up_to_which_decision_it_knows(make_facts):
    assert "knows of decisions until 2026-01-02 05:00 UTC" in model_card(make_facts())
    later = make_facts(answers=(REFUSED,))
    assert "knows of decisions until 2026-01-03 00:00 UTC" in model_card(later)


def test_formulation_is_told_in_words(make_facts):
    facts = make_facts(tags={**make_facts().tags, keys.FORMULATION: "MSM"})
    text = section(model_card(facts), "Who was trained on, who was scored")
    assert "MSM: magnification-specific" in text
    assert "the eight tumour types" in text
