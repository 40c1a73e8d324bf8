"""The page of the demo, and what every page and figure of a report must be: well-formed, alone, escaped, the same."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from made_divergences import analysis, divergence, exponent

from trajtools.exponents.exponent import VERDICTS
from trajtools.reasons import Reason
from trajtools.report.render import COLORS, MAX_CURVES, MAX_POINTS, Figures, demo_page, log10_range

VOID = {"meta"}


class Reader(HTMLParser):
    """Reads a page; every end tag must close the element that was opened last."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(html):
    parser = Reader()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def check_self_contained(html):
    """Nothing is loaded, nothing runs, and all that is referred to stands on the page, once."""
    page = read(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert not {"script", "link", "img", "iframe", "object", "foreignobject"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "onload", "onerror", "xlink:href"} & names
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [value for name, value in page.attributes if name == "href"]
    inside = [link[1:] for link in links if link.startswith("#")]
    inside += re.findall(r"url\(#([^)]*)\)", html)
    assert set(inside) <= set(ids)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert html.count("url(") == html.count("url(#")
    return page


@pytest.fixture(scope="module")
def analyses():
    return [
        analysis(0.01, 0.001, verdict="regular"),
        analysis(0.3, np.nan, verdict="inconclusive"),
        analysis(1.0),
        analysis(5.0, 0.4, verdict="chaotic", saturation_level=0.0),
    ]


@pytest.fixture(scope="module")
def demo(analyses):
    return demo_page(analyses, {"network": "4-10-3", "file": "iris.h5", "nothing": None, "empty": ""})


def test_demo_page_is_well_formed_and_says_all_results(demo):
    page = read(demo)
    text = " ".join(page.text)
    assert page.tags.count("article") == 4
    assert [value for name, value in page.attributes if name == "role"] == ["img"] * 4
    for words in ("regular", "inconclusive", "transient", "chaotic", "0.300", "[0.280, 0.330]", "unknown", "10 (5-20)",
                  "Because it grows.", "4-10-3", "0.330", "100%", "95% interval", "6 of 6"):  # fmt: skip
        assert words in text, words
    assert "nothing" not in re.findall(r"<dt>(.*?)</dt>", demo)
    assert "empty" not in re.findall(r"<dt>(.*?)</dt>", demo)
    assert re.findall(r"<h2 [^>]*>(.*?)</h2>", demo) == [
        "Results", "How the distance grew", "How to read this page", "The papers' procedure and ours",
        "What was recorded",
    ]  # fmt: skip
    assert "initial conditions are drawn" not in demo


def test_demo_page_says_how_many_curves_it_leaves_out():
    growth = divergence(inits=MAX_CURVES + 1, copies=1)
    made = replace(analysis(), growth=growth, exponent=exponent(growth))
    assert f"{MAX_CURVES} of the {MAX_CURVES + 1} initial conditions are drawn. All figures" in " ".join(
        demo_page([made], {}).split()
    )


def test_demo_page_loads_nothing(demo):
    check_self_contained(demo)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in demo


def test_demo_page_follows_the_scheme_and_the_width_of_the_reader(demo):
    assert "prefers-color-scheme: dark" in demo
    assert 'name="viewport"' in demo
    figures = "".join(re.findall(r"<svg.*?</svg>", demo, re.DOTALL))
    assert not set(COLORS) & set(re.findall("#[0-9a-f]{6}", figures))
    used = set(re.findall(r"var\((--\w+)\)", figures))
    light, dark = re.findall(r":root \{(.*?)\}", demo, re.DOTALL)
    assert {"--ink", "--accent", "--fit"} <= used
    for scheme in (light, dark):
        assert used <= set(re.findall(r"--\w+", scheme))


@pytest.mark.parametrize("word", VERDICTS)
def test_every_verdict_has_its_colour_and_its_meaning(word):
    page = demo_page([analysis(1.0, verdict=word)], {})
    assert page.count(f"--{word}: #") == 2  # light and dark
    assert f".verdict.{word} {{ color: var(--{word}); }}" in page
    assert f'<p><span class="verdict {word}">{word}</span>. ' in page


def test_a_page_without_results_is_a_page():
    assert "Results" in " ".join(read(demo_page([], {})).text)


def test_what_comes_from_a_file_is_escaped():
    evil = "<script>alert('x')</script>"
    made = analysis(run=evil, reasons=(Reason("growth", evil),), warnings=(Reason("drift", '"><img src=x onerror=y>'),))
    made.hparams["learning_rate"] = evil
    html = demo_page([made], {evil: evil})
    check_self_contained(html)
    assert "&lt;script&gt;" in html
    growth = replace(made.growth, metric=evil, time_unit='"><b>&')
    figure = Figures().divergence(replace(made, growth=growth))
    ElementTree.fromstring(figure)
    assert "&lt;script&gt;" in figure
    assert "<b>" not in figure
    label = Figures().metric('"><script>', [0, 1], np.ones(2))
    assert "script" not in read(label).tags
    assert ElementTree.fromstring(label).get("aria-label") == '"><script> over training'


class Drawn(Figures):
    """Keeps the axes of the figures."""

    def draw(self, label, plot, **size):
        self.label = label
        self.ax = matplotlib.figure.Figure().add_subplot()
        plot(self.ax)
        return ""


def test_figure_of_a_divergence_has_its_limits_and_not_too_many_curves():
    growth = divergence(inits=200, copies=1)
    figures = Drawn()
    figures.divergence(replace(analysis(), growth=growth, exponent=exponent(growth)))
    ax = figures.ax
    assert sum(line.get_linewidth() == 0.5 for line in ax.lines) == MAX_CURVES
    assert ax.get_xlim() == (0, 80)
    assert ax.get_ylim() == pytest.approx((1e-8, 1))
    assert figures.label == "Distance over time: 0.300 1/step [0.280, 0.330], transient"
    figures.divergence(analysis(), (-20, 3))
    assert figures.ax.get_ylim() == pytest.approx((1e-20, 1e3))


def test_figures_of_the_demo_share_the_limits_of_all(monkeypatch, analyses):
    seen = []
    monkeypatch.setattr(Figures, "divergence", lambda self, one, limits: seen.append(limits) or "")
    wide = replace(analyses[0], growth=divergence(level=1e4, slope=0.5))
    demo_page([*analyses, wide], {})
    assert seen == [(-8.0, 4.0)] * 5


def test_a_divergence_without_any_distance_is_still_drawn():
    growth = divergence()
    growth.distances[:] = np.nan
    growth.log_distance[:] = np.nan
    growth.floor[:] = np.nan
    figures = Drawn()
    figures.divergence(replace(analysis(), growth=growth, exponent=exponent(growth, np.nan, verdict="inconclusive")))
    assert figures.ax.get_ylim() == pytest.approx((0.1, 10))
    assert log10_range([growth]) == log10_range([]) == (-1.0, 1.0)


def paths(svg):
    return [element.get("d") for element in ElementTree.fromstring(svg).iter("path")]


def test_long_lines_are_thinned_and_keep_their_ends():
    rng = np.random.default_rng(0)
    values = np.exp(rng.standard_normal(10_000))
    svg = Figures().metric("loss", np.arange(10_000), values)
    line = max(paths(svg), key=len)
    assert 0.9 * MAX_POINTS < line.count("L") + 1 <= MAX_POINTS
    whole = max(paths(Figures().metric("loss", np.arange(300), values[:300])), key=len)
    first, last = (whole.split("L")[k].split()[-2] for k in (0, -1))
    assert [float(line.split("L")[k].split()[-2]) for k in (0, -1)] == pytest.approx([float(first), float(last)], abs=3)
    assert not re.search(r"\.\d\d", line)
    assert len(svg) < 20_000


def test_dense_images_are_pictures_of_the_size_that_they_are_shown_in():
    values = np.random.default_rng(0).random((300, 300))
    svg = Figures().draw("image", lambda ax: ax.pcolormesh(values, rasterized=True))
    (image,) = ElementTree.fromstring(svg).iter("image")
    assert image.get("href").startswith("data:image/png;base64,")
    assert sum(map(len, paths(svg))) < 2000


def test_figures_are_the_same_whatever_style_the_user_has_and_leave_it_alone():
    made = analysis()
    plain = Figures().divergence(made)
    with matplotlib.rc_context({"font.size": 30, "lines.color": "pink", "axes.facecolor": "pink", "svg.hashsalt": "u"}):
        before = dict(matplotlib.rcParams)
        assert Figures().divergence(made) == plain
        assert dict(matplotlib.rcParams) == before


def test_figures_of_one_page_have_names_of_their_own():
    figures, made = Figures(), analysis()
    one, two = (set(re.findall(r'id="([^"]+)"', figures.divergence(made))) for _ in range(2))
    assert one
    assert not one & two


@pytest.mark.parametrize("high", [1.0, 1e-7])
def test_labels_of_a_figure_lie_within_it(high):
    def plot(figure):
        for ax in figure.subplots(2, 1, sharex=True):
            ax.plot([0, 1], [0, high])
            ax.set(xlabel="across", ylabel="up", title="title")

    svg = ElementTree.fromstring(Figures().draw_figure("two", plot, width=4.0, height=4.0))
    texts = {text.text: text for text in svg.iter("text")}
    assert {"across", "up", "title"} <= set(texts)
    assert all(5 < float(text.get("x", 9)) < 283 and 5 < float(text.get("y", 9)) < 286 for text in texts.values())


def test_powers_of_ten_are_small_digits_above_the_line():
    svg = Figures().draw("powers", lambda ax: ax.loglog([1e-3, 1e12], [1e-9, 1e5]))
    labels = {"".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("text")}
    assert {"10\N{MINUS SIGN}3", "1012"} <= labels
    assert all(tspan.get("dy") for tspan in ElementTree.fromstring(svg).iter("tspan"))
    assert not re.search("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻$]", svg)
