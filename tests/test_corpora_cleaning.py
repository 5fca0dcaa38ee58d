"""Cleaning of text and the counts of what is left out, against slow definitions."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fliplens.corpora.cleaning import Cleaning, clean_rows, clean_text
from fliplens.corpora.counting import Counts
from fliplens.corpora.rows import Row
from fliplens.errors import InputError

# Marks that say how text is laid out, by their names; everything else of the class Cf belongs to the text.
LAYOUT_MARKS = {
    "SOFT HYPHEN",
    "ZERO WIDTH SPACE",
    "LEFT-TO-RIGHT MARK",
    "RIGHT-TO-LEFT MARK",
    "WORD JOINER",
    "ZERO WIDTH NO-BREAK SPACE",
}
SPACES_AMONG_CONTROLS = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85"


def is_removed(character: str) -> bool:
    """Tell by Unicode's own tables whether a character is no text."""
    kind = unicodedata.category(character)
    if kind == "Cc":
        return character not in SPACES_AMONG_CONTROLS
    return kind == "Cs" or unicodedata.name(character, "") in LAYOUT_MARKS


def slowly_cleaned(text: str) -> str:
    kept = "".join(character for character in unicodedata.normalize("NFC", text) if not is_removed(character))
    words, word = [], ""
    for character in unicodedata.normalize("NFC", kept) + " ":
        if character.isspace():
            words += [word] if word else []
            word = ""
        else:
            word += character
    return " ".join(words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\u00a0c\u3000d  ", "a b c d"),
        ("one\u2028two\u2029three\x85four", "one two three four"),
        ("cafe\u0301", "caf\u00e9"),
        ("bell\x07 and \x00nul", "bell and nul"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\ufeffmark", "mark"),
        ("e\u200b\u0301", "\u00e9"),
        ("क्\u200dष", "क्\u200dष"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("half \ud83d of one", "half of one"),
        ("हिन्दी में", "हिन्दी में"),
        ("a\u202eb\u2066c\ufffad\ufdd0e\uffff", "abcde"),
        ("", ""),
        (" \u200b ", ""),
    ],
)
def test_text_by_hand(text: str, expected: str) -> None:
    assert clean_text(text) == expected


TEXTS = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("ab é\u0301\u200b\u200c\u200d\u00ad\ufeff\t\r\x00\x07\u2028\u00a0क्षहि\u202e\u2060"),
    ),
    max_size=30,
)


@given(TEXTS)
def test_text_against_unicodes_own_tables(text: str) -> None:
    # Marks that no table of ours names here: their removal is looked at by hand above.
    assume(not re.search("[\u202a-\u202e\u2061-\u206f\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff]", text))
    assert clean_text(text) == slowly_cleaned(text)


@given(TEXTS)
def test_clean_text_is_clean(text: str) -> None:
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert cleaned.split(" ") == cleaned.split() or cleaned == ""
    cleaned.encode()


def test_every_reason_is_counted_once() -> None:
    rows = [
        Row(("a b c", "d e f")),
        Row((" a  b c", "d e g")),
        Row(("a b c", " ")),
        Row(("a \ufffd b", "d e f")),
        Row(("a", "d e f")),
        Row(("a b c d e", "d e f")),
        Row(("a b", "d e")),
        Row(("a b c", "looooooooooooong enough one")),
        Row(("same text here", "same  text here")),
    ]
    counts = Counts(read=len(rows))
    kept = list(clean_rows(rows, Cleaning(min_words=2, max_words=4, min_characters=4, max_characters=20), counts))
    assert [row.texts for row in kept] == [("a b c", "d e f"), ("a b c", "d e g")]
    assert counts.dropped == {
        "empty": 1,
        "mangled": 1,
        "too_few_words": 1,
        "too_many_words": 1,
        "too_few_characters": 1,
        "too_many_characters": 1,
        "identical": 1,
    }
    assert counts.changed == 3
    assert counts.kept == 2 == len(kept)


def test_identical_sides_may_be_kept_and_a_row_keeps_what_else_it_has() -> None:
    row = Row((" Tom", "Tom"), "dev", "clip.wav", 1.5)
    (kept,) = clean_rows([row], Cleaning(drop_identical=False), Counts())
    assert kept == Row(("Tom", "Tom"), "dev", "clip.wav", 1.5)


@pytest.mark.parametrize("bounds", [{"min_words": 0}, {"min_words": 3, "max_words": 2}, {"max_characters": 0}])
def test_bounds_that_leave_nothing_are_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected 1 <= min"):
        Cleaning(**bounds)
