"""A label to print and stick on a camera: its name, and the name as a QR code."""

from typing import Any, Final

_QUIET: Final = 4  # light modules around a QR code, as its standard asks
_WIDTH_MM: Final = 60
_HEIGHT_MM: Final = 20


def qr_matrix(text: str) -> list[list[bool]] | None:
    """The dark modules of a QR code by rows; None when the library for it is not installed."""
    try:
        import segno  # noqa: PLC0415  # optional: the extra `labels`
    except ImportError:
        return None
    code: Any = segno.make_qr(text, error="q")
    return [[bool(module) for module in row] for row in code.matrix]


def svg(camera: str, matrix: list[list[bool]] | None) -> str:
    """The label. A camera's name has no character that SVG would need escaped."""
    size = f'width="{_WIDTH_MM}mm" height="{_HEIGHT_MM}mm" viewBox="0 0 {_WIDTH_MM} {_HEIGHT_MM}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f'<rect width="{_WIDTH_MM}" height="{_HEIGHT_MM}" fill="#fff"/>',
    ]
    left = 2
    if matrix is not None:
        left = _HEIGHT_MM
        scale = _HEIGHT_MM / (len(matrix) + 2 * _QUIET)
        dark = "".join(
            f"M{x + _QUIET} {y + _QUIET}h1v1h-1z"
            for y, row in enumerate(matrix)
            for x, is_dark in enumerate(row)
            if is_dark
        )
        parts.append(f'<path transform="scale({scale:.4f})" d="{dark}" fill="#000"/>')
    room = _WIDTH_MM - left - 2
    letter = min(8.0, room / (0.62 * len(camera)))  # monospaced letters are 0.6 of their height wide
    parts.append(
        f'<text x="{left}" y="{_HEIGHT_MM / 2 + letter / 3:.2f}" font-family="monospace" font-weight="bold" '
        f'font-size="{letter:.2f}">{camera}</text>'
    )
    return "\n".join([*parts, "</svg>", ""])
