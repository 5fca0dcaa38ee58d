"""Words of a text with their places in it, and names found among them.

What a word is, the one tokeniser says. Two things that hang on names by an apostrophe are taken off where a name is
looked for: the possessive ('s) behind it, the elided article or preposition of French and Italian (l', d') before it.
"Germany's" and "l'Allemagne" hold the names Germany and Allemagne.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import regex

from fliplens.text.tokenisation import Tokeniser

__all__ = ["Place", "elided", "names_in", "possessor", "words_of"]

# The tokeniser's rule for a word, written for text as it stands: invisible characters (I), which the tokeniser drops,
# may be anywhere in it, and an apostrophe (A) has any of its spellings. A test holds the two rules together.
_I = (
    r"\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff"
    r"\U000e0100-\U000e01ef"
)
_A = r"'\u2019\u02bc\uff07"
_FIRST = rf"[[\p{{L}}\p{{N}}]--[{_A}{_I}]]"
_NEXT = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_A}{_I}]]"
_WORD = regex.compile(
    rf"(?V1){_FIRST}(?:[{_I}]*+{_NEXT})*+"
    rf"(?:(?:[{_I}]*+[{_A}][{_I}]*+(?={_FIRST})|(?:[{_I}]*+[\u200c\u200d])++[{_I}]*+)"
    rf"{_NEXT}(?:[{_I}]*+{_NEXT})*+)*+"
)
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z0-9]+)*")
_APOSTROPHE = re.compile(f"[{_A}]")
_ELISION = re.compile(
    r"(?:[cdjlmnst]|(?:jus|lors|puis|quoi)?qu|un|[ds]?all|(?:d?a)?gl|bell|dell|degl|nell|negl|sull|sugl|quell)'",
    re.IGNORECASE,
)
# Parts of a word between which ICU may cut, each a letter or digit with what hangs on it. Letters of Hangul, which
# NFC writes together, count as one.
_PART = regex.compile(r"(?:\p{Hangul}++|[\p{L}\p{N}])[^\p{L}\p{N}]*+")
_HANGING = regex.compile(rf"[{_A}{_I}\u200c\u200d]++\Z")
_UNCOUNTED = str.maketrans("", "", "'\u200c\u200d")
# Scripts that put nothing between words: a name in them need not be a word of the tokeniser's.
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")

_TOKENISER = Tokeniser()
# By whether it lower-cases: the spelling of İ with another mark on it has not the same length in both.
_CASED = {True: _TOKENISER, False: Tokeniser(lowercase=False)}


class Place(NamedTuple):
    """One word of a text."""

    term: str
    """As the tokeniser spells it."""
    start: int
    """Where it starts in the text."""
    end: int
    """Where it ends, exclusive."""


def words_of(text: str, tokeniser: Tokeniser = _TOKENISER) -> list[Place]:
    """Return the words of `text` with their places; their terms are those of `tokeniser.terms(text)`.

    Args:
        text: any text.
        tokeniser: of the mode default or icu, without folding of accents and with min_length 1.

    Raises:
        MissingExtraError: in the mode icu, text that needs it, and the extra `icu` is not installed.
    """
    if text.isascii():
        # Lower-casing ASCII keeps every place.
        shown = text.lower() if tokeniser.lowercase else text
        return [Place(match.group(), *match.span()) for match in _ASCII_WORD.finditer(shown)]
    places: list[Place] = []
    for match in _WORD.finditer(text):
        terms = tokeniser.terms(match.group())
        if len(terms) == 1:
            places.append(Place(terms[0], match.start(), match.end()))
        else:
            places += _placed(terms, match.group(), match.start(), _CASED[tokeniser.lowercase])
    return places


def _placed(terms: Sequence[str], text: str, offset: int, speller: Tokeniser) -> Iterator[Place]:
    """Yield the words that a dictionary cuts `text` into, with their places; `text` starts at `offset`.

    `speller` writes a part as the tokeniser of the words does, and cuts nothing by a dictionary.
    """
    parts = _PART.finditer(text)
    for term in terms:
        left = len(term.translate(_UNCOUNTED))
        start, end = -1, -1
        while left > 0 and (part := next(parts, None)) is not None:
            # A part spelt as the tokeniser spells it has as many characters as it brings to its word.
            left -= len("".join(speller.terms(part.group())).translate(_UNCOUNTED))
            start = part.start() if start < 0 else start
            end = part.start() + len(_HANGING.sub("", part.group()))
        yield Place(term, offset + start, offset + end)


def elided(place: Place, text: str) -> Place | None:
    """Return a word without the elided article or preposition before it; None if it has none."""
    found, apostrophe = _ELISION.match(place.term), _APOSTROPHE.search(text, place.start, place.end)
    if found is None or apostrophe is None:
        return None
    return Place(place.term[found.end() :], apostrophe.end(), place.end)


def possessor(place: Place, text: str) -> Place | None:
    """Return a word without the possessive behind it; None if it has none."""
    if place.term[-2:].lower() != "'s":
        return None
    start = max(match.start() for match in _APOSTROPHE.finditer(text, place.start, place.end))
    return Place(place.term[:-2], place.start, start)


def names_in(text: str, names: Iterable[str]) -> tuple[list[str], int]:
    """Return the names that `text` holds, each once and as the text writes it, and how many it does not hold.

    A name is held if its words stand in the text one after the other, whatever their case and the punctuation around
    and between them. In scripts without spaces between words it is held if its characters are. A name without any
    word is no name, and counts in neither.
    """
    words: list[Place] | None = None
    found: dict[tuple[str, ...], str] = {}
    missing = 0
    for name in names:
        terms = _TOKENISER.terms(name)
        if not terms:
            continue
        words = words_of(text) if words is None else words
        place = _find(text, words, terms)
        if place is not None:
            held = text[place[0] : place[1]]
            found.setdefault(tuple(terms if held == name else _TOKENISER.terms(held)), held)
        elif (whole := _held_unspaced(text, name)) is not None:
            found.setdefault(tuple(terms), whole)
        else:
            missing += 1
    return list(found.values()), missing


def _find(text: str, words: Sequence[Place], terms: Sequence[str]) -> tuple[int, int] | None:
    """Return start and end of the first place where words spell `terms`; whole words go before parts of them."""
    parts: tuple[int, int] | None = None
    last = len(terms) - 1
    for i in range(len(words) - last):
        if any(words[i + k].term != terms[k] for k in range(1, last)):
            continue
        ends = (words[i], words[i + last])
        if last == 0:
            spelt = [ends[0], elided(ends[0], text), possessor(ends[0], text)]
            match = next((one for one in spelt if one is not None and one.term == terms[0]), None)
            place = None if match is None else (match.start, match.end)
        else:
            first = next((one for one in (ends[0], elided(ends[0], text)) if one and one.term == terms[0]), None)
            behind = next((one for one in (ends[1], possessor(ends[1], text)) if one and one.term == terms[-1]), None)
            place = None if first is None or behind is None else (first.start, behind.end)
        if place == (ends[0].start, ends[1].end):
            return place
        parts = parts or place
    return parts


def _held_unspaced(text: str, name: str) -> str | None:
    """Return a name of a script without spaces if its characters are in the text."""
    if _UNSPACED.search(name) is None:
        return None
    name = unicodedata.normalize("NFC", name).strip()
    return name if name in unicodedata.normalize("NFC", text) else None
