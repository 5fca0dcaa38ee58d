"""Words of scripts that put nothing between them, by the dictionaries of ICU. Needs the extra `icu`.

Chinese, Japanese, Thai, Lao, Khmer and Burmese are cut by the word breaker of ICU (International Components for
Unicode, https://unicode-org.github.io/icu/userguide/boundaryanalysis/), which is given runs of these scripts alone:
whatever else a text holds never gets there. A word that comes out is a word on its own as well: ICU, given nothing
else, leaves it whole. Where the words around it had kept one together that it cuts on its own, it is cut.
"""

from __future__ import annotations

import re
import warnings
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import regex

from fliplens.errors import FliplensWarning, MissingExtraError

if TYPE_CHECKING:
    from icu4py.breakers import WordBreaker

__all__ = ["forget", "holds_unspaced", "icu_version", "installed_icu", "spaced", "warn_of_another_icu"]

# Letters and numerals (〇) of the scripts that ICU has dictionaries of; of the signs that belong to several scripts
# those of Japanese: closing mark, repeat marks, long vowel, voicing in half width. Decimal digits are left to the
# rule of all other scripts, so that numbers are cut in the same way everywhere.
_LETTER = (
    r"[[[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{N}]]--\p{Nd}]"
    r"\u3006\u3031-\u3035\u303c\u30fc\uff70\uff9e\uff9f"
)
_UNSPACED = regex.compile(rf"(?V1)[{_LETTER}]")
# Blocks outside which there is no such letter: to search for them costs a fraction of a search for the letters.
_FAR = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u2e80-\ua4cf\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\U0010ffff]"
)
_RUN = regex.compile(rf"(?V1)[{_LETTER}][{_LETTER}\p{{M}}\u200c\u200d]*+")
# What no word starts with: it stays with the letter before it.
_HANGS_ON = regex.compile(r"[\p{M}\u200c\u200d]")
_JOINERS = "\u200c\u200d"

# Longer ones are rare, and may be as long as a text.
_LONGEST_KEPT = 16


@cache
def installed_icu() -> str | None:
    """Return the version of the ICU that is installed, None without the extra."""
    try:
        from icu4py import icu_version
    except ImportError:
        return None
    return str(icu_version)


def icu_version() -> str:
    """Return the version of the ICU that is installed.

    Raises:
        MissingExtraError: the extra `icu` is not installed.
    """
    version = installed_icu()
    if version is None:
        raise MissingExtraError("the tokeniser icu", "icu")
    return version


def holds_unspaced(text: str) -> bool:
    """Return whether `text` (in NFC) holds letters of a script that is cut by a dictionary."""
    return _FAR.search(text) is not None and _UNSPACED.search(text) is not None


def spaced(text: str) -> str:
    """Return `text` (in NFC) with spaces around every word of the scripts that are cut by a dictionary.

    Nothing else is changed, but for zero-width joiners at the edge of such a word, which are left out. The words so
    spaced are spaced in the same way again.

    Raises:
        MissingExtraError: `text` holds such words, and the extra `icu` is not installed.
    """
    return _RUN.sub(lambda match: f" {' '.join(_words(match.group()))} ", text)


def _words(run: str) -> list[str]:
    """Return the words of one run of letters, each of which is one word on its own as well."""
    words: list[str] = []
    for piece in _pieces(run):
        words += _alone(piece) if len(piece) <= _LONGEST_KEPT else _settled(piece)
    return words


@lru_cache(maxsize=1 << 17)
def _alone(piece: str) -> tuple[str, ...]:
    """Return the words of a piece that stands alone; pieces come again and again, so they are kept."""
    return (piece,) if len(piece) == 1 else tuple(_settled(piece))


def forget() -> None:
    """Forget the pieces that were met before; only speed depends on them."""
    _alone.cache_clear()


def _settled(piece: str) -> list[str]:
    """Return the words that a piece falls into when it, and what comes of it, is cut until nothing falls apart."""
    words: list[str] = []
    waiting = [piece]
    while waiting:
        piece = waiting.pop()
        pieces = _pieces(piece)
        if len(pieces) == 1:
            words += pieces
        else:
            waiting += reversed(pieces)
    return words


def _pieces(run: str) -> list[str]:
    """Return what ICU cuts a run into, with marks put back to their letters and outer joiners off."""
    pieces: list[str] = []
    # The root locale: dictionaries are chosen by script, and the machine's language must change nothing.
    for piece in _breaker()(run, "root"):
        if pieces and _HANGS_ON.match(piece):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return [piece.rstrip(_JOINERS) for piece in pieces]


@cache
def _breaker() -> type[WordBreaker]:
    icu_version()
    from icu4py.breakers import WordBreaker

    return WordBreaker


_warned: set[str] = set()


def warn_of_another_icu(recorded: str) -> None:
    """Warn, once for each version, where words that ICU `recorded` cut will be cut by another version of it.

    Without the extra there is nothing to warn of: what needs words cut says that it is missing.
    """
    installed = installed_icu()
    if installed is None or installed == recorded or recorded in _warned:
        return
    _warned.add(recorded)
    warnings.warn(
        f"expected ICU {recorded}, whose dictionaries cut the words of this vocabulary, found {installed}: Chinese, "
        "Japanese, Thai, Lao, Khmer or Burmese words may be cut otherwise, so install an icu4py with that ICU or fit "
        "again",
        FliplensWarning,
        stacklevel=3,
    )
