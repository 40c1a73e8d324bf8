"""The page that `trajtools report` writes: every run, and the sweep that they form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trajtools.plots.words import interval, number
from trajtools.report.demo import MEANINGS, verdict
from trajtools.report.divergence import divergence_figure, key
from trajtools.report.gathering import Gathered
from trajtools.report.heat import heat_map
from trajtools.report.markup import Html, table, tag
from trajtools.report.page import facts, page, section
from trajtools.report.svg import Figure
from trajtools.sweeps.sweep import Sweep
from trajtools.training.curvature import Curvature

MOST_POINTS = 400
SHOWN = ("RR", "DET", "L", "Lmax", "ENTR", "LAM", "TT")


def file_page(title: str, runs: Sequence[Gathered], sweep: Sweep | None, made: dict[str, str]) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
        The heading.
    runs : sequence of Gathered
        What was measured.
    sweep : Sweep or None
        Of the same runs, where they share a hyper-parameter.
    made : dict
        Name -> words: files, version, command.

    Returns
    -------
    str
        One HTML file that loads nothing from anywhere.
    """
    return page(
        title,
        tag(
            "p",
            "The weights of these networks were recorded along their training, and the training is looked at as a "
            "dynamical system: do nearby trainings part, does the trajectory return, how curved is the loss where it "
            "goes? Every number comes with its doubt; 'inconclusive' is an answer.",
            class_="lead",
        ),
        section("In short", _overview(runs), _meanings(runs)),
        _swept(sweep) if sweep is not None else None,
        [_run(one, k) for k, one in enumerate(runs)],
        section("How it was made", facts(made)),
    )


def _overview(runs: Sequence[Gathered]) -> Html:
    head = ["run", "nearby trainings", "exponent per step", "95% interval", "back to the orbit", "curvature"]
    rows: list[list[Any]] = []
    for k, one in enumerate(runs):
        found = one.answer.exponent if one.answer else None
        rows.append(
            [
                tag("a", one.run, href=f"#{_anchor(k)}"),
                verdict(found.verdict) if found else "not measured",
                number(found.value) if found else "",
                interval(found) if found else "",
                one.stability.verdict if one.stability else "",
                one.curvature.verdict if one.curvature else "",
            ]
        )
    return table(head, rows, numeric=(2, 3))


def _anchor(place: int) -> str:
    return f"run-{place}"


def _meanings(runs: Sequence[Gathered]) -> list[Html]:
    given = {one.answer.exponent.verdict for one in runs if one.answer}
    return [tag("p", verdict(word), ". ", meaning) for word, meaning in MEANINGS.items() if word in given]


def _run(one: Gathered, place: int) -> Html:
    return tag(
        "section",
        tag("h2", f"Run {one.run}", id=_anchor(place)),
        facts(one.facts),
        tag("div", [card for card in _cards(one) if card is not None], class_="cards"),
        key() if one.answer else None,
        _list([f"Left out: {words}" for words in one.left_out]),
    )


def _cards(one: Gathered) -> list[Html | None]:
    return [
        *(_metric(name, *values) for name, values in one.series.items()),
        _exponent(one),
        _stability(one),
        _matrix(one, one.distances, "Distance between states", "How far apart the networks at two times are (l2)."),
        _matrix(one, one.recurrent, "Recurrence plot", "Where the trajectory returns: the nearest 5% of all pairs."),
        _measures(one),
        _curvature(one.curvature) if one.curvature else None,
    ]


def _card(heading: Any, *content: Any) -> Html:
    return tag("article", tag("h3", heading), *content, class_="card")


def _list(words: Sequence[str]) -> Html | None:
    return tag("ul", [tag("li", word) for word in words]) if words else None


def _metric(name: str, step: Any, values: Any) -> Html | None:
    positive = values > 0
    if positive.sum() < 2:
        return None
    thin = slice(None, None, math.ceil(int(positive.sum()) / MOST_POINTS))
    x, y = np.asarray(step, float)[positive][thin], np.log10(values[positive][thin])
    figure = Figure((float(x[0]), max(float(x[-1]), float(x[0]) + 1)), _span(y), "step", name, f"{name} over training")
    figure.line(x, y, "mean")
    return _card(name, figure.render(), tag("p", f"{values[0]:.4g} at first, {values[-1]:.4g} at last."))


def _span(y: Any) -> tuple[float, float]:
    low, high = float(np.min(y)), float(np.max(y))
    return math.floor(low), max(math.ceil(high), math.floor(low) + 1)


def _exponent(one: Gathered) -> Html | None:
    if one.answer is None:
        return None
    found, growth = one.answer.exponent, one.answer.growth
    value = f"{number(found.value)} per step, {interval(found)}" if np.isfinite(found.value) else ""
    heading = ["How nearby trainings part", verdict(found.verdict), tag("span", value, class_="value")]
    words = [*found.reasons, *found.warnings, *growth.warnings]
    return _card(heading, divergence_figure(growth, found), _list(words))


def _stability(one: Gathered) -> Html | None:
    found = one.stability
    if found is None:
        return None
    middle = f"Frechet distance to the reference {number(float(np.nanmedian(found.frechet)))}, tube around its orbit "
    middle += number(float(np.nanmedian(found.tube)))
    words = [*found.reasons, *found.warnings]
    return _card(["Back to the orbit?", tag("span", found.verdict, class_="value")], tag("p", middle), _list(words))


def _matrix(one: Gathered, values: Any, heading: str, words: str) -> Html | None:
    if values is None or len(values) < 2:
        return None
    drawn = heat_map(values, one.cell_time, label="step", title=heading)
    return _card(heading, drawn, tag("p", words))


def _measures(one: Gathered) -> Html | None:
    found = one.recurrence
    if found is None:
        return None
    rows = [[name, number(found[name])] for name in SHOWN]
    words = f"Recurrence rate fixed at 5%, Theiler window {found.theiler}, {found.convention} convention."
    return _card("Recurrence, in numbers", table(["measure", "value"], rows, numeric=(1,)), tag("p", words),
                 _list(list(found.warnings)))  # fmt: skip


def _curvature(found: Curvature) -> Html:
    known = np.isfinite(found.product) & (found.product > 0)
    heading = ["Curvature", tag("span", found.verdict, class_="value")]
    if known.sum() < 2:
        return _card(heading, _list([*found.reasons, *found.warnings]))
    thin = slice(None, None, math.ceil(int(known.sum()) / MOST_POINTS))
    x, y = found.step[known][thin].astype(float), np.log10(found.product[known][thin])
    low, high = _span(np.concatenate([y, np.log10([1.0, found.threshold])]))
    figure = Figure(
        (float(x[0]), float(x[-1])), (low, high), "step", "rate x curvature", "learning rate x largest curvature"
    )
    figure.rule(math.log10(found.threshold), "fit", f"stable below {found.threshold:.3g}")
    figure.line(x, y, "mean")
    return _card(heading, figure.render(), _list([*found.reasons, *found.warnings]))


def _swept(sweep: Sweep) -> Html:
    from trajtools.sweeps.sweep import header, rows

    said = sweep.coincidence()
    body: list[list[Any]] = [list(row) for row in rows(sweep)]
    reasons = [*said.onset.reasons, *said.fastest.reasons, *said.reasons]
    return section(
        f"All runs against {sweep.x_name}",
        table(header(sweep), body, numeric=(0,)),
        _list(reasons),
    )
