"""The page of ``compare --profile``: where the time of a study went, run by run."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import count

import pandas as pd
import plotly.graph_objects as go

from breakhis_search.evaluation.document import Section, document, section_html
from breakhis_search.evaluation.style import build_template, series_color

_BAR_PX, _FRAME_PX = 18, 140


def build_profile_page(profiles: Mapping[str, pd.DataFrame], whats: Mapping[str, str]) -> str:
    """Return a page with a stacked bar of seconds for every run of every study.

    Args:
        profiles: By study, from :func:`breakhis_search.comparison.profile.read_profile`.
        whats: What each phase is.
    """
    numbers = count(1)
    phases = "; ".join(f"<b>{escape(name)}</b>: {escape(what)}" for name, what in whats.items())
    reading = (
        "A bar is a run, its length the seconds that it took, without the time in which trials"
        f" beside it had their turn. {phases}."
    )
    parts = [
        section_html(Section(escape(study), reading, [profile_figure(profile)]), numbers)
        for study, profile in profiles.items()
    ]
    title = "Where the time went"
    return document(title, f"<h1>{title}</h1>{''.join(parts)}")


def profile_figure(profile: pd.DataFrame) -> go.Figure:
    """Return the stacked bars, first run on top."""
    figure = go.Figure(
        [
            go.Bar(
                name=phase,
                y=profile["run"],
                x=profile[phase],
                orientation="h",
                marker={"color": series_color(number), "pattern": {"shape": _pattern(number)}},
                hovertemplate=f"%{{y}}<br>{phase} %{{x:.2f}} s<extra></extra>",
            )
            for number, phase in enumerate(profile.columns[2:])
        ]
    )
    figure.update_layout(
        template=build_template(),
        barmode="stack",
        height=_FRAME_PX + _BAR_PX * len(profile),
        xaxis_title="seconds",
        yaxis={"autorange": "reversed", "type": "category", "dtick": 1},
        legend={"yref": "paper", "y": 1.0, "yanchor": "bottom"},
        margin={"t": 90},
    )
    return figure


def _pattern(number: int) -> str:
    """Colours repeat after eight: the second eight are hatched."""
    return "" if number < 8 else "/"
