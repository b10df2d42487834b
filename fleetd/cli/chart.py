"""Bar charts as SVG: text that every browser shows, and nothing to install."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from fleetd.cli.text import safe

WIDTH: Final = 760
HEIGHT: Final = 300  # of a panel
LEFT: Final = 64
RIGHT: Final = 20
HEAD: Final = 70  # above the first panel: title, subtitle
TOP: Final = 54  # in a panel, above its bars: heading and legend
FOOT: Final = 34
GAP: Final = 6  # between the bars of a group
TICKS: Final = 5
LEAST: Final = 1e-12  # less is nothing

Bar = Sequence[tuple[float, str]]  # its parts from below: value and colour


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars in groups. `groups`: what stands below each, and its bars; a bar without parts is left out."""

    title: str
    unit: str
    legend: Sequence[tuple[str, str]]  # name and colour
    groups: Sequence[tuple[str, Sequence[Bar]]]


def draw(title: str, subtitle: str, panels: Sequence[Panel]) -> str:
    """The whole picture, one panel below the other."""
    height = HEAD + HEIGHT * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"',
        'role="img" font-family="sans-serif" font-size="12" fill="#222">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="28" font-size="17" font-weight="bold">{_text(title)}</text>',
        f'<text x="{LEFT}" y="48" fill="#555">{_text(subtitle)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate(0 {HEAD + number * HEIGHT})">')
        parts.extend(_panel(panel))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def ticks(most: float) -> list[float]:
    """Round numbers from zero to at least `most`, about TICKS of them."""
    if not LEAST < most < math.inf:
        return [0.0, 1.0]
    rough = most / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [step * number for number in range(math.ceil(most / step * (1 - 1e-9)) + 1)]


def _panel(panel: Panel) -> Iterator[str]:
    bottom = HEIGHT - FOOT
    values = [sum(value for value, _ in bar) for _, bars in panel.groups for bar in bars]
    marks = ticks(max(values, default=0.0))
    scale = (bottom - TOP) / marks[-1]
    yield f'<text x="{LEFT}" y="14" font-size="14" font-weight="bold">{_text(panel.title)}</text>'
    yield from _legend(panel)
    for mark in marks:
        y = bottom - mark * scale
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>'
    yield f'<text x="{LEFT - 8}" y="{TOP - 14}" text-anchor="end" fill="#555">{_text(panel.unit)}</text>'
    room = (WIDTH - LEFT - RIGHT) / max(1, len(panel.groups))
    for number, (label, bars) in enumerate(panel.groups):
        left = LEFT + number * room
        yield f'<text x="{left + room / 2:.1f}" y="{bottom + 18}" text-anchor="middle">{_text(label)}</text>'
        yield from _group(bars, left, room, bottom, scale)


def _group(bars: Sequence[Bar], left: float, room: float, bottom: float, scale: float) -> Iterator[str]:
    wide = min(60.0, room * 0.7 / max(1, len(bars)) - GAP)
    x = left + (room - len(bars) * (wide + GAP) + GAP) / 2
    for bar in bars:
        y = bottom
        for value, color in bar:
            high = max(0.0, value) * scale
            y -= high
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="{color}"/>'
        if bar:
            total = sum(value for value, _ in bar)
            yield f'<text x="{x + wide / 2:.1f}" y="{y - 4:.1f}" text-anchor="middle">{_short(total)}</text>'
        x += wide + GAP


def _legend(panel: Panel) -> Iterator[str]:
    x = float(LEFT)
    for name, color in panel.legend:
        yield f'<rect x="{x:.0f}" y="22" width="11" height="11" fill="{color}"/>'
        yield f'<text x="{x + 16:.0f}" y="32">{_text(name)}</text>'
        x += 34 + 6.6 * len(name)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _text(text: str) -> str:
    return escape(safe(text))
