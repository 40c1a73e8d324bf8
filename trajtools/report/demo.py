"""The page that `trajtools demo` writes: what was recorded, what was found, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trajtools.plots.words import interval, kept, number, spread, window
from trajtools.report.answers import Answer
from trajtools.report.divergence import MOST_CURVES, divergence_figure, key, log10_range, shown
from trajtools.report.markup import Html, table, tag
from trajtools.report.page import facts, page, section

MEANINGS = {
    "chaotic": "Nearby networks separate exponentially, and go on doing so when they are perturbed later.",
    "transient": "Nearby networks separate exponentially for a while. That it persists was not shown: these twins were "
    "perturbed once, at the start. The papers call this a chaotic transient; an escape from a saddle looks the same.",
    "regular": "The distance stays, shrinks, or grows no faster than a power law or a random walk would make it.",
    "inconclusive": "The data do not decide. The reasons say what is missing.",
}


def demo_page(answers: Sequence[Answer], recorded: dict[str, Any]) -> str:
    """Return the page.

    Parameters
    ----------
    answers : sequence of Answer
        One per learning rate, with the published procedure beside ours.
    recorded : dict
        Name -> words: how the file was made.

    Returns
    -------
    str
        One HTML file that loads nothing from anywhere.
    """
    return page(
        "Do nearby trainings stay together?",
        tag(
            "p",
            "A small network learned Fisher's Iris flowers by plain gradient descent, from many initial weights and at "
            "several learning rates. Beside each network, copies whose weights differed by about one part in 10",
            tag("sup", "8"),
            " were trained in the same way. This page shows how fast the copies ran away.",
            class_="lead",
        ),
        section("What was found", _findings(answers), _meanings(answers)),
        section("How the distance grew", _reading_the_figures(answers), key(), _figures(answers)),
        section("The papers' procedure beside ours", _comparison(answers)),
        section("What was recorded", facts(recorded)),
        section("How to read this page", _how_to_read()),
    )


def verdict(word: str) -> Html:
    """Return a verdict as a coloured word.

    Parameters
    ----------
    word : str
        One of `trajtools.results.VERDICTS`.

    Returns
    -------
    Html
        The word.
    """
    return tag("span", word, class_=f"verdict {word}")


def _rate(answer: Answer) -> str:
    rate = answer.hparams.get("learning_rate")
    return f"{rate:g}" if isinstance(rate, float | int) else answer.run


def _accuracy(answer: Answer) -> str:
    last = answer.facts.get("last", {}).get("accuracy")
    return f"{last:.0%}" if isinstance(last, float) and np.isfinite(last) else ""


def _level(answers: Sequence[Answer]) -> str:
    return f"{answers[0].exponent.level:.0%}" if answers else "95%"


def _findings(answers: Sequence[Answer]) -> Html:
    interval_head = f"{_level(answers)} interval"
    head = ["learning rate", "verdict", "exponent per step", interval_head, "fitted steps", "used", "test accuracy"]
    rows: list[list[Any]] = [
        [
            _rate(answer),
            verdict(answer.exponent.verdict),
            number(answer.exponent.value),
            interval(answer.exponent),
            window(answer.exponent),
            f"{answer.exponent.n_used} of {answer.exponent.n_total}",
            _accuracy(answer),
        ]
        for answer in answers
    ]
    return table(head, rows, numeric=(0, 2, 3, 4, 5, 6))


def _meanings(answers: Sequence[Answer]) -> list[Html]:
    given = {answer.exponent.verdict for answer in answers}
    return [tag("p", verdict(word), ". ", meaning) for word, meaning in MEANINGS.items() if word in given]


def _reading_the_figures(answers: Sequence[Answer]) -> Html:
    most = max((answer.growth.n_references for answer in answers), default=0)
    drawn = f" {MOST_CURVES} of the {most} initial conditions are drawn." if most > len(shown(most)) else ""
    return tag(
        "p",
        "The distance between a network and its copies: the sum of the absolute differences of all weights and biases. "
        "The vertical axis is logarithmic, so exponential growth is a straight line and its steepness is the exponent."
        f"{drawn} All figures share the vertical axis.",
    )


def _figures(answers: Sequence[Answer]) -> Html:
    shared = log10_range([answer.growth for answer in answers]) if answers else None
    cards = []
    for answer in answers:
        exponent = answer.exponent
        value = f"{number(exponent.value)} per step, {interval(exponent)}" if np.isfinite(exponent.value) else ""
        heading = tag(
            "h3", f"learning rate {_rate(answer)}", verdict(exponent.verdict), tag("span", value, class_="value")
        )
        reasons = [tag("li", reason) for reason in (*exponent.reasons, *exponent.warnings, *answer.growth.warnings)]
        figure = divergence_figure(answer.growth, exponent, shared)
        cards.append(tag("article", heading, figure, tag("ul", reasons) if reasons else None, class_="card"))
    return tag("div", cards, class_="cards")


def _comparison(answers: Sequence[Answer]) -> list[Html]:
    head = ["learning rate", "ours", "papers", "s.d. over kept", "kept"]
    rows: list[list[Any]] = []
    for answer in answers:
        theirs = answer.published
        if theirs is None:
            continue
        value, deviation = number(theirs.value), number(spread(theirs))
        if not theirs.n_used:
            value, deviation = "none kept", ""
        rows.append([_rate(answer), number(answer.exponent.value), value, deviation, f"{kept(theirs):.0%}"])
    return [
        tag(
            "p",
            "Danovski, Soriano and Lacasa (2024) fit, for each initial condition, the logarithm of the mean distance "
            "in every window of a grid, take the straightest one, drop all initial conditions with R",
            tag("sup", "2"),
            " below 0.9 or a slope below 0.05, and average the rest. Both choices move the number: the straightest "
            "window is often a steep burst, the mean over copies follows the fastest copy, and initial conditions that "
            "do not diverge are left out, so that the average cannot come out at zero. Where few are kept, the number "
            "describes those few and not the learning rate.",
        ),
        tag(
            "p",
            "Ours follows every initial condition from a common start until it comes near saturation, and divides the "
            "growth of all logarithms by all the time that it took. An initial condition that waits long before it "
            "diverges counts with its waiting, one that never diverges counts as well; the papers measure the "
            "steepness of the burst alone. Where ours is smaller, this is why. The interval comes from resampling "
            "the initial conditions: copies of one initial condition share its path and are not independent.",
        ),
        table(head, rows, numeric=(0, 1, 2, 3, 4)),
    ]


def _how_to_read() -> list[Html]:
    return [
        tag(
            "p",
            "An exponent of 0.28 per step means that distances grow by a factor of e",
            tag("sup", "0.28"),
            " = 1.32 with every step, or a thousandfold in 25 steps. A positive exponent makes two trainings that "
            "start almost equal end in different weights. It does not say that either of them learns badly.",
        ),
        tag(
            "p",
            "The interval tells how much the exponent would change with other initial conditions. It does not cover a "
            "fitted window that was chosen badly: look whether the thin lines are straight inside the shaded window. "
            "It ends at the median time of reaching the level where fits stop. The dashed line is flatter than the "
            "thick one because slow initial conditions are followed for longer.",
        ),
        tag(
            "p",
            "Where the lines turn flat, the copies have become different networks and the distance grows no more with "
            "its own size: from there on it says nothing about sensitivity. Below the dotted line, differences "
            "drown in the rounding of the numbers.",
        ),
    ]
