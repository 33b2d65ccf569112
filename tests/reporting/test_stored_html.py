"""What a stored page may bring into a report."""

from __future__ import annotations

import pytest

from breakhis_search.reporting.stored_html import without_scripts


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        ("<p>a &lt;b&gt; c</p>", "<p>a &lt;b&gt; c</p>"),
        ("<script>alert(1)</script>after", "after"),
        ("<SCRIPT src=x></SCRIPT>after", "after"),
        ('<div onload="x()" class="c">a</div>', '<div class="c">a</div>'),
        ('<svg viewBox="0 0 1 1"><image href="data:image/png;base64,AA=="/></svg>', None),
        ('<svg><image href="javascript:x()"/></svg>', "<svg><image/></svg>"),
        ('<img src="https://elsewhere/x.png" alt="a">', '<img alt="a">'),
        ('<iframe srcdoc="<script>x()</script>">b</iframe>c', "c"),
        ('<p style="background: url(https://x)">a</p>', "<p>a</p>"),
        ("<style>.a > b { color: red }</style>", "<style>.a > b { color: red }</style>"),
        ("<a href='#x'>link</a>", "link"),
        ("<scr<script>ipt>alert(1)</script>", None),
    ],
)
def test_pictures_and_texts_stay_and_nothing_that_acts(stored, kept):
    found = without_scripts(stored)
    assert "<script" not in found.lower()
    assert "javascript:" not in found
    if kept is not None:
        assert found == kept


def test_a_gallery_stays_as_it_is(searched_gallery):
    clean = without_scripts(searched_gallery)
    assert clean.count("data:image/") == searched_gallery.count("data:image/") > 0
    assert clean.count("<figure") == searched_gallery.count("<figure")
    assert without_scripts(clean) == clean


@pytest.fixture
def searched_gallery() -> str:
    return (
        '<style>.m { color: red }</style><figure class="m"><svg viewBox="0 0 2 2" role="img"'
        ' aria-label="a"><image id="i" width="2" height="2"'
        ' href="data:image/jpeg;base64,/9j/4AAQ="/><use href="#i"/></svg>'
        "<figcaption>fibroadenoma &amp; 3 &lt; 4</figcaption></figure>"
    )
