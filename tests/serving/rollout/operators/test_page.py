"""How a story is drawn: on a screen, and as a page that needs nothing from outside and reads without colour."""

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from trials import CONFIG, Past, eventful

from ingest.records.events import TrialState
from serving.rollout.operators import chart, page
from serving.rollout.operators.books import Books
from serving.rollout.operators.chart import Curve, Plot
from serving.rollout.operators.story import Point, Stage, Story

HOUR = 3600.0
PLOT = Plot("evidence", (Curve("reward", [(0.0, 0.0), (HOUR, 6.0)]), Curve("rails", [(0.0, 0.0)])), (("needed", 5.0),))


@pytest.fixture(scope="module")
def past() -> Past:
    return eventful()


@pytest.fixture(scope="module")
def told(past: Past) -> Story:
    return Story.model_validate(Books(lambda: past.log, CONFIG, lambda: past.now).story({"trial": "3"})[1])


@pytest.fixture(scope="module")
def html(told: Story) -> str:
    return page.story(told, 1_790_100_000.0)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.found


def figures(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def test_the_page_needs_no_script_and_nothing_from_outside(html: str) -> None:
    outside = {"src", "href", "srcset", "xlink:href", "data", "action"}
    for tag, attrs in tags(html):
        assert tag not in {"script", "link", "iframe", "object", "embed", "img"}
        assert not outside & attrs.keys()
        assert not any(name.startswith("on") for name in attrs)
    assert not re.search(r"https?:|//|url\(|@import", html)


def test_the_page_is_light_and_dark(html: str) -> None:
    assert "color-scheme: light dark" in html
    dark = html.split("prefers-color-scheme: dark")[1].split("}")[0]
    light = html.split(":root {")[1].split("}")[0]
    assert set(re.findall(r"--\w+", dark)) == set(re.findall(r"--\w+", light))


def test_every_curve_and_line_has_a_form_of_its_own_and_its_name_beside_it(html: str) -> None:
    for figure in figures(html):
        curves = [one for one in figure if one.tag == "polyline"]
        forms = [one.get("stroke-dasharray", "solid") for one in curves]
        assert len(set(forms)) == len(forms)
        named = [one for one in figure if one.get("class") == "name"]
        bounds = [one for one in figure if one.get("class") == "bound"]
        assert len(named) == len(curves) + len(bounds) > 1
        heights = sorted(float(one.get("y", "nan")) for one in named)
        assert all(below - above >= 12.0 for above, below in pairwise(heights))
    assert len(figures(html)) == 3  # the canary's two, and the watch's


def test_curves_end_at_their_values(html: str, told: Story) -> None:
    canary = [one for one in told.points if not one.is_watch]
    low, high = chart.heights(chart.plots(told.points)[0])
    last = figures(html)[0].find("polyline")
    assert last is not None
    x, y = map(float, last.get("points", "").split()[-1].split(","))
    value = canary[-1].log_e
    assert value is not None
    assert y == pytest.approx(240.0 * (1.0 - (value - low) / (high - low)), abs=0.06)
    assert x == pytest.approx(44.0 + 760.0, abs=0.06)


def test_what_people_wrote_is_escaped(told: Story) -> None:
    evil = told.model_copy(update={"told": '<script>alert("x")</script>', "notes": ("<b>",)})
    html = page.story(evil, 0.0)
    assert "<script" not in html and "<b>" not in html
    assert "&lt;script&gt;" in html


def test_a_trial_without_evidence_is_a_page_too() -> None:
    stage = Stage(state=TrialState.EVALUATING, began_at=0.0, ended_at=None, reason="loads")
    bare = Story(
        version=1, parent=None, published_at=None, state=TrialState.EVALUATING, is_over=False, stages=(stage,),
        points=(), told="loads",
    )  # fmt: skip
    assert "There is none: no session of this trial was scored" in page.story(bare, 5.0)


def test_a_chart_is_as_wide_as_asked_and_has_no_colour() -> None:
    for width in (60, 100, 150):
        drawn = chart.chart(PLOT, width)
        assert max(map(len, drawn.splitlines())) == width
        assert "\x1b" not in drawn


def test_a_line_is_drawn_at_its_own_height() -> None:
    """6 above, 0 below: a line at 5 lies near the top, one at 1 near the bottom."""

    def row(at: float) -> int:
        drawn = chart.chart(Plot("p", PLOT.curves[:1], (("needed", at),)), 80).splitlines()
        inside = [number for number, line in enumerate(drawn) if line.count("─") > 40 and "┌" not in line]
        return next(number for number in inside if "└" not in drawn[number])

    assert row(5.0) < row(3.0) < row(1.0)


def test_the_key_tells_curves_by_their_marks_and_last_values() -> None:
    assert chart.key(PLOT) == "⠒⠒ reward 6.00   .. rails 0.00   ── needed at 5.00"


def test_the_day_is_said_where_it_changes() -> None:
    day = 86_400.0
    labels = [label for _, label in chart.ticks(0.0, 2 * day, 5)]
    assert labels[0].startswith("Jan 0") or labels[0].startswith("Dec 31")
    assert sum(" " in label for label in labels) == 3


def test_one_moment_and_one_value_can_be_drawn() -> None:
    point = Point(at=5.0, num_units=1, share=0.1, log_e=0.0)
    (plot,) = chart.plots([point])
    assert "0" in chart.chart(plot, 60)
    stage = Stage(state=TrialState.CANARY, began_at=0.0, ended_at=None, reason="begins")
    told = Story(
        version=1, parent=None, published_at=None, state=TrialState.CANARY, is_over=False, stages=(stage,),
        points=(point,), told="it goes on",
    )  # fmt: skip
    assert "nan" not in page.story(told, 5.0)
