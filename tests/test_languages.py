"""Whole words of many languages: the benchmark's own parts, and real text where it is at hand."""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.languages import WITHOUT_SPACES, bare, check, reason
from benchmarks.registry import benchmarks
from fliplens.text.tokenisation import Tokeniser

TOKENISER = Tokeniser()

# Language → files, and the least share of whole words in them: French writes "est-ce" and "a-t-il".
REAL = {
    "English": ("common-voice/en.dev.txt tatoeba/deu-eng.eng multi30k/val.en.gz", 0.985),
    "German": ("common-voice/de.dev.txt tatoeba/deu-eng.deu multi30k/val.de.gz", 0.985),
    "French": ("common-voice/fr.dev.txt tatoeba/fra-eng.fra multi30k/val.fr.gz", 0.96),
    "Bengali": ("tatoeba/ben-eng.ben indic/dev.bn-en.bn indic/devtest.bn-en.bn", 0.97),
    "Hindi": ("tatoeba/hin-eng.hin indic/dev.hi-en.hi indic/devtest.hi-en.hi", 0.97),
    "Tamil": ("tatoeba/tam-eng.tam indic/dev.ta-en.ta indic/devtest.ta-en.ta", 0.97),
    "Telugu": ("tatoeba/tel-eng.tel indic/dev.te-en.te indic/devtest.te-en.te", 0.96),
}


def clusters(word: str) -> list[str]:
    """A letter or digit with the marks and joiners that hang on it, by Unicode categories alone."""
    found: list[str] = []
    for character in word:
        hangs = unicodedata.category(character).startswith("M") or character in "\u200c\u200d"
        if found and hangs:
            found[-1] += character
        else:
            found.append(character)
    return found


def words_of(data_dir: Path, files: str) -> Iterator[str]:
    """The words between spaces of files; skips where one is absent."""
    for name in files.split():
        path = data_dir / name
        if not path.is_file():
            pytest.skip(f"real text is absent: no {name} in {data_dir}")
        raw = path.read_bytes()
        yield from (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split()


@pytest.mark.parametrize("language", REAL)
def test_words_of_real_text_survive_whole(data_dir: Path, language: str) -> None:
    files, least = REAL[language]
    n = whole = 0
    for word in map(bare, words_of(data_dir, files)):
        if not word:
            continue
        terms = TOKENISER.terms(word)
        n, whole = n + 1, whole + (terms == [word])
        # No letter comes apart from its marks, wherever the word is cut.
        kept = [one.rstrip("\u200c\u200d") for one in clusters(word) if unicodedata.category(one[0])[0] in "LN"]
        assert [one.rstrip("\u200c\u200d") for term in terms for one in clusters(term) if one != "'"] == kept
        if terms != [word]:
            # What this asserts of the page: words are cut at signs only.
            assert reason(word, terms) != "letter"
    assert n > 2000
    assert whole / n > least


def test_a_page_tells_what_was_cut_and_why() -> None:
    found = check(["A half-past „X“ 3,000 naïve", "don’t half-past AT&T — Schiff\u00adfahrt हिन्दी।"])
    assert found["sentences"] == 2
    # a, half-past, x, 3,000, naïve, don't, half-past, at&t, schifffahrt, हिन्दी
    assert found["words"] == 10
    assert found["terms"] == 14
    assert found["distinct_terms"] == 12
    assert found["whole"] == pytest.approx(0.6)
    # One letter, an apostrophe, an Indic mark: words that the published rule loses or cuts.
    assert found["whole_published"] == pytest.approx(0.2)
    assert found["cut"] == {
        "hyphen": {"share": 0.2, "examples": ["half-past"]},
        "number": {"share": 0.1, "examples": ["3,000"]},
        "other sign": {"share": 0.1, "examples": ["at&t"]},
    }
    for benchmark in (benchmarks()["languages"],):
        assert [cell(found) for cell in benchmark.columns.values()][:3] == ["2", "10", "14"]


def test_text_that_may_not_be_quoted_is_not() -> None:
    assert [one["examples"] for one in check(["half-past 3,000"], quote=False)["cut"].values()] == [[], []]


def test_mark_up_is_no_example() -> None:
    assert check(["a|b a|b c/d " + "x/" * 20 + "x"])["cut"]["other sign"]["examples"] == ["c/d"]


def test_a_word_that_is_cut_between_letters_would_be_told() -> None:
    # As the published rule cuts them.
    published = Tokeniser(mode="published")
    assert reason("हिन्दी", published.terms("हिन्दी")) == "letter"
    assert reason("ঁরা", TOKENISER.terms("ঁরা")) == "stray mark"
    assert reason("rock''n", TOKENISER.terms("rock''n")) == "'"


@given(st.text(alphabet="aéÉÇǆßΣСक्हिதொ한 ’'-.„“\u00ad\u0301\u200d१3", max_size=12))
def test_a_bare_word_has_letters_at_both_ends_and_stays_so(text: str) -> None:
    word = bare(text.replace(" ", ""))
    assert bare(word) == word
    assert not word or all(unicodedata.category(c)[0] in "LMN" for c in (word[0], word[-1]))
    # What was taken off was no part of a term.
    assert "".join(TOKENISER.terms(word)) == "".join(TOKENISER.terms(text.replace(" ", "")))


def test_sentences_of_languages_without_spaces_hold_several_words() -> None:
    pytest.importorskip("icu4py", reason="the extra icu is not installed")
    default, icu = Tokeniser(), Tokeniser(mode="icu")
    for language, lines in WITHOUT_SPACES.items():
        assert len(set(lines)) == len(lines) >= 8
        n = {mode: sum(len(mode.terms(line)) for line in lines) for mode in (default, icu)}
        assert n[icu] > 4 * n[default], language
