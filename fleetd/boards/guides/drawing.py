"""Drawings of what is bridged or switched, for documents (SVG) and for a terminal. Made from the profile.

They name the pins as they are printed on the board. They do not show where on the board the pins are: that differs
between revisions, and the printing is what counts.
"""

from typing import Final
from xml.sax.saxutils import escape

from fleetd.boards.shape import BoardProfile

WIDTH, HEIGHT = 460, 250
_STYLE: Final = (
    "text{font-family:sans-serif;font-size:14px;fill:#222}.s{font-size:12px;fill:#555}.b{font-weight:bold}"
    ".board{fill:#eef3ee;stroke:#345;stroke-width:2}.pad{fill:#fff;stroke:#345;stroke-width:2}"
    ".hot{fill:#ffd27f;stroke:#a60;stroke-width:3}.wire{fill:none;stroke:#c30;stroke-width:5;stroke-linecap:round}"
    ".usb{fill:#ccd;stroke:#345;stroke-width:2}.no{stroke:#c30;stroke-width:4}"
)
_NAMES: Final = "Go by the names printed beside the pins; this is not to scale."
_OTHERS: Final = 2  # pads on either side that are left alone


def svg(board: BoardProfile) -> str | None:
    """The drawing as SVG; None for a board that has nothing to bridge or to switch."""
    if board.recovery.bridge is not None:
        middle, label = _pads(board.recovery.bridge), f"Connect {' and '.join(board.recovery.bridge)}"
    elif board.recovery.switch is not None:
        middle, label = _switch(board.recovery.switch), f"Move the switch marked {board.recovery.switch}"
    else:
        return None
    notes = "while nothing has power: USB and every other supply unplugged"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escape(board.name)}: {escape(label)}</title>",
            f"<style>{_STYLE}</style>",
            '<rect class="board" x="20" y="40" width="300" height="150" rx="12"/>',
            f'<text x="36" y="64">{escape(board.name)}</text>',
            *middle,
            '<rect class="usb" x="330" y="98" width="34" height="36" rx="4"/>',
            '<text class="s" x="372" y="120">USB</text>',
            '<path class="no" d="M332 92 l30 48 M362 92 l-30 48"/>',
            f'<text class="b" x="20" y="24">{escape(label)}</text>',
            f'<text class="s" x="20" y="214">{escape(notes)}.</text>',
            f'<text class="s" x="20" y="234">{_NAMES}</text>',
            "</svg>",
            "",
        ]
    )


def terminal(board: BoardProfile) -> tuple[str, ...]:
    """The same in characters; nothing for a board that has nothing to bridge or to switch."""
    if board.recovery.bridge is not None:
        one, other = board.recovery.bridge
        wire = "=" * (len(one) + 5)
        middle = (
            f"|   ( ) ( ) [{one}]   [{other}] ( ) ( )",
            f"|            '{wire}'   <- wire",
        )
    elif board.recovery.switch is not None:
        middle = (f"|   [ o---]  {board.recovery.switch}", "|     '-> move it to the other side")
    else:
        return ()
    width = max(len(line) for line in (*middle, f"|  {board.name}")) + 3
    rows = [f"|  {board.name}", "|", *middle, "|"]
    edge = "+" + "-" * (width - 1) + "+"
    boxed = [row.ljust(width) + "|" for row in rows]
    boxed[2] += "-X- USB unplugged"
    return (edge, *boxed, edge, _NAMES)


def _pads(pins: tuple[str, str]) -> list[str]:
    names = [None] * _OTHERS + [pins[0], None, pins[1]] + [None] * _OTHERS
    parts, hot = [], []
    for number, name in enumerate(names):
        x = 50 + 40 * number
        parts.append(f'<circle class="{"hot" if name else "pad"}" cx="{x}" cy="140" r="11"/>')
        if name:
            hot.append(x)
            parts.append(f'<text class="b" x="{x}" y="172" text-anchor="middle">{escape(name)}</text>')
    left, right = hot
    parts.append(f'<path class="wire" d="M{left} 128 C{left} 84 {right} 84 {right} 128"/>')
    return parts


def _switch(name: str) -> list[str]:
    return [
        '<rect class="pad" x="90" y="120" width="80" height="30" rx="6"/>',
        '<rect class="hot" x="94" y="124" width="34" height="22" rx="4"/>',
        '<path class="wire" d="M134 135 h26"/>',
        f'<text class="b" x="130" y="172" text-anchor="middle">{escape(name)}</text>',
    ]
