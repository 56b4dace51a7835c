"""Drawings of a report, as SVG that takes its colours from the page."""

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 30
_MOST_TICKS = 5
_EDGE = 0.97
"""From this share of the width on, the text of a tick would leave the drawing."""

Point = tuple[float, float]
Tick = tuple[float, str]
"""Where along an axis, as a share of it, and what stands there."""


def lines(name: str, unit: str, x_unit: str, series: Sequence[tuple[str, Sequence[Point]]]) -> str:
    """Lines over a linear axis, each with a class of colour; gaps where a point is no number."""
    most_x = max((x for _, points in series for x, _ in points), default=1) or 1
    most_y = max((y for _, points in series for _, y in points if not math.isnan(y)), default=0) or 1
    top = nice_steps(most_y)[-1]

    def place(point: Point) -> str:
        x, y = point
        return f"{_LEFT + x / most_x * (_WIDTH - _LEFT - _RIGHT):.1f} {_across(y / top):.1f}"

    drawn = []
    for colour, points in series:
        path, pen = "", "M"
        for point in points:
            if math.isnan(point[1]):
                pen = "M"
                continue
            path += f"{pen}{place(point)}"
            pen = "L"
        drawn.append(f'<path class="line {colour}" d="{path}"/>')
    x_ticks = [(value / most_x, short(value)) for value in nice_steps(most_x) if value <= most_x]
    y_ticks = [(value / top, short(value)) for value in nice_steps(most_y)]
    return _frame(name, unit, x_unit, x_ticks, y_ticks, "".join(drawn))


def histogram(
    name: str, unit: str, counts: Sequence[int], x_ticks: Sequence[tuple[int, str]], titles: list[str]
) -> str:
    """Bars of equal width, and how many of all are in them or before as a line; x ticks by number of the bar."""
    width = (_WIDTH - _LEFT - _RIGHT) / len(counts)
    top, total, so_far = nice_steps(max(counts))[-1], sum(counts), 0
    bars, path = [], f"M{_LEFT:.1f} {_across(0):.1f}"
    for number, (count, title) in enumerate(zip(counts, titles, strict=True)):
        x, y = _LEFT + number * width, _across(count / top)
        if count:
            bars.append(
                f'<rect class="bar" x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(width - 1, 0.5):.1f}" '
                f'height="{_across(0) - y:.1f}"><title>{escape(title)}</title></rect>'
            )
        so_far += count
        path += f"L{x + width:.1f} {_across(so_far / total):.1f}"
    y_ticks = [(value / top, short(value)) for value in nice_steps(max(counts))]
    marks = [(number / len(counts), text) for number, text in x_ticks]
    return _frame(name, unit, "", marks, y_ticks, "".join(bars) + f'<path class="line share" d="{path}"/>')


def _frame(name: str, unit: str, x_unit: str, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], inside: str) -> str:
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">']
    for share, text in y_ticks:
        y = _across(share)
        parts.append(f'<path class="rule" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 8}" y="{y + 4:.1f}">{text}</text>')
    last = len(x_ticks) - 1
    for number, (share, text) in enumerate(x_ticks):
        x = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        more = f" {x_unit}" if number == last and x_unit else ""
        anchor = ' style="text-anchor:end"' if share > _EDGE else ""
        parts.append(f'<text class="x" x="{x:.1f}" y="{_HEIGHT - 10}"{anchor}>{text}{more}</text>')
    parts.append(f'{inside}<text class="unit" x="{_LEFT + 4}" y="{_TOP + 10}">{escape(unit)}</text></svg>')
    return "".join(parts)


def _across(share: float) -> float:
    """The y of a share of the height."""
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def nice_steps(most: float) -> list[float]:
    """Round numbers from 0 to the first that is not below `most`.

    >>> nice_steps(7), nice_steps(0.3)
    ([0.0, 2.0, 4.0, 6.0, 8.0], [0.0, 0.1, 0.2, 0.3])
    """
    rough = most / (_MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
    return [round(at * step, 12) for at in range(math.ceil(most / step - 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis: `0.2`, `15`, `400 k`, `1.5 M`."""
    for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:g}{letter}"
    return f"{value:g}"
