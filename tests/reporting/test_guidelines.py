"""The items that a card names are those that the documentation names."""

from __future__ import annotations

from pathlib import Path

from breakhis_search.reporting.guidelines import (
    CLAIM_TOPICS,
    SECTIONS,
    TRIPOD_AI_TOPICS,
    Items,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "model_card.md"


def test_items_in_words_leave_out_a_guideline_without_any():
    assert str(Items(("3b", "15"), (3,))) == "TRIPOD+AI 3b, 15; CLAIM 3"
    assert str(Items((), (39,))) == "CLAIM 39"


def test_every_item_has_a_topic_and_every_topic_is_used():
    tripod = {item for items in SECTIONS.values() for item in items.tripod_ai}
    claim = {item for items in SECTIONS.values() for item in items.claim}
    assert tripod == set(TRIPOD_AI_TOPICS)
    assert claim == set(CLAIM_TOPICS)


def test_document_shows_the_same_mapping():
    rows = [line[2:-2].split(" | ") for line in DOCUMENT.read_text().splitlines() if "|" in line]
    shown = {row[0]: (row[2], row[3]) for row in rows if row[0] in SECTIONS}
    expected = {
        heading: (
            ", ".join(items.tripod_ai) or "–",
            ", ".join(map(str, items.claim)) or "–",
        )
        for heading, items in SECTIONS.items()
    }
    assert shown == expected
    topics = {row[0]: row[1] for row in rows if len(row) == 2}
    wanted = {f"TRIPOD+AI {k}": v for k, v in TRIPOD_AI_TOPICS.items()}
    wanted |= {f"CLAIM {k}": v for k, v in CLAIM_TOPICS.items()}
    assert {k: v for k, v in topics.items() if k in wanted} == wanted
