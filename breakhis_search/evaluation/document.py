"""The frame of every HTML page: one style, plotly.js embedded, nothing asked of the network.

The content security policy forbids the page to load anything, and the same input gives the same
bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape, unescape
from typing import NamedTuple

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from breakhis_search.evaluation.style import FONT_FAMILY, REFERENCE_COLOR, TEXT_COLOR

_STYLE = f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: {TEXT_COLOR}; --faint: #595959;
  --rule: #ddd; --line: #e5e5e5; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #16181c; --ink: #e4e4e4; --faint: #a8a8a8;
  --rule: #444; --line: #33363c; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 1240px; padding: 16px; background: var(--paper);
  color: var(--ink);
  font: 15px/1.5 {FONT_FAMILY}; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .3rem; border-top: 1px solid var(--rule);
  padding-top: 1rem; }}
p {{ margin: .3rem 0 .8rem; max-width: 75ch; }}
.note {{ color: var(--faint); }}
.absent {{ border-left: 3px solid {REFERENCE_COLOR}; padding-left: .7rem; }}
.table {{ overflow-x: auto; margin: .5rem 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }}
th:first-child, .facts td {{ text-align: left; }}
thead th {{ vertical-align: bottom; }}
tbody th {{ font-weight: 400; }}
.facts th {{ color: var(--faint); white-space: nowrap; }}
.facts td {{ overflow-wrap: anywhere; }}
code {{ overflow-wrap: anywhere; font-size: .85em; }}
.interval {{ color: var(--faint); white-space: nowrap; font-size: .85em; }}
.level {{ font-weight: 400; color: var(--faint); }}
.levels {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; max-width: 105ch;
  margin: .5rem 0 1rem; }}
.levels dt {{ font-family: ui-monospace, monospace; font-size: .85em; line-height: 1.8; }}
.levels dd {{ margin: 0; }}
@media (max-width: 640px) {{ .levels {{ display: block; }} .levels dd {{ margin: 0 0 .5rem; }} }}
.scores th, .scores td {{ text-align: left; }}
.after-2-counts :is(th, td):is(:nth-child(2), :nth-child(3)) {{ text-align: right; }}
sup {{ line-height: 0; }}
:is(.scores, .heat) th:first-child {{ position: sticky; left: 0; background: var(--paper); }}
.heat td {{ padding: .3rem .7rem; border: 2px solid var(--paper); min-width: 7rem; }}
.heat thead th {{ padding-right: .7rem; }}
.heat b {{ display: block; font-weight: 600; line-height: 1.5rem; }}
.heat i {{ display: block; font-style: normal; font-size: .85rem; line-height: 1.15rem; }}
.heat small {{ display: block; color: var(--ink); white-space: nowrap; font-size: .75rem;
  line-height: 1rem; }}
.heat tbody th {{ padding: .3rem .3rem .3rem 0; border: 0; }}
.heat tbody th div {{ display: flex; justify-content: space-between; gap: 1.5rem; }}
.heat .legend {{ text-align: right; white-space: nowrap; color: var(--faint); font-size: .85rem; }}
.heat .legend b {{ font-weight: 400; }}
@media (max-width: 640px) {{ .heat .legend {{ display: none; }} }}
.figures {{ display: grid; gap: 16px 24px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); }}
.figures.single {{ grid-template-columns: 100%; }}
.figures > div {{ min-width: 0; background: #fff; border-radius: 6px; }}
.figures.wide {{ overflow-x: auto; }}
.figures.wide > div {{ min-width: 760px; }}
nav {{ margin: 1rem 0; line-height: 1.9; }} nav a {{ margin-right: 1rem; color: inherit; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85em; }}
@media print {{ body {{ max-width: none; padding: 0; }} h2 {{ break-after: avoid; }}
  h2 + p {{ break-after: avoid; }} .figures > div, tr {{ break-inside: avoid; }}
  .table, .figures.wide {{ overflow: visible; }} .figures.wide > div {{ min-width: 0; }}
  table {{ font-size: .65rem; }} th, td {{ padding: .15em .3em; overflow-wrap: break-word; }}
  nav, .modebar {{ display: none !important; }} }}
"""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


# The figures are drawn on white whatever the page is: their colours were chosen on it.
# The scroll bar may appear after the first figures were drawn, and takes some of their width.
_RESIZE = (
    "for (const when of ['load', 'beforeprint', 'afterprint'])"
    " addEventListener(when, () => document.querySelectorAll('.plotly-graph-div')"
    ".forEach(figure => Plotly.Plots.resize(figure)));"
)


class Section(NamedTuple):
    """A part of the page. All texts are HTML: what comes from outside must be escaped already.

    Attributes:
        heading: Its heading.
        reading: How to read what is shown; left out where nothing is.
        figures: The figures, ``None`` where one cannot be drawn.
        absences: One sentence on each thing that cannot be shown, and why.
        tables: Tables as HTML, to stand above the figures.
        is_wide: Whether its figures cannot be read on a phone's width, and are scrolled there.
    """

    heading: str
    reading: str
    figures: Sequence[go.Figure | None] = ()
    absences: Sequence[str] = ()
    tables: str = ""
    is_wide: bool = False


def section_html(section: Section, numbers: Iterator[int]) -> str:
    """Return a section; its figures take their ids from ``numbers``."""
    figures = [
        figure_html(figure, f"figure-{next(numbers)}") for figure in section.figures if figure
    ]
    reading = f"<p>{section.reading}</p>" if figures or section.tables else ""
    absences = "".join(f'<p class="absent">{sentence}</p>' for sentence in section.absences)
    layout = "figures single" if len(figures) == 1 else "figures"
    layout += " wide" if section.is_wide else ""
    scrolled = ' tabindex="0"' if section.is_wide else ""
    drawings = f'<div class="{layout}"{scrolled}>{"".join(figures)}</div>' if figures else ""
    return f"<h2>{section.heading}</h2>{reading}{absences}{section.tables}{drawings}"


def figure_html(figure: go.Figure, identifier: str) -> str:
    """Return a figure without plotly.js; its id is fixed so that equal pages are equal bytes.

    Who cannot see it hears its title; what it is drawn from stands in the tables of its page.
    """
    config = {
        "responsive": True,
        "displaylogo": False,
        # Few buttons, so that they never hide a title; dragging zooms without one.
        "modeBarButtons": [["toImage", "resetScale2d"]],
        "toImageButtonOptions": {"scale": 2, "filename": identifier},
    }
    html = plotly.io.to_html(
        figure, config=config, include_plotlyjs=False, full_html=False, div_id=identifier
    )
    title = escape(unescape(re.sub("<[^>]*>", " ", figure.layout.title.text or "figure")))
    return f'<div role="group" aria-label="{title}">{html}</div>'


def document(title: str, body: str) -> str:
    """Return a whole page with plotly.js in it; both texts are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{title}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>"
        "<noscript><p>The figures need JavaScript; the tables do not.</p></noscript>"
        f"{body}<script>{_RESIZE}</script></body></html>\n"
    )
