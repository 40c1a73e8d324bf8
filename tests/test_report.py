from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from made_answers import answer, divergence, exponent

from trajtools.plots.words import interval, number, window
from trajtools.report.demo import demo_page
from trajtools.report.divergence import MOST_CURVES, divergence_figure, log10_range, shown
from trajtools.report.markup import Html, join, table, tag
from trajtools.report.page import facts, page
from trajtools.report.svg import Figure, nice_ticks

EMPTY = {"meta", "br"}


class Balance(HTMLParser):
    """Reads a page; every end tag must close the element that was opened last."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(html):
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def demo():
    answers = [
        answer(0.01, 0.001, verdict="regular"),
        answer(0.3, np.nan, verdict="inconclusive"),
        answer(1.0),
        answer(5.0, 0.4, verdict="chaotic", saturation=0.0),
    ]
    return demo_page(answers, {"network": "4-10-3", "file": "iris.h5"})


def test_demo_page_is_well_formed_and_says_all_results(demo):
    seen = read(demo)
    text = " ".join(seen.text)
    assert seen.seen.count("article") == 4
    for word in ("regular", "inconclusive", "transient", "chaotic", "0.300", "[0.280, 0.330]", "unknown", "10-40"):
        assert word in text, word
    assert "Because it grows." in text
    assert "4-10-3" in text


def test_demo_page_loads_nothing(demo):
    seen = read(demo)
    assert "http://" not in demo
    assert "https://" not in demo
    assert not {"script", "link", "img", "iframe", "object", "image", "use", "a"} & set(seen.seen)
    assert not {"src", "href", "xlink:href", "onload", "style"} & {name for name, _ in seen.attributes}
    assert "url(" not in demo
    assert "@import" not in demo


def test_demo_page_follows_the_scheme_and_the_width_of_the_reader(demo):
    assert "prefers-color-scheme: dark" in demo
    assert 'name="viewport"' in demo


def test_ids_on_the_page_are_unique(demo):
    ids = [value for name, value in read(demo).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_what_comes_from_a_file_is_escaped():
    evil = "<script>alert('x')</script>"
    made = answer(run=evil, reasons=(evil,), warnings=('"><img src=x onerror=y>',))
    made.hparams["learning_rate"] = evil
    html = demo_page([made], {evil: evil})
    seen = read(html)
    assert "script" not in seen.seen
    assert "img" not in seen.seen
    assert "&lt;script&gt;" in html


def test_figures_are_valid_xml_and_stay_in_their_frame():
    growth = divergence(inits=200, copies=1)
    drawn = divergence_figure(growth, exponent(growth))
    root = ElementTree.fromstring(drawn)
    paths = [e.get("class") for e in root.iter("path")]
    assert paths.count("curve") == MOST_CURVES
    assert paths.count("mean") == paths.count("fit") == paths.count("floor") == 1
    assert [e.get("class") for e in root.iter("rect")] == ["band"]


def test_figure_draws_the_exponential_where_it_is():
    figure = Figure(x=(0, 10), y=(-2, 0), x_label="t", y_label="d", title="")
    figure.line([0, 10], [-2, 0], "mean")
    path = ElementTree.fromstring(figure.render()).find(".//path").get("d")
    assert path == "M52.0 238.0L380.0 12.0"


def test_lines_break_where_nothing_was_measured():
    figure = Figure(x=(0, 3), y=(0, 1), x_label="t", y_label="d", title="")
    figure.line([0, 1, 2, 3], [0.0, np.nan, 1.0, 1.0], "curve")
    figure.line([0, 1], [np.nan, np.nan], "mean")
    paths = ElementTree.fromstring(figure.render()).findall(".//path")
    assert len(paths) == 1
    assert paths[0].get("d").count("M") == 2


def test_a_divergence_without_any_distance_is_still_drawn():
    growth = divergence()
    growth.distances[:] = np.nan
    growth.log_distance[:] = np.nan
    growth.floor[:] = np.nan
    drawn = divergence_figure(growth, exponent(growth, np.nan, verdict="inconclusive"))
    assert ElementTree.fromstring(drawn).findall(".//path") == []
    assert log10_range([growth]) == (-1.0, 1.0)


def test_ticks_are_round_and_inside():
    assert nice_ticks(0, 200) == [0, 50, 100, 150, 200]
    assert nice_ticks(-13, 2) == [-10, -5, 0]
    assert nice_ticks(0.1, 0.4, 3) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("count", [1, 2, 40, 41, 1000])
def test_drawn_curves_are_spread_over_all(count):
    rows = shown(count)
    assert rows[0] == 0
    assert rows[-1] == count - 1
    assert len(rows) == min(count, MOST_CURVES)


def test_only_our_own_markup_is_not_escaped():
    assert tag("p", "a<b", Html("<b>c</b>"), None, 3, id='"') == '<p id="&quot;">a&lt;b<b>c</b>3</p>'
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8"/>'
    assert join(["&", ["x"]]) == "&amp;x"
    assert '<td class="number">&lt;1</td>' in table(["n"], [["<1"]], numeric=(0,))
    assert facts({"a": "<", "b": None, "c": ""}) == '<dl class="facts"><dt>a</dt><dd>&lt;</dd></dl>'
    read(page("<title>", "text & more"))


def test_numbers_are_written_with_what_they_mean():
    assert number(0.27651) == "0.277"
    assert number(0.04821) == "0.0482"
    assert number(0.00123) == "0.0012"
    assert number(-0.00001) == "-1.0e-05"
    assert number(0.0) == "0.000"
    assert number(float("nan")) == "unknown"
    growth = divergence()
    assert interval(exponent(growth)) == "[0.280, 0.330]"
    assert interval(exponent(growth, np.nan)) == "unknown"
    assert window(exponent(growth)) == "10-40"
    assert window(exponent(growth, np.nan)) == ""


def test_the_null_stands_beside_the_curve():
    time = np.arange(10.0, 41.0)
    band = {"time": time, "record": np.log(1e-8) + 0.3 * time, "low": -18 + 0 * time, "high": -12 + 0 * time}
    growth = divergence()
    drawn = read(divergence_figure(growth, exponent(growth, null_band=band)))
    looks = [value for name, value in drawn.attributes if name == "class"]
    assert looks.count("null") == 1
    assert "compared" not in looks  # of twins that is the mean
    outline = next(value for name, value in drawn.attributes if name == "d" and value.endswith("Z"))
    heights = {point.split()[1] for point in outline[1:-1].split("L")}
    assert len(heights) == 2
    plain = read(divergence_figure(growth, exponent(growth)))
    assert "null" not in [value for name, value in plain.attributes if name == "class"]


def test_an_area_without_two_points_is_not_drawn():
    figure = Figure((0, 1), (0, 1), "x", "y", "title")
    figure.between(np.array([0.0, 1.0]), np.array([0.2, np.nan]), np.array([0.5, 0.6]), "null")
    assert 'class="null"' not in figure.render()
