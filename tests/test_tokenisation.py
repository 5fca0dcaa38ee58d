from __future__ import annotations

import itertools
import re
import string
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fliplens.errors import InputError
from fliplens.text.tokenisation import AccentFolding, Tokeniser, TokeniserMode

ACCENTS: list[AccentFolding | None] = [None, "unicode", "ascii"]
DEFAULT_MODES = [
    Tokeniser(lowercase=lowercase, strip_accents=accents) for lowercase in (True, False) for accents in ACCENTS
]

# Characters that tokenisers get wrong: every kind of apostrophe, joiner, mark, digit, dotted and dotless i,
# final sigma, ligatures, compatibility forms, Indic signs, Hangul letters, invisible characters, half a pair.
AWKWARD = (
    " \n\t_-.,!'’ʼ＇‘“”«»—…\u00a0\u200b\u200c\u200d\u200e\u2060\u00ad\ufeff\ufe0f"
    "aAbzéÉßẞœÆøłiIİıſΣσςΆΐЙйёҐ09²½Ⅳ①٣५€"
    "\u0300\u0301\u0307\u0308\u0323\u0327\u0345\u0483\u20e3\u212a\u2126\u1e9b\ufb01"
    "हिन्दीक़ৎবাংলাোெதமிழ்ொత్తెలుగుై中日ไท한글\u1100\u1161\u11a8ŉ⒈\u0149"
    "\ud800\udfff\U0001f469\U0001d7d8\U000e0100\U00010400"
)
# Those of them that are taken out of words without a trace.
INVISIBLE = "\u00ad\u200e\u2060\ufeff\ufe0f\U000e0100"
texts = st.text() | st.text(alphabet=AWKWARD) | st.text(alphabet=st.characters(exclude_categories=[]))

# Written for these tests. Word lists are by hand: what a reader of the language calls its words.
SENTENCES = {
    "English": (
        "Don't touch the mother-in-law's 3 snake_case tea cups; I’m O'Brien!",
        "don't touch the mother in law's 3 snake case tea cups i'm o'brien",
    ),
    "German": (
        "Die Straßenbahn fährt über die Brücke – „schön“, sagt Jürgens Großmutter.",
        "die straßenbahn fährt über die brücke schön sagt jürgens großmutter",
    ),
    "French": (
        "L’été, où êtes-vous ? « Aujourd'hui, ça m’est égal », répondit le garçon.",
        "l'été où êtes vous aujourd'hui ça m'est égal répondit le garçon",
    ),
    "Spanish": (
        "¿Qué tal, señor Núñez? ¡El pingüino cuesta 3 €!",
        "qué tal señor núñez el pingüino cuesta 3",
    ),
    "Italian": (
        "L’albero dell'arte c’è: un po’ d’acqua, perché no?",
        "l'albero dell'arte c'è un po d'acqua perché no",
    ),
    "Portuguese": (
        "O guarda-chuva é d’água? São três lições.",
        "o guarda chuva é d'água são três lições",
    ),
    "Dutch": (
        "’s Ochtends zijn Anna’s foto's zo’n drieëntwintig euro.",
        "s ochtends zijn anna's foto's zo'n drieëntwintig euro",
    ),
    "Polish": (
        "Zażółć gęślą jaźń — „Żółw”, rzekł Łukasz.",
        "zażółć gęślą jaźń żółw rzekł łukasz",
    ),
    "Czech": (
        "Příliš žluťoučký kůň; „Ďábelské ódy“!",
        "příliš žluťoučký kůň ďábelské ódy",
    ),
    "Turkish": (
        "İstanbul’da ığdır çiçeği, değil mi?",
        "istanbul'da ığdır çiçeği değil mi",
    ),
    "Greek": (
        "Ο ΟΔΥΣΣΕΑΣ είπε· «ΣΟΦΟΣ είναι;» Σ’ αγαπώ, Όλγα;",
        "ο οδυσσεας είπε σοφος είναι σ αγαπώ όλγα",
    ),
    "Russian": (
        "Съешь ещё этих мягких булок — «Ёлка», чай!",
        "съешь ещё этих мягких булок ёлка чай",
    ),
    "Hindi": (
        "हिन्दी में लिखी हुई किताबें, क्या आप पढ़ते हैं? ज़रूर।",
        "हिन्दी में लिखी हुई किताबें क्या आप पढ़ते हैं ज़रूर",
    ),
    "Bengali": (
        "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি; হঠাৎ বৃষ্টি এলো।",
        "আমার সোনার বাংলা আমি তোমায় ভালোবাসি হঠাৎ বৃষ্টি এলো",
    ),
    "Tamil": (
        "தமிழ் மொழி மிகவும் பழமையானது; நான் சென்னையில் வசிக்கிறேன்!",
        "தமிழ் மொழி மிகவும் பழமையானது நான் சென்னையில் வசிக்கிறேன்",
    ),
    "Telugu": (
        "తెలుగు భాష చాలా తియ్యగా ఉంటుంది. మీరు ఎక్కడికి వెళ్తున్నారు?",
        "తెలుగు భాష చాలా తియ్యగా ఉంటుంది మీరు ఎక్కడికి వెళ్తున్నారు",
    ),
}


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def spelt_words(text: str) -> list[str]:
    """Words of `text`, character by character from their Unicode categories: the oracle for ordinary text."""
    text = nfc(nfc(text).lower()).translate({0x2019: "'", 0x2BC: "'", 0xFF07: "'"})
    pieces = "".join(c if unicodedata.category(c)[0] in "LMN" or c in "'\u200c\u200d" else " " for c in text).split()
    return [word for piece in pieces if (word := piece.strip("'\u200c\u200d"))]


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_whole_words(language: str, form: Any) -> None:
    sentence, words = SENTENCES[language]
    expected = [nfc(word) for word in words.split()]
    assert Tokeniser().terms(unicodedata.normalize(form, sentence)) == expected
    assert Tokeniser().reference_terms(unicodedata.normalize(form, sentence)) == expected


@pytest.mark.parametrize("language", ["Hindi", "Bengali", "Tamil", "Telugu"])
def test_unicode_folding_leaves_indic_words_whole(language: str) -> None:
    sentence, words = SENTENCES[language]
    assert Tokeniser(strip_accents="unicode").terms(sentence) == [nfc(word) for word in words.split()]
    assert Tokeniser(strip_accents="ascii").terms(sentence) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n—…!", []),
        ("a I", ["a", "i"]),
        ("don't don’t donʼt don＇t DON'T", ["don't"] * 5),
        ("'quoted' ’tis rock'n'roll dogs' a''b", ["quoted", "tis", "rock'n'roll", "dogs", "a", "b"]),
        ("_private snake_case __", ["private", "snake", "case"]),
        ("3,000 km² H₂O 42nd", ["3", "000", "km²", "h₂o", "42nd"]),
        ("İstanbul I\u0307stanbul ISTANBUL", ["istanbul"] * 3),
        ("ΟΔΟΣ ΟΔΟΣ'", ["οδος", "οδος"]),
        ("caf\u0065\u0301 café CAFÉ", ["café"] * 3),
        ("Schiff\u00adfahrt \ufeffword\u200e a\u2060b", ["schifffahrt", "word", "ab"]),
        ("one\u200btwo one\u00a0two", ["one", "two", "one", "two"]),
        # A joiner counts inside a word; at its edge nobody sees it.
        ("می\u200cخواهم \u200cमें\u200c र्\u200dय", ["می\u200cخواهم", "में", "र्\u200dय"]),
        # A combining mark that has no letter to stand on is no word.
        ("\u0301abc \u0301 x \u093f'\u093f y'\u093fz", ["abc", "x", "y", "z"]),
        ("\ud800 lone\udfff\ud800pair", ["lone", "pair"]),
        ("e-mail@example.org", ["e", "mail", "example", "org"]),
        # Danda and double danda end sentences, with a space before them or not.
        ("राम।सीता॥ বাংলা।সে॥", ["राम", "सीता", "বাংলা", "সে"]),
        ("१२३ ১২৩ ௧௨௩ ౧౨౩ १,२३४", ["१२३", "১২৩", "௧௨௩", "౧౨౩", "१", "२३४"]),
        ("कोऽपि दुःख डॉ॰ ॐ", ["कोऽपि", "दुःख", "डॉ", "ॐ"]),
        ("क्‍ष क्‌ष क्ष শ্‌র ক্‍ষ", ["क्‍ष", "क्‌ष", "क्ष", "শ্‌র", "ক্‍ষ"]),
        # The letters with a dot below have two spellings each, of which NFC is the longer one.
        ("क़ড় क़ড়", ["क़ড়"] * 2),
        ("ொ கொ கொ", ["கொ"] * 2),
        # No language is asked for: I becomes i, also where a Turk would write ı.
        ("IŞIK ışık", ["işik", "ışık"]),
        ("Straße STRASSE ẞ", ["straße", "strasse", "ß"]),
        ("Est-ce ça ? L'homme !", ["est", "ce", "ça", "l'homme"]),
        ("ΣΑΣ Σ ΑΣΣ", ["σας", "σ", "ασς"]),
        ("Об’єкт П'ЯТЬ", ["об'єкт", "п'ять"]),
    ],
)
def test_default_mode_by_hand(text: str, expected: list[str]) -> None:
    assert Tokeniser().terms(text) == expected


@pytest.mark.parametrize(
    ("accents", "text", "expected"),
    [
        ("unicode", "Élan ÇA Ångström ñ İ", "elan ca angstrom n i"),
        ("unicode", "straße œuvre", "straße œuvre"),
        ("unicode", "Ελλάδα ЙОД ёлка", "ελλαδα иод елка"),
        ("unicode", "हिन्दी தமிழ்", "हिन्दी தமிழ்"),
        ("unicode", "مُحَمَّد", "مُحَمَّد"),
        ("ascii", "Élan straße œuvre Łódź ﬁn ŉ", "elan strasse oeuvre lodz fin n"),
        ("ascii", "foo—bar привет a日b", "foo bar ab"),
    ],
)
def test_accent_folding_by_hand(accents: AccentFolding, text: str, expected: str) -> None:
    assert Tokeniser(strip_accents=accents).terms(text) == expected.split()


def test_case_is_kept_when_asked() -> None:
    assert Tokeniser(lowercase=False).terms("Don’t SHOUT, Élan") == ["Don't", "SHOUT", "Élan"]
    assert Tokeniser(lowercase=False, strip_accents="ascii").terms("ŁÓDŹ Élan") == ["LODZ", "Elan"]


def test_min_length_counts_letters_and_not_marks() -> None:
    assert Tokeniser(min_length=2).terms("a I go") == ["go"]
    # की is one letter with a vowel sign, र्य two letters, x́ one letter.
    assert Tokeniser(min_length=2).terms("की र्य क्\u200d x\u0301 é xé") == ["र्य", "xé"]
    assert Tokeniser(min_length=3).terms("'ab' abc") == ["abc"]


@given(texts, st.sampled_from(DEFAULT_MODES), st.integers(1, 3))
@example("ÅΣİ\u0307\u0307 ΐ ẞ", Tokeniser(strip_accents="unicode"), 1)
def test_terms_joined_give_the_same_terms(text: str, tokeniser: Tokeniser, min_length: int) -> None:
    tokeniser = Tokeniser(lowercase=tokeniser.lowercase, strip_accents=tokeniser.strip_accents, min_length=min_length)
    terms = tokeniser.terms(text)
    assert tokeniser.terms(" ".join(terms)) == terms
    assert tokeniser.reference_terms(text) == terms
    for term in terms:
        assert nfc(term) == term
        assert not is_mark(term[0])
        assert not any(c.isspace() or c == "_" for c in term)


@given(texts, st.sampled_from(DEFAULT_MODES))
def test_canonical_spellings_give_the_same_terms(text: str, tokeniser: Tokeniser) -> None:
    terms = tokeniser.terms(text)
    assert tokeniser.terms(unicodedata.normalize("NFD", text)) == terms
    assert tokeniser.terms(unicodedata.normalize("NFC", text)) == terms


@pytest.mark.parametrize("tokeniser", [Tokeniser(strip_accents=accents) for accents in ACCENTS])
@pytest.mark.parametrize("frame", ["{}", "a{}b", "i\u0307{}\u0307", "क{}"])
def test_every_code_point(tokeniser: Tokeniser, frame: str) -> None:
    text = " ".join(frame.format(chr(i)) for i in range(0x20000))
    terms = tokeniser.terms(text)
    assert tokeniser.terms(" ".join(terms)) == terms
    assert tokeniser.terms(unicodedata.normalize("NFD", text)) == terms
    assert not any(is_mark(term[0]) for term in terms)


@given(st.text(alphabet=string.printable), st.sampled_from(DEFAULT_MODES))
def test_ascii_text_takes_no_short_cut_in_meaning(text: str, tokeniser: Tokeniser) -> None:
    # The same text beside one that is not ASCII takes the long way.
    assert tokeniser.terms(text + " €") == tokeniser.terms(text)


# The dot of a lower-cased İ is meant to be lost; other tests look at it.
@given(st.text(alphabet="".join(c for c in AWKWARD if c not in INVISIBLE + "İ\u0307"), max_size=30))
def test_nothing_of_a_word_is_lost(text: str) -> None:
    """Every letter and digit comes out, in order, lower-cased; nothing comes out that is not there."""

    def letters(text: str) -> str:
        return "".join(c for c in nfc(nfc(text).lower()) if unicodedata.category(c)[0] in "LN")

    # Lower-casing Σ looks at its neighbours, which may be an apostrophe in another spelling.
    text = text.replace("Σ", "σ").replace("ʼ", "'")
    assert "".join(map(letters, Tokeniser().terms(text))) == letters(text)


@pytest.mark.parametrize("accents", ACCENTS)
@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("mode", ["published", "published-indic"])
@given(text=texts)
@example(text="Élan ÀÉ naïve ﬁn İ I a œ")
@example(text="हिन्दी में don’t snake_case it's")
def test_published_training_side_is_scikit_learn(
    text: str, mode: TokeniserMode, lowercase: bool, accents: AccentFolding | None
) -> None:
    sklearn = pytest.importorskip("sklearn.feature_extraction.text")
    pattern = {"published": r"(?u)\b\w\w+\b", "published-indic": r"[\S]+"}[mode]
    analyse = sklearn.CountVectorizer(
        lowercase=lowercase, strip_accents=accents, token_pattern=pattern
    ).build_analyzer()
    assert Tokeniser(mode=mode, lowercase=lowercase, strip_accents=accents).terms(text) == analyse(text)


@pytest.mark.parametrize("mode", ["published", "published-indic"])
@given(text=texts | st.text(alphabet=string.punctuation + "’“”‘—\u200b\u200c\u2060 aÉéB\n\u00a0"))
def test_published_evaluation_side(text: str, mode: TokeniserMode) -> None:
    stripped = re.sub("[" + re.escape(string.punctuation) + "’“”‘\\[\\]\u200c\u200b\u2060—]", "", text)
    expected = [word for word in re.sub(r"\s+", " ", stripped).strip().lower().split(" ") if word]
    for lowercase, accents in itertools.product([True, False], ACCENTS):
        tokeniser = Tokeniser(mode=mode, lowercase=lowercase, strip_accents=accents)
        assert tokeniser.reference_terms(text) == expected


def test_published_halves_differ_as_published() -> None:
    tokeniser = Tokeniser(mode="published")
    assert tokeniser.terms("I don’t know well-being, Ünal!") == ["don", "know", "well", "being", "ünal"]
    assert tokeniser.reference_terms("I don’t know well-being, Ünal!") == [
        *("i", "dont", "know", "wellbeing", "ünal")
    ]
    assert len(tokeniser.terms("हिन्दी")) != 1
    assert Tokeniser(mode="published-indic").terms("हिन्दी, में।") == ["हिन्दी,", "में।"]


@pytest.mark.parametrize(
    "tokeniser",
    [
        Tokeniser(),
        Tokeniser(mode="published", lowercase=False, strip_accents="ascii"),
        Tokeniser(mode="published-indic"),
        Tokeniser(strip_accents="unicode", min_length=3),
    ],
)
def test_json_round_trip(tokeniser: Tokeniser) -> None:
    assert Tokeniser.from_json(tokeniser.to_json()) == tokeniser
    assert set(tokeniser.to_json()) == {"mode", "lowercase", "strip_accents", "min_length"}


def test_json_fields_left_out_have_their_defaults() -> None:
    assert Tokeniser.from_json({}) == Tokeniser()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "JSON object"),
        ([], "JSON object"),
        ({"mode": "latin"}, "mode"),
        ({"mode": ["default"]}, "mode"),
        ({"lowercase": "yes"}, "lowercase"),
        ({"lowercase": None}, "lowercase"),
        ({"strip_accents": "none"}, "strip_accents"),
        ({"strip_accents": {}}, "strip_accents"),
        ({"min_length": 0}, "min_length"),
        ({"min_length": 1.0}, "min_length"),
        ({"min_length": True}, "min_length"),
        ({"mode": "published", "min_length": 2}, "min_length"),
        ({"token_pattern": "x"}, "token_pattern"),
        ({3: 4}, "3"),
    ],
)
def test_bad_settings_are_named(value: object, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Tokeniser.from_json(value)


REAL_TEXT = ["indic/*.bn", "indic/*.hi", "indic/*.ta", "indic/*.te", "tatoeba/*", "common-voice/*.dev.txt"]


@pytest.mark.parametrize("pattern", REAL_TEXT)
def test_real_text_comes_out_as_whole_words(data_dir: Path, pattern: str) -> None:
    tokeniser = Tokeniser()
    files = sorted(data_dir.glob(pattern))
    if not files:
        pytest.skip(f"real text is absent: no {pattern} in {data_dir}")
    n_tokens = n_stray = 0
    for file in files:
        for token in file.read_text(encoding="utf-8").split():
            n_tokens += 1
            terms = tokeniser.terms(token)
            assert not any(is_mark(term[0]) for term in terms)
            words = spelt_words("".join(c for c in token if c not in INVISIBLE))
            # People mistype: once in a while a mark has no letter to stand on.
            if any(is_mark(word[0]) for word in words):
                n_stray += 1
            else:
                assert terms == words
    assert n_tokens > 1000
    assert n_stray <= n_tokens / 10_000


def test_tokens_of_letters_and_marks_are_one_word(data_dir: Path) -> None:
    """A token between spaces, its outer punctuation taken off, is one word if nothing inside separates it."""
    files = sorted(data_dir.glob("indic/*"))
    if not files:
        pytest.skip(f"real text is absent: no indic folder in {data_dir}")
    outer = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c)[0] in "PSCZ")
    n_whole = 0
    for file in files:
        for token in file.read_text(encoding="utf-8").split():
            inside = nfc(token.strip(outer).lower())
            if inside and all(unicodedata.category(c)[0] in "LMN" for c in inside) and not is_mark(inside[0]):
                assert Tokeniser().terms(token) == [inside]
                n_whole += 1
    assert n_whole > 10_000
