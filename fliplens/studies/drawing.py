"""How plots are drawn: one style, colours and patterns that anyone can tell apart, the same file every time.

Needs matplotlib (the extra `plots`), which is imported by the functions alone. No display is needed and no state of
matplotlib is changed: figures are objects, drawn by Agg (PNG) or as SVG within a style that does not depend on the
user's own settings.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

from fliplens.errors import MissingExtraError

__all__ = [
    "COLOURS",
    "DASHES",
    "HATCHES",
    "MARKERS",
    "check_drawing",
    "families",
    "new_axes",
    "save",
    "style",
    "told_apart",
]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7", "#000000")
"""Okabe and Ito's, told apart by the colour-blind; in an order in which neighbours differ in lightness."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo")

PNG_DOTS_PER_INCH = 160
# Where an installed font has letters that DejaVu Sans has not, these are taken first: made to go with each other.
_PREFERRED = ("Noto Sans", "Noto Serif", "Lohit", "Noto")


def check_drawing() -> None:
    """Raise MissingExtraError where matplotlib is not installed: called before long work that ends in a plot."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("drawing plots", "plots") from error


@contextmanager
def style(text: str = "") -> Iterator[None]:
    """Draw in the style of FLiPLens inside the block, whatever the user's settings are.

    Args:
        text: all that will be written, so that fonts are found for its letters.
    """
    check_drawing()
    import matplotlib.style

    with matplotlib.style.context(["default", {**_SETTINGS, "font.family": families(text)}]):
        yield


_SETTINGS: dict[str, Any] = {
    # Ids from a fixed salt and text as text: the same figure gives the same file, and its words can be searched.
    "svg.hashsalt": "fliplens",
    "svg.fonttype": "none",
    # A name with two dollar signs is a name, not mathematics.
    "text.parse_math": False,
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "hatch.linewidth": 0.7,
}


def new_axes(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure (inches) and its axes: no frame but left and below, a light grid of y behind the data."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y", color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, kind: Literal["svg", "png"]) -> bytes:
    """Return a figure as the bytes of a file, without a date or a version: the same figure, the same bytes.

    Letters that no font here has are boxes in a PNG; an SVG holds them as text, for the reader's own fonts.
    """
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        figure.savefig(stream, format=kind, metadata=metadata, dpi=PNG_DOTS_PER_INCH)
    return stream.getvalue()


def families(text: str) -> list[str]:
    """Return the fonts to write a text with.

    First DejaVu Sans, which matplotlib brings, then installed ones that have letters it lacks; last, for who opens
    an SVG elsewhere, any without serifs.
    """
    missing = frozenset(ord(char) for char in text if not char.isspace()) - _letters(_dejavu())
    return ["DejaVu Sans", *(_fonts_for(missing) if missing else ()), "sans-serif"]


@lru_cache(maxsize=64)
def _fonts_for(missing: frozenset[int]) -> tuple[str, ...]:
    """Return installed fonts that together have the letters, as far as any has."""
    from matplotlib.font_manager import fontManager

    def order(font: Any) -> tuple[int, str, str]:
        place = next((n for n, name in enumerate(_PREFERRED) if font.name.startswith(name)), len(_PREFERRED))
        return place, font.name, font.fname

    chosen: list[str] = []
    # Last Resort has a sign for every script, and no letters.
    upright = [
        font
        for font in fontManager.ttflist
        if font.style == "normal" and font.weight in (400, "normal") and not font.name.startswith("Last Resort")
    ]
    for font in sorted(upright, key=order):
        if not missing:
            break
        if font.name not in chosen and (found := missing & _letters(font.fname)):
            chosen.append(font.name)
            missing -= found
    return tuple(chosen)


@lru_cache(maxsize=512)
def _letters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        # A broken font file on the machine is no reason not to draw.
        return frozenset()


def _dejavu() -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family="DejaVu Sans")))


def told_apart(number: int, choices: Sequence[Any]) -> Any:
    """Return the choice for a number, from the start again after the last."""
    return choices[number % len(choices)]
