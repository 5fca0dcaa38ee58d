"""Words of scripts without spaces between them: ICU's words, and everything else as in the default mode."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, environment
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fliplens.cli import main
from fliplens.errors import FliplensWarning, InputError, MissingExtraError
from fliplens.evaluation.entities import Entities
from fliplens.lenses.lens import Lens
from fliplens.settings import FitSettings
from fliplens.tagging import load_tagger
from fliplens.tagging.gazetteer import GazetteerTagger
from fliplens.tagging.names import words_of
from fliplens.text import segmentation
from fliplens.text.choosing import VocabularyConfig
from fliplens.text.tokenisation import AccentFolding, Tokeniser
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

breakers = pytest.importorskip("icu4py.breakers", reason="the extra icu is not installed")

ACCENTS: list[AccentFolding | None] = [None, "unicode", "ascii"]
DEFAULT = Tokeniser()
ICU = Tokeniser(mode="icu")
MODES = [
    Tokeniser(mode="icu", lowercase=lowercase, strip_accents=accents)
    for lowercase in (True, False)
    for accents in ACCENTS
]
DICTIONARY_SCRIPTS = (
    *("CJK", "IDEOGRAPHIC", "HANGZHOU", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HENTAIGANA", "VERTICAL KANA"),
    *("MASU MARK", "VERTICAL IDEOGRAPHIC", "OLD CHINESE", "THAI", "LAO", "KHMER", "MYANMAR"),
)

# Letters, marks, digits and signs of the scripts, whole words of them, and what stands between them in texts.
AWKWARD = (
    "我来到北京清华大学他有很多朋友〇々〆豈𠮷東京私は食べるかがプーヽヾｶﾞﾊﾟ㈠\u3099\u309a"
    "ฉันรักภาษาไทยทำกำ๓๔ຂ້ອຍຫຼາຍ໑ខ្ញុំស្រឡាញ់១ကျွန်တော်၁\ud800"
    " \n,.!。、・'’ʼ＇-_aAbéİıßΣσς3９²हिन्दी한글\u1112\u1161\u11ab\u0301\u0307\u200b\u200c\u200d\u200e\u00ad\ufe0f"
)
texts = st.text(alphabet=AWKWARD, max_size=30) | st.text(max_size=30)

# Written for these tests; words by hand, such that nobody would cut them otherwise.
SENTENCES = {
    "Chinese": ("今天天气很好，我们去公园。", "今天 天气 很好 我们 去 公园"),
    "Traditional Chinese": ("老師在學校裡。", "老師 在 學校 裡"),
    "Japanese": ("図書館で映画を見る。", "図書館 で 映画 を 見る"),
    "Katakana": ("コンピューターの使い方", "コンピューター の 使い方"),
    "Thai": ("แม่ซื้อปลาจากตลาด", "แม่ ซื้อ ปลา จาก ตลาด"),
    "Lao": ("ຂ້ອຍມັກພາສາລາວ", "ຂ້ອຍ ມັກ ພາສາ ລາວ"),
    "Khmer": ("ខ្ញុំស្រឡាញ់ភាសាខ្មែរ", "ខ្ញុំ ស្រឡាញ់ ភាសាខ្មែរ"),
    "Burmese": ("မြန်မာစာကို ချစ်တယ်", "မြန်မာ စာ ကို ချစ် တယ်"),
    "mixed": (
        "L'iPhone手机和USB线：3本、2024年5月 don’t ราคา๒๕บาท",
        "l'iphone 手机 和 usb 线 3 本 2024 年 5 月 don't ราคา ๒๕ บาท",
    ),
    "Korean beside Han": ("大學에서 한국어를 공부합니다", "大學 에서 한국어를 공부합니다"),
}


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def of_dictionary(character: str) -> bool:
    """Whether a letter is of a script that ICU has a dictionary of, by its Unicode name; true of unnamed ones."""
    category = unicodedata.category(character)
    name = unicodedata.name(character, "")
    # Annotations and tallies are signs of several scripts.
    named = name.startswith(DICTIONARY_SCRIPTS) and "ANNOTATION" not in name and "TALLY" not in name
    return category == "Cn" or (category[0] in "LN" and category != "Nd" and named)


@pytest.fixture
def warned() -> Iterator[None]:
    """Nothing has been warned of yet."""
    segmentation._warned.clear()
    yield
    segmentation._warned.clear()


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine without icu4py."""
    kept = (segmentation.installed_icu, segmentation._breaker, segmentation._alone)
    for one in kept:
        one.cache_clear()
    monkeypatch.setitem(sys.modules, "icu4py", None)
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    yield
    for one in kept:
        one.cache_clear()


# Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_whole_words(language: str, form: Any) -> None:
    sentence, words = SENTENCES[language]
    expected = [nfc(word) for word in words.split()]
    assert ICU.terms(unicodedata.normalize(form, sentence)) == expected
    assert ICU.reference_terms(unicodedata.normalize(form, sentence)) == expected


@pytest.mark.parametrize("language", [name for name in SENTENCES if name not in ("mixed", "Korean beside Han")])
def test_words_are_those_of_icu_given_the_whole_text(language: str) -> None:
    sentence = SENTENCES[language][0]
    pieces = list(breakers.WordBreaker(sentence, "en"))
    assert ICU.terms(sentence) == [piece for piece in pieces if unicodedata.category(piece[0])[0] in "LN"]
    # Without the dictionary only punctuation and spaces cut.
    assert len(DEFAULT.terms(sentence)) < len(ICU.terms(sentence))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # No letter of a dictionary script, no difference: digits of these scripts, signs, marks alone.
        ("๒๕ a๒ 3๓ ၁၂ ฿ 。", ["๒๕", "a๒", "3๓", "၁၂"]),
        # A mark stays with its letter, whatever its script; without one it is no word.
        ("aัข ั", ["aั", "ข"]),
        ("日'本 日’s 'n'日", ["日", "本", "日", "s", "n", "日"]),
        ("日\u00ad本 \u200e日本", ["日本", "日本"]),
        ("日\u200d 日\u200ca", ["日", "日", "a"]),
        ("snake_日本_case", ["snake", "日本", "case"]),
        ("Σ日ΑΣ日", ["σ", "日", "ας", "日"]),
        ("\ud800日本\udfff", ["日本"]),
        ("\u8c48\uf900", DEFAULT.terms("\u8c48 \u8c48")),
    ],
)
def test_by_hand(text: str, expected: list[str]) -> None:
    assert ICU.terms(text) == expected


def test_options_work_as_in_the_default_mode() -> None:
    assert Tokeniser(mode="icu", lowercase=False).terms("iPhone手机") == ["iPhone", "手机"]
    assert Tokeniser(mode="icu", min_length=2).terms("iPhone手机和 é") == ["iphone", "手机"]
    assert Tokeniser(mode="icu", strip_accents="unicode").terms("Café東京 が") == ["cafe", "東京", "が"]
    assert Tokeniser(mode="icu", strip_accents="ascii").terms("Café東京") == ["cafe"]


@given(texts.filter(lambda text: not any(map(of_dictionary, nfc(text)))), st.sampled_from(MODES), st.integers(1, 3))
@example("㈠a๒ bัั฿", ICU, 1)
def test_text_without_these_scripts_gives_the_terms_of_the_default_mode(
    text: str, tokeniser: Tokeniser, min_length: int
) -> None:
    options: Any = {"lowercase": tokeniser.lowercase, "strip_accents": tokeniser.strip_accents}
    expected = Tokeniser(**options, min_length=min_length).terms(text)
    assert Tokeniser(mode="icu", **options, min_length=min_length).terms(text) == expected


@given(
    st.lists(
        st.sampled_from(
            ["don't", "Élan", "e-mail", "42", "हिन्दी", " ", "、", "한국어", "日本", "東京", "ไทย", "ข้าว"]
        ),
        max_size=9,
    )
)
def test_what_is_around_these_scripts_is_cut_as_in_the_default_mode(pieces: list[str]) -> None:
    text = "".join(pieces)
    others = "".join(c if not of_dictionary(c) and unicodedata.name(c, "")[:4] != "THAI" else " " for c in text)
    assert [term for term in ICU.terms(text) if not any(map(of_dictionary, term))] == DEFAULT.terms(others)


@settings(max_examples=300)
@given(texts, st.sampled_from(MODES))
def test_terms_joined_give_the_same_terms(text: str, tokeniser: Tokeniser) -> None:
    terms = tokeniser.terms(text)
    assert tokeniser.terms(" ".join(terms)) == terms
    assert tokeniser.terms(unicodedata.normalize("NFD", text)) == terms
    assert tokeniser.terms(unicodedata.normalize("NFC", text)) == terms
    assert tokeniser.reference_terms(text) == terms
    for term in terms:
        assert tokeniser.terms(term) == [term]
        assert nfc(term) == term
        assert unicodedata.category(term[0])[0] in "LNC"
        assert not any(c.isspace() or c == "_" for c in term)


@settings(max_examples=300)
@given(texts, st.booleans())
def test_icu_only_adds_boundaries(text: str, lowercase: bool) -> None:
    """All characters of the default mode's terms come out in their order, but joiners and apostrophes."""

    def characters(terms: list[str]) -> str:
        return "".join(terms).translate({ord(c): None for c in "'\u200c\u200d"})

    default, icu = (Tokeniser(mode=mode, lowercase=lowercase) for mode in ("default", "icu"))
    assert characters(icu.terms(text)) == characters(default.terms(text))
    assert len(icu.terms(text)) >= len(default.terms(text))


def test_only_runs_of_these_scripts_are_given_to_icu(monkeypatch: pytest.MonkeyPatch) -> None:
    given_to_icu: list[str] = []

    def breaker(run: str, locale: str) -> list[str]:
        given_to_icu.append(run)
        return [run]

    segmentation._alone.cache_clear()
    monkeypatch.setattr(segmentation, "_breaker", lambda: breaker)
    text = "Ünder 3 été हिन्दी 한국어 日本 and ไทย๓, x日。"
    assert ICU.terms(text) == DEFAULT.terms("Ünder 3 été हिन्दी 한국어 日本 and ไทย ๓, x 日。")
    assert list(dict.fromkeys(given_to_icu)) == ["日本", "ไทย", "日"]
    given_to_icu.clear()
    assert ICU.terms("Ünder 3 été हिन्दी 한국어") == ["ünder", "3", "été", "हिन्दी", "한국어"]
    assert given_to_icu == []
    segmentation._alone.cache_clear()


def test_every_letter_of_these_scripts_is_found() -> None:
    for i in range(0x110000):
        character = chr(i)
        if unicodedata.category(character) not in ("Cs", "Cn"):
            assert segmentation.holds_unspaced(f"é{character}") == of_dictionary(character), hex(i)


def test_what_comes_out_is_cut_until_it_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    # A breaker that keeps in a text what it cuts alone: the third word of a run keeps two letters too many.
    def breaker(run: str, locale: str) -> list[str]:
        return {"日本東京大": ["日本", "東京大"], "東京大": ["東京", "大"], "東京": ["東", "京"]}.get(run, [run])

    segmentation._alone.cache_clear()
    monkeypatch.setattr(segmentation, "_breaker", lambda: breaker)
    assert ICU.terms("日本東京大") == ["日本", "東", "京", "大"]
    segmentation._alone.cache_clear()


def test_a_text_that_is_one_long_run_is_cut() -> None:
    words = ["今天", "天气", "很好", "我们", "去", "公园"]
    assert ICU.terms("".join(words) * 3000) == words * 3000
    for long in ("ก" * 20_000, "ア" * 20_000, "一" * 20_000):
        assert "".join(ICU.terms(long)) == long


def test_the_machines_language_changes_nothing() -> None:
    code = "from fliplens import Tokeniser; import sys; print(Tokeniser(mode='icu').terms(sys.argv[1]))"
    sentence = "".join(SENTENCES[name][0] for name in ("Chinese", "Japanese", "Thai"))
    for language in ("C.UTF-8", "ja_JP.UTF-8", "th_TH.UTF-8"):
        done = subprocess.run(
            [sys.executable, "-c", code, sentence],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**environment(), "LC_ALL": language, "LANG": language, "PYTHONUTF8": "1"},
            cwd=ROOT,
            check=True,
        )
        assert done.stdout.strip() == repr(ICU.terms(sentence))


# What is recorded -----------------------------------------------------------------------------------------------


def test_the_version_is_recorded_and_told_apart() -> None:
    icu4py = pytest.importorskip("icu4py")
    assert ICU.icu_version == icu4py.icu_version == ICU.to_json()["icu_version"]
    assert Tokeniser.from_json(ICU.to_json()) == ICU
    assert set(ICU.to_json()) == {"mode", "lowercase", "strip_accents", "min_length", "icu_version"}
    assert "icu_version" not in Tokeniser().to_json()
    assert Tokeniser(mode="icu", icu_version="1.0") != ICU


@pytest.mark.parametrize("value", [{"icu_version": "78.3"}, {"mode": "published", "icu_version": "78.3"}])
def test_a_version_belongs_to_icu_alone(value: dict[str, str]) -> None:
    with pytest.raises(InputError, match="icu_version with the tokeniser mode icu alone"):
        Tokeniser.from_json(value)


@pytest.mark.parametrize("version", ["", 78, 78.3, True])
def test_a_version_is_a_string(version: object) -> None:
    with pytest.raises(InputError, match="icu_version"):
        Tokeniser.from_json({"mode": "icu", "icu_version": version})


@pytest.mark.usefixtures("warned")
def test_another_version_is_warned_about_once(recwarn: pytest.WarningsRecorder) -> None:
    other = {"mode": "icu", "icu_version": "1.0"}
    with pytest.warns(FliplensWarning, match=r"expected ICU 1\.0, .* found \d+\.\d+: .* install"):
        assert Tokeniser.from_json(other).icu_version == "1.0"
    recwarn.clear()
    Tokeniser.from_json(other)
    Tokeniser.from_json(ICU.to_json())
    assert not recwarn.list


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_the_message_names_the_command() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[icu\]'"):
        Tokeniser(mode="icu")
    with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[icu\]'"):
        FitSettings.from_mapping({"tokeniser": "icu"})
    # What a folder records can be opened; text that needs no dictionary is cut, text that needs one is refused.
    opened = Tokeniser.from_json({"mode": "icu", "icu_version": "78.3"})
    assert opened.terms("Où est-ce ? don't") == ["où", "est", "ce", "don't"]
    with pytest.raises(MissingExtraError, match="tokeniser icu"):
        opened.terms("東京")


def test_settings_of_fit_take_it(tmp_path: Path) -> None:
    chosen = FitSettings.from_mapping({"tokeniser": "icu", "min_length": 2}).vocabulary
    assert chosen == VocabularyConfig(tokeniser=Tokeniser(mode="icu", min_length=2))
    with pytest.raises(InputError, match="one of default, icu, published, published-indic"):
        FitSettings.from_mapping({"tokeniser": "jieba"})


# Lenses ---------------------------------------------------------------------------------------------------------


def corpus() -> tuple[list[str], np.ndarray[Any, np.dtype[np.float32]]]:
    """Sentences of three Chinese words in a row, with vectors that are sums of one direction a word."""
    words = ["今天", "天气", "公园", "老师", "学生", "月亮", "故事", "厨房", "足球", "电脑"]
    random = np.random.default_rng(0)
    directions = random.standard_normal((len(words), 12)).astype(np.float32)
    chosen = [random.choice(len(words), 3, replace=False) for _ in range(120)]
    return ["，".join(words[i] for i in row) for row in chosen], np.stack([directions[row].sum(0) for row in chosen])


def test_a_lens_folder_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, vectors = corpus()
    texts = [text.replace("，", "") for text in texts]
    lens = fit(
        texts,
        vectors,
        vocabulary=VocabularyConfig(tokeniser=ICU),
        config=TrainConfig(passes=2, rank=4),
        explain_away=False,
    )
    assert {"老师", "月亮"} <= set(lens.vocabulary.words)
    lens.save(tmp_path / "lens")
    config_path = tmp_path / "lens" / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    assert config["tokeniser"] == ICU.to_json()
    opened = Lens.load(tmp_path / "lens")
    assert opened.vocabulary.tokeniser == ICU
    assert opened.vocabulary.counts(texts[:5]).nnz == lens.vocabulary.counts(texts[:5]).nnz >= 15

    segmentation._warned.clear()
    config["tokeniser"]["icu_version"] = "60.1"
    config_path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.warns(FliplensWarning, match=r"expected ICU 60\.1"):
        again = Lens.load(tmp_path / "lens")
    assert again.vocabulary.tokeniser.icu_version == "60.1"
    # A folder of before says nothing of ICU, and one that says nothing at all is a published one.
    for written, mode in (
        ({"mode": "default", "lowercase": True, "strip_accents": None, "min_length": 1}, "default"),
        (None, "published"),
    ):
        config["tokeniser"] = written
        if written is None:
            del config["tokeniser"]
        config_path.write_text(json.dumps(config), encoding="utf-8")
        assert Lens.load(tmp_path / "lens").vocabulary.tokeniser == Tokeniser(mode=mode)  # type: ignore[arg-type]


def test_fit_and_info_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, vectors = corpus()
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    np.save(tmp_path / "vectors.npy", vectors)
    given = ["--texts", str(tmp_path / "texts.txt"), "--embeddings", str(tmp_path / "vectors.npy")]
    out = str(tmp_path / "lens")
    assert main(["fit", *given, "--tokeniser", "icu", "--passes", "1", "--rank", "4", "-o", out, "--quiet"]) == 0
    assert Lens.load(out).vocabulary.tokeniser == ICU
    capsys.readouterr()
    assert main(["info", out]) == 0
    assert f"icu ({ICU.icu_version})" in capsys.readouterr().out


def test_the_estimator_takes_it() -> None:
    pytest.importorskip("sklearn")
    from fliplens.sklearn import LensTransformer

    texts, vectors = corpus()
    for tokeniser in ("icu", ICU):
        lens = LensTransformer(rank=4, passes=1, tokeniser=tokeniser).fit(vectors, texts).lens_
        assert lens.vocabulary.tokeniser == ICU
    with pytest.raises(InputError, match="mode to be one of default, icu"):
        LensTransformer(tokeniser="jieba").fit(vectors, texts)


# Names ----------------------------------------------------------------------------------------------------------


@settings(max_examples=1000)
@given(st.text(AWKWARD, max_size=14), st.booleans())
@example("日\u1112\u1161\u11ab本", True)
@example("rock'n'\u00ad日\u00ad本\u00ad'", False)
@example("İ\u0301ก", False)
def test_words_with_places_are_the_tokenisers_words(text: str, lowercase: bool) -> None:
    tokeniser = Tokeniser(mode="icu", lowercase=lowercase)
    words = words_of(text, tokeniser)
    assert [word.term for word in words] == tokeniser.terms(text)
    for word in words:
        held = text[word.start : word.end]
        assert tokeniser.terms(held) == [word.term]
        assert unicodedata.category(held[0])[0] in "LN"
    assert all(a.end <= b.start for a, b in pairwise(words))


def test_a_gazetteer_finds_names_without_spaces_around_them(tmp_path: Path) -> None:
    names = ["北京", "東京", "清华大学", "ไทย", "Berlin"]
    tagger = GazetteerTagger(names, tokeniser="icu")
    assert tagger.tag(
        ["我来到北京清华大学。", "私は東京で", "ฉันรักภาษาไทยมาก", "柏林Berlin's and 北京's", "上海"]
    ) == [
        ["北京", "清华大学"],
        ["東京"],
        ["ไทย"],
        ["Berlin", "北京"],
        [],
    ]
    assert tagger.settings == {"match_case": False, "tokeniser": "icu", "icu_version": ICU.icu_version}
    assert GazetteerTagger(names).tag(["我来到北京清华大学。"]) == [[]]
    path = tmp_path / "names.txt"
    path.write_text("\n".join(names), encoding="utf-8")
    assert load_tagger(f"gazetteer:{path}", tokeniser="icu").tag(["我来到北京"]) == [["北京"]]
    with pytest.raises(InputError, match="tokeniser default or icu"):
        GazetteerTagger(names, tokeniser="published")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="with the tagger gazetteer alone"):
        load_tagger("gemini", tokeniser="icu")


def test_tag_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("我来到北京清华大学。\n", encoding="utf-8")
    (tmp_path / "names.txt").write_text("北京\n", encoding="utf-8")
    out = tmp_path / "names.jsonl"
    call = ["tag", str(tmp_path / "texts.txt"), "-o", str(out), "--by", f"gazetteer:{tmp_path / 'names.txt'}"]
    assert main([*call, "--tokeniser", "icu", "--quiet"]) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["entity_names"] == ["北京"]


def test_entities_are_cut_as_their_texts() -> None:
    vocabulary = Vocabulary(("清华大学", "北京", "我"), tokeniser=ICU)
    entities = Entities.of([["北京", "清华大学。"], ["上海"]], vocabulary)
    assert entities.words.tolist()[:2] == [1, 0]
    assert vocabulary.references(["我来到北京清华大学。"]).known.indices.tolist() == [0, 1, 2]
