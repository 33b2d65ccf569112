"""What a stored page may bring into a report."""

from __future__ import annotations

import pytest

from breakhis_search.evaluation.document import document
from breakhis_search.evaluation.mistakes_pictures import map_gradient
from breakhis_search.reporting.stored_html import without_scripts
from tests.browser import NEEDS_CHROMIUM, chromium


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
        ("<style>body { display: none }</style>a", "a"),
        ("<svg><style><img src=x onerror='x()'></style></svg>", "<svg></svg>"),
        ('<p style="position: fixed">a</p>', "<p>a</p>"),
        ('<p style="p\\6fsition:fixed;inset:0">a</p>', "<p>a</p>"),
        ('<p style="margin-top:-5000px;height:5000px;background:#fff">a</p>', "<p>a</p>"),
        ('<p style="transform:translateY(-3000px)">a</p>', "<p>a</p>"),
        ('<p style="background:u\\72l(https://x)">a</p>', "<p>a</p>"),
        (f'<span style="background:{map_gradient()}"></span>', None),
        ("<a href='#x'>link</a>", "link"),
        ("<scr<script>ipt>alert(1)</script>", None),
    ],
)
def test_pictures_and_texts_stay_and_nothing_that_acts(stored, kept):
    found = without_scripts(stored)
    assert "<script" not in found.lower()
    assert "javascript:" not in found
    assert ("style=" in found) == ("linear-gradient" in stored)
    if kept is not None:
        assert found == kept


ATTACKS = (
    "<script>window.ran=1</script>",
    '<svg><style><img src=x onerror="window.ran=1"></style></svg>',
    '<svg><title><img src=x onerror="window.ran=1"></title></svg>',
    "<p><svg><p><style><img src=x onerror=window.ran=1>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.ran=1>",
    '<code><!--<img src="--><img src=x onerror=window.ran=1>">',
    "<style>body { display: none }</style>",
)


@NEEDS_CHROMIUM
def test_nothing_of_it_runs_or_hides_the_page_in_a_browser(tmp_path):
    file = tmp_path / "page.html"
    with chromium() as browser:
        page = browser.new_page()
        for attack in ATTACKS:
            file.write_text(document("page", f"<h1>head</h1>{without_scripts(attack)}"))
            page.goto(file.as_uri())
            page.wait_for_timeout(100)
            assert page.evaluate("window.ran") is None, attack
            assert page.locator("h1").is_visible(), attack


def test_a_gallery_stays_as_it_is(searched_gallery):
    clean = without_scripts(searched_gallery)
    assert clean.count("data:image/") == searched_gallery.count("data:image/") > 0
    assert clean.count("<figure") == searched_gallery.count("<figure")
    assert without_scripts(clean) == clean
    assert "<style" not in clean


@pytest.fixture
def searched_gallery() -> str:
    return (
        '<style>.m { color: red }</style><figure class="m"><svg viewBox="0 0 2 2" role="img"'
        ' aria-label="a"><image id="i" width="2" height="2"'
        ' href="data:image/jpeg;base64,/9j/4AAQ="/><use href="#i"/></svg>'
        "<figcaption>fibroadenoma &amp; 3 &lt; 4</figcaption></figure>"
    )
