"""Draw the figures of a report and fill its page: jinja2 templates, and matplotlib figures as inline SVG."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from trajtools.recurrences.measures import MEASURES as MEANINGS
from trajtools.wording import counted

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trajtools.exponents.divergence import Divergence
    from trajtools.exponents.exponent import Exponent
    from trajtools.recurrences.measures import Recurrence
    from trajtools.report.collect import Analysis, RunReport
    from trajtools.sweeps.sweep import Sweep

MAX_CURVES = 40  # more lines cannot be told apart in a figure of this size
MAX_POINTS = 300  # of a line
PIXELS = 300  # a side, of recurrence plots and distances
WIDTH, HEIGHT, SQUARE = 4.6, 3.2, 4.0  # inches, of a figure that can be read in half a page and on a telephone
MEASURES = ("RR", "DET", "L", "Lmax", "ENTR", "LAM", "TT", "TREND")
TIMES = "training time; triangles at the top did not reach the accuracy in at least half of their initial conditions"
PAD = 3.0  # points, around a figure
FEW = 12  # runs on a page up to which figures have every detail

# The figures take the colours of the page, which has a light and a dark scheme.
COLORS = {
    "#000000": "--ink", "#262626": "--ink", "#4d4d4d": "--quiet", "#666666": "--quiet", "#808080": "--quiet",
    "#8c8c8c": "--curve", "#b3b3b3": "--rule", "#ffffff": "--card", "#cccccc": "--rule", "#0072b2": "--accent",
    "#d55e00": "--fit", "#009e73": "--regular", "#cc79a7": "--sensitive", "#e69f00": "--transient",
    "#7a5230": "--diverging",
}  # fmt: skip
STYLE = {
    "svg.fonttype": "none",  # text stays text: it is found, read aloud and small
    "font.size": 11.0,
    "axes.titlesize": "small",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.framealpha": 0.8,
}


def demo_page(analyses: Sequence[Analysis], recording: dict[str, Any], sweep: Sweep | None = None) -> str:
    """Return the page of `trajtools demo`: one analysis for each learning rate; `recording` says how it was made."""
    limits = log10_range([a.growth for a in analyses])
    return _render(
        "demo.html.j2",
        lambda figures: {
            "analyses": analyses,
            "recording": recording,
            **_opening([(a.run, a.exponent) for a in analyses], sweep, figures),
            "level": analyses[0].exponent.level if analyses else 0.95,
            "verdicts": {a.exponent.verdict for a in analyses},
            "max_curves": MAX_CURVES,
            "most_curves": max((a.growth.n_references for a in analyses), default=0),
            "divergence": lambda a: figures.divergence(a, limits),
            "learning_rate": _learning_rate,
            "accuracy": _accuracy,
        },
    )


def runs_page(
    title: str,
    reports: Sequence[RunReport],
    sweep: Sweep | None,
    made: dict[str, str],
    unread: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page of `trajtools report`: every run, and the sweep of the same runs where there is one.

    `unread`: files that are not on the page, and why; they stand below the answer.
    """
    return _render(
        "runs.html.j2",
        lambda figures: {
            "title": title,
            "reports": reports,
            "made": made,
            "unread": unread,
            "sweep": sweep,
            "verdicts": {report.analysis.exponent.verdict for report in reports if report.analysis},
            "measures": MEASURES,
            "meaning": MEANINGS,
            "few": FEW,
            "figures": figures,
            **_opening(
                [(report.run, report.analysis.exponent if report.analysis else None) for report in reports],
                sweep,
                figures,
                reports[0] if len(reports) == 1 else None,
            ),
            **(_sweep_table(sweep) if sweep is not None else {}),
        },
        fine=len(reports) <= FEW,
    )


def _opening(
    exponents: Sequence[tuple[str, Exponent | None]],
    sweep: Sweep | None,
    figures: Figures,
    alone: RunReport | None = None,
) -> dict[str, Any]:
    """The sentence that answers, and the one figure."""
    if sweep is not None and not sweep.y_name:
        timed = any(point.times.shape[1] for point in sweep.points)
        caption = (
            "Above: exponent of each run, with its interval. Hollow marks do not enter the onset of sensitive "
            f"dependence, which lies in the shaded range. Below: {TIMES if timed else 'last loss'}."
        )
        return {
            "answer": sweep.summary(),
            "main_figure": figures.sweep(sweep),
            "narrow_figure": figures.sweep(sweep, width=4.2, height=5.6),
            "main_caption": caption,
        }
    from trajtools.plots._axes import interval, number

    if alone is not None:
        words = _answer_alone(alone)
        if alone.lost_at is not None:
            words = f"The training ends in NaN or infinity, from step {alone.lost_at} on. {words}".rstrip()
        if alone.analysis is None:
            few = "No perturbed copies were recorded, so how fast nearby trainings part is unknown."
            return {"answer": f"{words} {few}".lstrip(), "main_figure": ""}
        exponent = alone.analysis.exponent
        unit = exponent.unit.replace("1/", "per ", 1)
        caption = (
            f"Distance between the training and its perturbed copies. Exponent {number(exponent.value)} {unit}, "
            f"{exponent.level:.0%} interval {interval(exponent)}: {exponent.verdict}."
        )
        return {
            "answer": words,
            "main_figure": figures.divergence(alone.analysis, width=8.0, height=4.6),
            "narrow_figure": figures.divergence(alone.analysis, width=4.2, height=4.2),
            "main_caption": caption,
        }
    return {"answer": _counts(exponents), "main_figure": ""}


def _answer_alone(report: RunReport) -> str:
    """What the analyses of one run answer, and what they leave open."""
    questions = (
        (report.analysis.exponent if report.analysis else None, "nearby trainings part exponentially"),
        (report.stability, "perturbed trainings come back to the orbit"),
        (report.curvature, "the training is at the edge of stability"),
    )
    results = [(one, question) for one, question in questions if one is not None]
    parts = [" ".join(one.summary() for one, _ in results if one.verdict != "inconclusive")]
    undecided = [question for one, question in results if one.verdict == "inconclusive"]
    if undecided:
        parts.append(f"The data do not decide whether {', nor whether '.join(undecided)}.")
        parts = parts[::-1] if results[0][0].verdict == "inconclusive" else parts
    if "loss" in report.metrics:
        step, loss = report.metrics["loss"]
        if len(step) > 1:
            passed = counted(int(step[-1] - step[0]), "step")
            parts.append(f"The loss went from {loss[0]:.3g} to {loss[-1]:.3g} in {passed}.")
    return " ".join(filter(None, parts))


def _counts(exponents: Sequence[tuple[str, Exponent | None]]) -> str:
    """How many runs have which verdict."""
    words = {
        "chaotic": "part exponentially whenever they are perturbed",
        "transient": "part exponentially at first",
        "sensitive": "part exponentially",
        "regular": "stay together",
        "diverging": "run away together with the training",
        "inconclusive": "cannot be judged from the data",
    }
    counts = Counter(exponent.verdict for _, exponent in exponents if exponent is not None)
    if not counts:
        return "No perturbed copies were recorded, so how fast nearby trainings part is unknown."
    parts = [f"{words[verdict]} in {counted(count, 'run')}" for verdict, count in counts.most_common()]
    rest = len(exponents) - counts.total()
    return f"Nearby trainings {'; '.join(parts)}." + (f" {counted(rest, 'run')} without copies." if rest else "")


def _render(template: str, context: Callable[[Figures], dict[str, Any]], fine: bool = True) -> str:
    return _environment().get_template(template).render(context(Figures(fine)))


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from trajtools.plots._axes import interval, number, waiting, window

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, interval=interval, waiting=waiting, window=window, median=_median, percent="{:.0%}".format
    )
    environment.tests["finite"] = math.isfinite
    return environment


def _median(values: Any) -> float:
    return float(np.nanmedian(values))


def _learning_rate(analysis: Analysis) -> str:
    rate = analysis.hparams.get("learning_rate")
    return f"{rate:g}" if isinstance(rate, float | int) else analysis.run


def _accuracy(analysis: Analysis) -> str:
    last = analysis.facts.get("last", {}).get("accuracy")
    return f"{last:.0%}" if isinstance(last, float) and math.isfinite(last) else ""


def _sweep_table(sweep: Sweep) -> dict[str, Any]:
    from trajtools.sweeps.answer import label
    from trajtools.sweeps.sweep import header, rows

    comparison = sweep.coincidence()
    reasons = dict.fromkeys((*comparison.onset.reasons, *comparison.fastest.reasons, *comparison.reasons))
    return {
        "x_label": label(sweep.x_name),
        "sweep_header": [label(sweep.x_name), *header(sweep)[1:]],
        "sweep_rows": rows(sweep),
        "sweep_numeric": [at for at, title in enumerate(header(sweep)) if title not in ("run", "verdict")],
        "sweep_verdict": comparison.verdict,
        "sweep_reasons": list(reasons),
    }


def log10_range(growths: Sequence[Divergence]) -> tuple[float, float]:
    """Return whole powers of ten around all curves, as log10, at least two decades apart."""
    curves = [growth.orbit_curves().ravel() for growth in growths]
    values = np.concatenate([np.empty(0), *curves]) / math.log(10.0)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return -1.0, 1.0
    from trajtools.plots._axes import LARGEST

    most = math.log10(LARGEST)
    low, high = math.floor(values.min()), math.ceil(min(values.max(), most))
    return float(min(low, most - 2)), float(max(high, low + 2))


class Figures:
    """Draws the figures of one page as inline SVG."""

    def __init__(self, fine: bool = True) -> None:
        self._count = 0
        # A page about many runs has smaller figures.
        self._curves, self._points, self._pixels = (MAX_CURVES, MAX_POINTS, PIXELS) if fine else (15, 100, 100)

    def draw(self, label: str, plot: Callable[[Axes], Any], *, width: float = WIDTH, height: float = HEIGHT) -> Markup:
        """Return what `plot(ax)` draws as an SVG element; `label` is what a screen reader says instead."""
        return self.draw_figure(
            label, lambda figure: plot(figure.add_subplot(facecolor="none")), width=width, height=height
        )

    def draw_figure(self, label: str, plot: Callable[[Figure], Any], *, width: float, height: float) -> Markup:
        """Return what `plot(figure)` draws as an SVG element."""
        import matplotlib
        from markupsafe import Markup
        from matplotlib.figure import Figure

        from trajtools.plots._axes import save_figure

        self._count += 1
        target = io.StringIO()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # the page does not depend on the user's style
            # The salt of a figure makes the names of its clip paths and markers, which must be unique on the page.
            matplotlib.rcParams.update(STYLE | {"svg.hashsalt": f"trajtools {self._count}"})
            figure = Figure(figsize=(width, height), dpi=72, facecolor="none")  # a pixel is a point, as in SVG
            plot(figure)
            for ax in figure.axes:
                ax.set_facecolor("none")
                for line in ax.lines:
                    _thin(line, self._points)
                for axis in (ax.xaxis, ax.yaxis):
                    _plain_powers(axis)
            _set_margins(figure)
            save_figure(figure, target, format="svg", dpi=96)
        return Markup(_inline(target.getvalue(), label))

    def sweep(self, result: Sweep, width: float = 8.0, height: float = 6.0) -> Markup:
        """Draw exponents and training times against the hyper-parameter."""
        from trajtools import plots

        label = f"Exponent and training time against {result.x_name}"
        return self.draw_figure(
            label, lambda figure: plots.sweep(result, ax=figure.subplots(2, 1, sharex=True)), width=width, height=height
        )

    def divergence(
        self,
        analysis: Analysis,
        limits: tuple[float, float] | None = None,
        *,
        width: float = WIDTH,
        height: float = HEIGHT,
    ) -> Markup:
        """Draw the divergence of twins, on an axis of the distance whose limits are given as log10."""
        from trajtools import plots
        from trajtools.plots._axes import interval, number

        growth, exponent = analysis.growth, analysis.exponent
        low, high = limits or log10_range([growth])

        def plot(ax: Axes) -> None:
            plots.divergence(growth, exponent, ax, max_curves=self._curves)
            legend = ax.get_legend()
            if legend is not None:
                legend.remove()  # the page has one for all figures
            ax.set_ylim(10**low, 10**high)

        label = f"Distance over time: {number(exponent.value)} {exponent.unit} {interval(exponent)}, {exponent.verdict}"
        return self.draw(label, plot, width=width, height=height)

    def metric(self, name: str, step: Any, values: Any) -> Markup:
        """Draw a recorded metric."""
        from trajtools import plots

        return self.draw(f"{name} over training", lambda ax: plots.metric(step, values, name, ax))

    def curvature(self, result: Any) -> Markup:
        """Draw rate times curvature."""
        from trajtools import plots

        return self.draw("Learning rate x largest curvature", lambda ax: plots.curvature(result, ax))

    def distances(self, result: Any) -> Markup:
        """Draw all distances between states."""
        from trajtools import plots

        return self.draw(
            "Distance between states",
            lambda ax: plots.distances(result, ax, pixels=self._pixels),
            width=WIDTH,
            height=SQUARE,
        )

    def recurrence(self, result: Recurrence, start: float) -> Markup:
        """Draw the recurrence plot; `start` is the time of the first state."""
        from trajtools import plots

        return self.draw(
            "Recurrence plot",
            lambda ax: plots.recurrence(result, pixels=self._pixels, start=start, ax=ax),
            width=WIDTH,
            height=SQUARE,
        )


def _thin(line: Any, most: int) -> None:
    x, y = line.get_data()
    if len(x) > most:
        shown = np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))
        line.set_data(np.asarray(x)[shown], np.asarray(y)[shown])


_POWER = re.compile(r"\$\\mathdefault\{(.*)\^\{(.*)\}\}\$")
_RAISED = str.maketrans("0123456789-\N{MINUS SIGN}", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻")
_EXPONENT = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)")
_ON_LINE = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789\N{MINUS SIGN}")


def _plain_powers(axis: Any) -> None:
    """Write powers of ten with raised digits: to typeset them as mathematics takes a tenth of the time of a page."""
    from matplotlib.ticker import Formatter, LogFormatterMathtext

    class Plain(Formatter):
        def __init__(self, typeset: LogFormatterMathtext) -> None:
            self.typeset = typeset

        def __call__(self, x: float, pos: int | None = None) -> str:
            label = self.typeset(x, pos).replace(r"\times", "\N{MULTIPLICATION SIGN}")
            return _POWER.sub(lambda power: power[1] + power[2].translate(_RAISED), label)

        def set_locs(self, locs: Any) -> None:
            self.typeset.set_locs(locs)

    for formatter, replace in (
        (axis.get_major_formatter(), axis.set_major_formatter),
        (axis.get_minor_formatter(), axis.set_minor_formatter),
    ):
        if isinstance(formatter, LogFormatterMathtext):
            replace(Plain(formatter))


def _set_margins(figure: Figure) -> None:
    """Give the labels the room that they take, around one row of axes or two.

    The layouts of matplotlib measure every text twice as often, and draw the figure once more.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    width, height = figure.bbox.size
    figure.subplots_adjust(left=50 / width, right=1 - 10 / width, bottom=40 / height, top=1 - 24 / height, hspace=0.25)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = []
    for ax in figure.axes:
        around = ax.get_tightbbox(renderer, for_layout_only=True)  # puts the axes where their aspect wants them
        if around is not None:
            boxes.append((ax.get_window_extent(), around))
    left = PAD + max(axes.x0 - around.x0 for axes, around in boxes)
    right = PAD + max(around.x1 - axes.x1 for axes, around in boxes)
    (lowest, below), (highest, above) = min(boxes, key=_bottom), max(boxes, key=_bottom)
    bottom, top, gap = lowest.y0 - below.y0, above.y1 - highest.y1, 0.0
    if lowest.y1 < highest.y0:
        gap = below.y1 - lowest.y1 + highest.y0 - above.y0 + 2 * PAD
    else:
        bottom, top = (max(sides) for sides in zip(*((a.y0 - b.y0, b.y1 - a.y1) for a, b in boxes), strict=True))
    each = (height - bottom - top - 2 * PAD - gap) / 2
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=(bottom + PAD) / height,
        top=1 - (top + PAD) / height,
        hspace=gap / each,
    )


def _bottom(box: tuple[Any, Any]) -> float:
    return float(box[0].y0)


_DECIMALS = re.compile(r"\d+\.\d{2,}")
_FONT = re.compile(r"font-family: [^;]*;? ?")
_COLOR = re.compile("|".join(COLORS))


def _inline(svg: str, label: str) -> str:
    """Make an SVG document an element of a page: nothing that is not needed, and the colours of the page."""
    root = ElementTree.fromstring(svg)
    box = root.get("viewBox", "")
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        if element.tag == "text":
            _raise_exponent(element)
        if element.tag == "g":
            element.attrib.pop("id", None)  # the same in every figure, and never referred to
        if "d" in element.attrib:
            element.set("d", _DECIMALS.sub(lambda x: f"{float(x[0]):.1f}", " ".join(element.attrib["d"].split())))
        if "style" in element.attrib:
            style = _FONT.sub("", element.attrib["style"])
            element.set("style", _COLOR.sub(lambda color: f"var({COLORS[color[0]]})", style))
        for name in [name for name in element.attrib if name.endswith("}href")]:
            element.set("href", element.attrib.pop(name))
    for parent in root.iter():
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
        if parent.tag not in ("text", "tspan"):
            parent.text = parent.tail = None
    root.attrib = {"viewBox": box, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _raise_exponent(text: ElementTree.Element) -> None:
    """Replace raised digits, which many fonts lack, by small ones above the line."""
    base, *parts = _EXPONENT.split(text.text or "")
    if parts:
        text.text = base
        for exponent, rest in zip(parts[::2], parts[1::2], strict=True):
            above = ElementTree.SubElement(text, "tspan", {"dy": "-.45em", "font-size": "70%"})
            above.text = exponent.translate(_ON_LINE)
            if rest:
                ElementTree.SubElement(text, "tspan", {"dy": ".32em"}).text = rest
