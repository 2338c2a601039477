"""A text as a QR code. The only file that imports segno."""

from __future__ import annotations

import io

import segno
from markupsafe import Markup


def qr_svg(text: str, label: str) -> Markup:
    """The code as an SVG element, for a page whose policy allows no picture from elsewhere.

    Args:
        label: says what it is to people who cannot see it.
    """
    drawn = io.BytesIO()
    segno.make(text, micro=False).save(
        drawn, kind="svg", xmldecl=False, svgns=False, omitsize=True, border=2, svgclass="qr", lineclass=None
    )
    start, rest = drawn.getvalue().decode().strip().split("<svg", 1)
    return Markup(start + '<svg role="img" aria-label="{}"').format(label) + Markup(rest)
