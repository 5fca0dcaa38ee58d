"""Text to words: the one tokeniser that vocabulary, training and evaluation share.

The default mode reads words as people write them, in any script that puts something between its words: Hindi,
Bengali, Tamil and Telugu words keep their vowel signs, "don't" and "don’t" are one word, and the two Unicode
spellings of "é" are one letter. Chinese, Japanese, Thai and the like need a dictionary to be cut into words:
here a run of their letters is one word.

The mode `icu` is the default mode with such a dictionary, ICU's (`fliplens.text.segmentation`).

The published modes do what the published FLiP code does, for comparison with it: one rule for vocabulary and
training, another for evaluation.
"""

from __future__ import annotations

import dataclasses
import re
import string
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

import regex

from fliplens.errors import InputError
from fliplens.text.segmentation import holds_unspaced, icu_version, spaced, warn_of_another_icu

__all__ = ["AccentFolding", "Tokeniser", "TokeniserMode"]

TokeniserMode = Literal["default", "icu", "published", "published-indic"]
"""Which rules cut text into words; see `Tokeniser`."""

AccentFolding = Literal["unicode", "ascii"]
"""How accents are taken off letters; see `Tokeniser`."""

# --- default mode ------------------------------------------------------------

# A word starts with a letter or a digit, so that a stray combining mark never becomes a word of its own, and
# goes on over letters, marks and digits. An apostrophe joins two such runs, and so does a zero-width
# (non-)joiner, which changes how Indic and Persian letters join and is part of the spelling.
_WORD = regex.compile(
    r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]*+"
    r"(?:(?:'(?=[\p{L}\p{N}])|[\u200c\u200d]++)[\p{L}\p{M}\p{N}]++)*+"
)
# The same rule where all text is ASCII, for speed.
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z0-9]+)*")

# Invisible, and no boundary between words: soft hyphen, direction marks, word joiner and its kin, byte-order
# mark, variation selectors. "Schiff\u00adfahrt" is the word "Schifffahrt".
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+"
)
# Typographic apostrophe, modifier letter apostrophe, full-width apostrophe.
_APOSTROPHES = re.compile("[\u2019\u02bc\uff07]")
# Lower-casing the Turkish İ leaves an i with a second dot on it, which no Turkish text writes.
_DOTTED_I = re.compile("i\u0307+")

_UNCOUNTED = regex.compile(r"[\p{M}\u200c\u200d]+")
_ACCENTED = regex.compile(r"(?V1)([[\p{Latin}\p{Greek}\p{Cyrillic}]&&\p{L}])\p{M}+")
_BEYOND_ASCII = regex.compile(r"(?V1)[[\p{L}\p{M}\p{N}\u200c\u200d]--[\x00-\x7f]]+")
# Letters that Unicode does not decompose, though everybody knows how to write them in ASCII.
_ASCII_SPELLING = str.maketrans(
    {
        "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l",
        "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ħ": "h", "Ħ": "H", "ı": "i",
    }
)  # fmt: skip

# --- published modes ---------------------------------------------------------

_PUBLISHED_WORD = {
    "published": re.compile(r"(?u)\b\w\w+\b"),
    "published-indic": re.compile(r"[\S]+"),
}
_PUBLISHED_DELETED = str.maketrans("", "", string.punctuation + "’“”‘[]\u200c\u200b\u2060—")


@dataclass(frozen=True, kw_only=True)
class Tokeniser:
    """How text is cut into words (*terms*). Immutable; two equal tokenisers give the same terms.

    Two facts hold in the modes default and icu for every text: its terms joined by spaces give the same terms
    again, and its NFC and NFD spellings give the same terms. No mode raises on any string, but for icu without its
    extra, on text that needs it.

    Raises:
        InputError: an option has a value that it cannot have; the message names it.
        MissingExtraError: the mode icu without `icu_version`, and the extra `icu` is not installed.
    """

    mode: TokeniserMode = "default"
    """`default`: a word is a run of letters, combining marks and digits in NFC, with inner apostrophes (all
    written ') and zero-width joiners kept; everything else separates words, the underscore too.

    `icu`: as default, and words of Chinese, Japanese, Thai, Lao, Khmer and Burmese are found by ICU's dictionaries.
    Text without these scripts gives the terms of the default mode. Needs the extra `icu`.

    `published` and `published-indic`: what the published code does. Vocabulary and training follow
    scikit-learn's `CountVectorizer` with the token pattern `(?u)\\b\\w\\w+\\b` (which drops one-letter words
    and cuts Indic words at their marks) or `[\\S]+`; evaluation deletes punctuation, lower-cases and splits
    on whitespace."""

    lowercase: bool = True
    """Lower-case the terms. The evaluation half of the published modes lower-cases in any case."""

    strip_accents: AccentFolding | None = None
    """`unicode` takes the combining marks off Latin, Greek and Cyrillic letters and leaves other scripts
    whole; `ascii` writes letters in ASCII and drops those that have no such spelling, and words of nothing
    else. In the published modes both mean what they mean in scikit-learn, and evaluation folds nothing."""

    min_length: int = 1
    """Shortest term kept, in characters other than combining marks and joiners. Not in the published
    modes, whose patterns have their own."""

    icu_version: str | None = None
    """In the mode icu, the version of ICU whose dictionaries the words are meant to be cut by; None takes the
    installed one. It is a record: whichever version is installed cuts, and `from_json` warns where it is another."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(TokeniserMode):
            raise _bad_option("mode", f"one of {', '.join(get_args(TokeniserMode))}", self.mode)
        if not isinstance(self.lowercase, bool):
            raise _bad_option("lowercase", "true or false", self.lowercase)
        if self.strip_accents is not None and self.strip_accents not in get_args(AccentFolding):
            raise _bad_option("strip_accents", "unicode, ascii or nothing", self.strip_accents)
        if type(self.min_length) is not int or self.min_length < 1:
            raise _bad_option("min_length", "a whole number from 1", self.min_length)
        if self.mode in _PUBLISHED_WORD and self.min_length != 1:
            raise InputError(
                f"expected min_length 1 with the tokeniser mode {self.mode}, whose pattern sets its own "
                f"shortest word, found {self.min_length}: leave min_length out, or use the mode default"
            )
        if self.mode != "icu" and self.icu_version is not None:
            raise InputError(
                f"expected icu_version with the tokeniser mode icu alone, found it with {self.mode}: leave it out"
            )
        if self.mode == "icu":
            if self.icu_version is None:
                object.__setattr__(self, "icu_version", icu_version())
            elif not isinstance(self.icu_version, str) or not self.icu_version:
                raise _bad_option("icu_version", "a version such as 78.3", self.icu_version)

    def terms(self, text: str) -> list[str]:
        """Return the words of `text` in order, with repeats: the vocabulary and training side.

        Raises:
            MissingExtraError: in the mode icu, text that needs it, and the extra `icu` is not installed.
        """
        if self.mode in _PUBLISHED_WORD:
            return self._published_terms(text)
        if text.isascii():
            found = _ASCII_WORD.findall(text.lower() if self.lowercase else text)
        else:
            text = self._normalise(text)
            if self.mode == "icu" and holds_unspaced(text):
                text = spaced(text)
            found = _WORD.findall(text)
        if self.min_length > 1:
            return [term for term in found if _length(term) >= self.min_length]
        return found

    def reference_terms(self, text: str) -> list[str]:
        """Return the words of `text` that an evaluation looks for, in order, with repeats.

        The same as `terms`, except in the published modes, where the two halves differ as they do in the
        published code.
        """
        if self.mode not in _PUBLISHED_WORD:
            return self.terms(text)
        return text.translate(_PUBLISHED_DELETED).lower().split()

    def to_json(self) -> dict[str, object]:
        """Return the settings as a JSON object, for `from_json`; `icu_version` only in the mode icu."""
        settings = dataclasses.asdict(self)
        if self.mode != "icu":
            del settings["icu_version"]
        return settings

    @classmethod
    def from_json(cls, value: object) -> Tokeniser:
        """Build a tokeniser from what `to_json` gave; a field left out has its default.

        A recorded ICU of another version than the installed one is warned about, once in a process.

        Raises:
            InputError: `value` is no object, or a field of it is unknown or has a value it cannot have.
        """
        if not isinstance(value, dict):
            raise InputError(
                f"expected the tokeniser's settings as a JSON object, found {type(value).__name__}: "
                "restore the file that holds them"
            )
        known = [field.name for field in dataclasses.fields(cls)]
        for name in value:
            if name not in known:
                raise InputError(
                    f"expected tokeniser settings named {', '.join(known)}, found {name!r}: "
                    "remove it, or update fliplens if a newer version wrote it"
                )
        tokeniser = cls(**value)
        if tokeniser.icu_version is not None:
            warn_of_another_icu(tokeniser.icu_version)
        return tokeniser

    def _normalise(self, text: str) -> str:
        """Spell `text` in the one way in which its words are matched; what is so spelt stays as it is."""
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
        text = _APOSTROPHES.sub("'", text)
        if self.strip_accents == "unicode":
            text = _ACCENTED.sub(r"\1", unicodedata.normalize("NFD", text))
        elif self.strip_accents == "ascii":
            # Only what could be part of a word is dropped, so that a dash still separates its two words.
            text = unicodedata.normalize("NFKD", text.translate(_ASCII_SPELLING))
            text = _BEYOND_ASCII.sub("", text)
        if self.lowercase:
            text = _DOTTED_I.sub("i", text.lower())
        return unicodedata.normalize("NFC", text)

    def _published_terms(self, text: str) -> list[str]:
        """Return what scikit-learn's `CountVectorizer` makes of `text`: lower-case, fold accents, match."""
        if self.lowercase:
            text = text.lower()
        if self.strip_accents is not None and not text.isascii():
            text = unicodedata.normalize("NFKD", text)
            if self.strip_accents == "ascii":
                text = text.encode("ascii", "ignore").decode("ascii")
            else:
                text = "".join([character for character in text if not unicodedata.combining(character)])
        return _PUBLISHED_WORD[self.mode].findall(text)


def _length(term: str) -> int:
    """Return the number of characters of `term` that are neither combining marks nor zero-width joiners."""
    return len(term) if term.isascii() else len(_UNCOUNTED.sub("", term))


def _bad_option(name: str, expected: str, found: object) -> InputError:
    return InputError(f"expected the tokeniser's {name} to be {expected}, found {found!r}: correct {name}")
