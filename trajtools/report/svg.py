"""Figures as inline SVG: lines, bands and rules in a frame with axes. Colours come from the page's style sheet.

The frame is small (400 x 280) and its letters are set for that size, so that a figure stays legible on a telephone,
where it is drawn about as large as here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajtools.report.markup import Html, tag

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 380, 12, 238  # beyond RIGHT there is room for half of the last tick's number


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values.

    Parameters
    ----------
    low, high : float
        The range; high > low.
    about : int
        Roughly how many are wanted.

    Returns
    -------
    list of float
        Multiples of 1, 2 or 5 times a power of ten, in [low, high].
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


@dataclass
class Figure:
    """One frame; y is drawn as a power of ten of what is given in log10.

    Attributes
    ----------
    x, y : tuple of float
        Range of either axis; y in log10.
    x_label, y_label : str
        What the axes show, with the unit.
    title : str
        What a screen reader says instead of the drawing.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    title: str
    _parts: list[Html] = field(default_factory=list)

    def _at_x(self, value: Any) -> Any:
        return LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (RIGHT - LEFT)

    def _at_y(self, value: Any) -> Any:
        return BOTTOM - (value - self.y[0]) / (self.y[1] - self.y[0]) * (BOTTOM - TOP)

    def band(self, start: float, stop: float, look: str) -> None:
        """Shade a range of x from bottom to top.

        Parameters
        ----------
        start, stop : float
            The range; what lies outside the frame is cut.
        look : str
            Class in the style sheet.
        """
        left, right = np.clip((self._at_x(start), self._at_x(stop)), LEFT, RIGHT)
        width, height = f"{right - left:.1f}", BOTTOM - TOP
        self._parts.append(tag("rect", x=f"{left:.1f}", y=TOP, width=width, height=height, class_=look))

    def rule(self, y: float, look: str, words: str = "") -> None:
        """Draw a level line; none if it lies outside the frame.

        Parameters
        ----------
        y : float
            In log10, as the range.
        look : str
            Class in the style sheet.
        words : str
            What stands above its right end.
        """
        if not self.y[0] <= y <= self.y[1]:
            return
        at = float(self._at_y(y))
        self._parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=f"{at:.1f}", y2=f"{at:.1f}", class_=look))
        if words:
            above = at - 4 if at > TOP + 14 else at + 12
            self._parts.append(tag("text", words, x=RIGHT - 4, y=f"{above:.1f}", class_="note", text_anchor="end"))

    def line(self, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, look: str) -> None:
        """Draw a line; it is broken where y is not finite, and cut at the frame.

        Parameters
        ----------
        x, y : sequence of float, of equal length
            Its points, y in log10.
        look : str
            Class in the style sheet.
        """
        at_x, at_y = self._at_x(np.asarray(x, dtype=float)), self._at_y(np.asarray(y, dtype=float))
        words, pen_down = [], False
        for px, py in zip(at_x, at_y, strict=True):
            if not (math.isfinite(px) and math.isfinite(py)):
                pen_down = False
                continue
            words.append(f"{'L' if pen_down else 'M'}{px:.1f} {py:.1f}")
            pen_down = True
        if words:
            self._parts.append(tag("path", d="".join(words), class_=look))

    def between(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, look: str) -> None:
        """Shade what lies between two lines; points where either is not finite are left out.

        Parameters
        ----------
        x, low, high : ndarray of float, of equal length
            The lines, low and high in log10.
        look : str
            Class in the style sheet.
        """
        known = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
        if known.sum() < 2:
            return
        around = np.concatenate([x[known], x[known][::-1]])
        edge = np.concatenate([low[known], high[known][::-1]])
        words = [f"{px:.1f} {py:.1f}" for px, py in zip(self._at_x(around), self._at_y(edge), strict=True)]
        self._parts.append(tag("path", d=f"M{'L'.join(words)}Z", class_=look))

    def _axes(self) -> list[Html]:
        parts = [tag("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="axis")]
        parts.append(tag("line", x1=LEFT, x2=LEFT, y1=TOP, y2=BOTTOM, class_="axis"))
        for value in nice_ticks(*self.x):
            at = f"{self._at_x(value):.1f}"
            parts.append(tag("line", x1=at, x2=at, y1=BOTTOM, y2=BOTTOM + 4, class_="axis"))
            parts.append(tag("text", f"{value:g}", x=at, y=BOTTOM + 17, text_anchor="middle"))
        for value in nice_ticks(*self.y):
            if value != round(value):
                continue  # a power of ten with a fraction says nothing to a reader
            at = f"{self._at_y(value):.1f}"
            parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=at, y2=at, class_="grid"))
            power = tag("tspan", int(value), dy="-4", class_="power")
            parts.append(tag("text", "10", power, x=LEFT - 6, y=f"{float(at) + 4:.1f}", text_anchor="end"))
        middle = (TOP + BOTTOM) / 2
        parts.append(tag("text", self.x_label, x=(LEFT + RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle"))
        turn = f"translate(13 {middle:g}) rotate(-90)"
        parts.append(tag("text", self.y_label, transform=turn, text_anchor="middle"))
        return parts

    def render(self) -> Html:
        """The drawing as one SVG element."""
        # An inner svg cuts what it holds at its own frame; a clip path would need a name that is unique on the page.
        width, height = RIGHT - LEFT, BOTTOM - TOP
        inside = f"{LEFT} {TOP} {width} {height}"
        drawn = tag("svg", self._parts, x=LEFT, y=TOP, width=width, height=height, viewBox=inside)
        box = f"0 0 {WIDTH} {HEIGHT}"
        return tag("svg", tag("title", self.title), self._axes(), drawn, viewBox=box, role="img")
