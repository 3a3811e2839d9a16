"""Small charts in SVG: a frame with two axes into which lines, dots and areas are drawn.

Drawn 420 units wide so that its letters are readable on a phone (scaled by 0.85) and not huge beside others on a desk.
Colours are CSS classes of the page, so a chart follows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from netweight.report.markup import Markup, Node, element

__all__ = ["Chart", "ticks"]

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 14, 42

Point = tuple[float, float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers in a range, about `count` of them.

    >>> ticks(0, 10), ticks(0.13, 0.31, 4)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.15, 0.2, 0.25, 0.3])
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


@dataclass(slots=True)
class Chart:
    """A frame to draw into.

    Args:
        title: read out instead of the picture.
        x, y: ranges in data units; x may be logarithmic.
        x_label, y_label: with units.
        log_x: draw x by its logarithm, with ticks at powers of ten.
    """

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    log_x: bool = False
    height: int = HEIGHT
    y_ticks: bool = True
    _drawn: list[Markup] = field(default_factory=list)

    def place(self, point: Point) -> Point:
        """From data to the drawing, clamped to just outside the frame."""
        low, high = (math.log(v) for v in self.x) if self.log_x else self.x
        x = math.log(max(point[0], 1e-300)) if self.log_x else point[0]
        across = (x - low) / (high - low) if high > low else 0.5
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0]) if self.y[1] > self.y[0] else 0.5
        wide, tall = WIDTH - LEFT - RIGHT, self.height - TOP - BOTTOM
        return LEFT + wide * min(3.0, max(-2.0, across)), TOP + tall * (1 - min(3.0, max(-2.0, up)))

    def line(self, points: Sequence[Point], name: str) -> None:
        """Draw a line through points; `name` is a CSS class."""
        self._drawn.append(element("polyline", points=_coordinates(map(self.place, points)), class_=f"line {name}"))

    def area(self, points: Sequence[Point], name: str) -> None:
        """Fill between points and the bottom."""
        base = [(points[0][0], self.y[0]), *points, (points[-1][0], self.y[0])]
        self._drawn.append(element("polygon", points=_coordinates(map(self.place, base)), class_=f"area {name}"))

    def dot(self, point: Point, name: str, note: Node = "", radius: float = 3.5) -> None:
        """Draw a dot that shows a note when pointed at."""
        x, y = self.place(point)
        inner = [element("title", note)] if note else []
        self._drawn.append(element("circle", *inner, cx=x, cy=y, r=radius, class_=f"dot {name}"))

    def stem(self, point: Point, name: str, base: float | None = None) -> None:
        """Draw a thin line from the bottom, or a base, up to a point."""
        x, y = self.place(point)
        _, foot = self.place((point[0], self.y[0] if base is None else base))
        self._drawn.append(element("line", x1=x, x2=x, y1=foot, y2=y, class_=f"stem {name}"))

    def text(self, point: Point, words: Node, name: str = "", anchor: str = "start", lift: float = 0.0) -> None:
        """Write words at a point, some units above it."""
        x, y = self.place(point)
        self._drawn.append(element("text", words, x=x, y=y - lift, text_anchor=anchor, class_=f"mark {name}"))

    def draw(self) -> Markup:
        """The whole picture."""
        inside = (LEFT, TOP, WIDTH - LEFT - RIGHT, self.height - TOP - BOTTOM)
        clip = element(
            "svg", *self._drawn, x=inside[0], y=inside[1], width=inside[2], height=inside[3],
            viewBox=" ".join(map(str, inside)),
        )  # fmt: skip
        return element(
            "svg", element("title", self.title), *self._axes(), clip,
            viewBox=f"0 0 {WIDTH} {self.height}", role="img", class_="chart",
        )  # fmt: skip

    def _axes(self) -> list[Markup]:
        bottom = self.height - BOTTOM
        out = []
        for value in self._x_ticks():
            x, _ = self.place((value, self.y[0]))
            out.append(element("line", x1=x, x2=x, y1=TOP, y2=bottom, class_="grid"))
            out.append(element("text", _label(value), x=x, y=bottom + 15, text_anchor="middle", class_="tick"))
        for value in ticks(*self.y) if self.y_ticks else []:
            _, y = self.place((self.x[0], value))
            out.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            out.append(element("text", _label(value), x=LEFT - 5, y=y + 4, text_anchor="end", class_="tick"))
        out.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
        middle = (LEFT + WIDTH - RIGHT) / 2
        out.append(element("text", self.x_label, x=middle, y=self.height - 7, text_anchor="middle", class_="label"))
        turn = f"translate(12 {(TOP + bottom) / 2:.0f}) rotate(-90)"
        out.append(element("text", self.y_label, transform=turn, text_anchor="middle", class_="label"))
        return out

    def _x_ticks(self) -> list[float]:
        if not self.log_x:
            return ticks(*self.x)
        low, high = (math.log10(v) for v in self.x)
        powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
        return [10.0**n for n in powers]


def _label(value: float) -> str:
    """A number in as few characters as tell it.

    >>> _label(0.25), _label(1e6), _label(20000), _label(-0.0)
    ('0.25', '1M', '20k', '0')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return "0" if value == 0 else f"{value:.3g}"


def _coordinates(points: object) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)  # type: ignore[attr-defined]
