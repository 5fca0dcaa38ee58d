"""Whole words in many languages: which words of real text the tokeniser leaves whole, and how fast it cuts.

A word here is what stands between spaces, its outer punctuation taken off. It survives if the tokeniser gives it back
as one term; where it does not, the character at which it was cut says why. Sentences of languages that put no spaces
between words were written for this file.
"""

from __future__ import annotations

import gzip
import statistics
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.registry import Benchmark, common_voice_texts, require_data
from fliplens.files import read_lines
from fliplens.text.tokenisation import Tokeniser

EXAMPLES = 3
LONGEST_EXAMPLE = 24
ROUNDS = 5
SENTENCES = 4000
"""That are cut in one round, repeated if there are fewer."""

# Apostrophes as the tokeniser writes them, and what it takes out of words without a trace.
SPELT = {0x2019: "'", 0x2BC: "'", 0xFF07: "'"}
INVISIBLE = "\u00ad\u200e\u200f\u2060\ufeff\ufe0f"

WITHOUT_SPACES = {
    "Chinese": (
        "我来到北京清华大学，他有很多朋友。",
        "今天天气很好，我们一起去公园散步吧。",
        "昨天下午老师给学生讲了一个关于月亮的古老故事。",
        "这本书的作者是一位著名的物理学家，他在实验室工作了三十年。",
        "妈妈在厨房里做饭，孩子们在院子里踢足球。",
        "火车站旁边新开了一家卖水果的商店。",
        "如果明天不下雨，我就骑自行车去上班。",
        "图书馆的窗户很大，阳光照在桌子上。",
    ),
    "Japanese": (
        "私は東京の大学で勉強しています。",
        "毎朝七時に起きて、駅まで歩きます。",
        "図書館で借りた本を読んでから、友達と映画を見に行きました。",
        "コンピューターの使い方を教えていただけませんか。",
        "新しい橋が完成したので、島まで車で行けるようになった。",
        "祖母は庭で野菜を育てている。",
        "雨が降りそうだから、傘を持って行きなさい。",
        "この町には古い寺がたくさんあります。",
    ),
    "Thai": (
        "ฉันรักภาษาไทยมากและไปโรงเรียนทุกวันเพราะว่าชอบเรียนหนังสือ",
        "เมื่อวานนี้ฝนตกหนักมากจนถนนหลายสายน้ำท่วม",
        "แม่ซื้อผลไม้จากตลาดให้ลูกกินตอนเย็น",
        "รถไฟขบวนแรกออกจากสถานีเวลาหกโมงเช้า",
        "เด็กๆ กำลังเล่นฟุตบอลอยู่ในสนาม",
        "พรุ่งนี้เราจะไปเที่ยวทะเลกับเพื่อน",
        "ร้านอาหารนี้ขายก๋วยเตี๋ยวอร่อยและราคาถูก",
        "เขาทำงานที่โรงพยาบาลมาแล้วสิบปี",
    ),
}
"""Written for this file."""


def bare(word: str) -> str:
    """Return a word between spaces without what is no letter, mark or digit around it, spelt as a term would be."""
    word = unicodedata.normalize("NFC", "".join(c for c in word if c not in INVISIBLE)).translate(SPELT).lower()
    # The dot that lower-casing leaves on the i of a Turkish İ.
    word = unicodedata.normalize("NFC", word.replace("i\u0307", "i"))
    kept = [i for i, c in enumerate(word) if unicodedata.category(c)[0] in "LMN"]
    return word[kept[0] : kept[-1] + 1] if kept else ""


def reason(word: str, terms: Sequence[str]) -> str:
    """Return at what a bare word was cut: "hyphen", "number", "other sign", or "letter", which must not be."""
    inside = [c for c in word if unicodedata.category(c)[0] not in "LMN" and c not in "'\u200c\u200d"]
    # A mark at the start has no letter to stand on, and is left out.
    if not inside and (not unicodedata.category(word[0]).startswith("M") or len(terms) > 1):
        return "'" if "''" in word else "letter"
    if not inside:
        return "stray mark"
    if any(unicodedata.category(c) == "Pd" for c in inside):
        return "hyphen"
    between = [
        word[i - 1].isnumeric() and word[i + 1].isnumeric()
        for i, c in enumerate(word)
        if 0 < i < len(word) - 1 and c in inside
    ]
    return "number" if all(between) else "other sign"


def check(lines: Sequence[str], *, quote: bool = True) -> dict[str, Any]:
    """Cut sentences, and tell which of their words survive.

    Args:
        lines: the sentences.
        quote: whether examples of cut words may be given.
    """
    modes = {"default": Tokeniser(), "published": Tokeniser(mode="published")}
    words: Counter[str] = Counter()
    for line in lines:
        words.update(filter(None, map(bare, line.split())))
    n = words.total()
    cut: dict[str, Counter[str]] = {}
    whole = Counter[str]()
    for word, times in words.items():
        for mode, tokeniser in modes.items():
            whole[mode] += times * (tokeniser.terms(word) == [word])
        terms = modes["default"].terms(word)
        if terms != [word]:
            cut.setdefault(reason(word, terms), Counter())[word] += times
    return {
        "sentences": len(lines),
        "words": n,
        "terms": sum(len(modes["default"].terms(line)) for line in lines),
        "distinct_terms": len({term for line in lines for term in modes["default"].terms(line)}),
        "whole": whole["default"] / n,
        "whole_published": whole["published"] / n,
        "cut": {
            name: {
                "share": found.total() / n,
                "examples": _examples(found) if quote else [],
            }
            for name, found in sorted(cut.items())
        },
    }


def _examples(found: Counter[str]) -> list[str]:
    """Return the most frequent words that are words rather than mark-up."""
    words = sorted(found, key=lambda word: (-found[word], word))
    return [word for word in words if len(word) <= LONGEST_EXAMPLE and not set(word) & set("|<>[]{}`*")][:EXAMPLES]


def _common_voice(language: str) -> dict[str, Any]:
    return check(common_voice_texts(language, "train"))


def _multi30k(language: str) -> dict[str, Any]:
    text = gzip.decompress((require_data() / "multi30k" / f"train.{language}.gz").read_bytes()).decode()
    # Not to be redistributed: no word of it is quoted.
    return check(text.splitlines(), quote=False)


def _tatoeba(language: str) -> dict[str, Any]:
    return check(read_lines(require_data() / "tatoeba" / f"{language}-eng.{language}"))


def _wikipedia(language: str) -> dict[str, Any]:
    folder = require_data() / "indic"
    files = [folder / f"{split}.{language}-en.{language}" for split in ("dev", "devtest")]
    return check([line for file in files for line in read_lines(file)])


def _speed(lines: Sequence[str]) -> dict[str, Any]:
    """Time both modes in turns on SENTENCES of the sentences, and `icu` also on sentences it has met no word of."""
    from fliplens.text import segmentation

    lines = (list(lines) * (SENTENCES // len(lines) + 1))[:SENTENCES]
    default, icu = Tokeniser(), Tokeniser(mode="icu")

    def cut(tokeniser: Tokeniser) -> None:
        for line in lines:
            tokeniser.terms(line)

    def cut_anew() -> None:
        for line in lines:
            segmentation.forget()
            icu.terms(line)

    ways: dict[str, Callable[[], None]] = {
        "default": partial(cut, default),
        "icu": partial(cut, icu),
        "icu_anew": cut_anew,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - started)
    return {
        "sentences": len(lines),
        "characters": statistics.fmean(map(len, lines)),
        "terms": {
            "default": sum(len(default.terms(line)) for line in lines) / len(lines),
            "icu": sum(len(icu.terms(line)) for line in lines) / len(lines),
        },
        "icu_version": icu.icu_version,
        "per_second": {name: len(lines) / statistics.median(seconds) for name, seconds in taken.items()},
    }


def _share(value: float) -> str:
    return f"{100 * value:.2f}"


def _cut_at(result: dict[str, Any]) -> str:
    return "; ".join(
        f"{name} {_share(one['share'])}" + (f" ({' '.join(one['examples'])})" if one["examples"] else "")
        for name, one in sorted(result["cut"].items(), key=lambda item: -item[1]["share"])
    )


def _rate(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda result: f"{result['per_second'][name]:,.0f}"


TATOEBA = {"German": "deu", "French": "fra", "Bengali": "ben", "Hindi": "hin", "Tamil": "tam", "Telugu": "tel"}
THREE = {"English": "en", "German": "de", "French": "fr"}
INDIC = {"Bengali": "bn", "Hindi": "hi", "Tamil": "ta", "Telugu": "te"}

BENCHMARKS = (
    Benchmark(
        name="languages",
        description=(
            "words between spaces, outer punctuation taken off, and the share of them that is one term, per cent: by "
            "the default tokeniser and by the published one; at what the default one cuts the others, per cent of "
            "all words, with the most frequent of them"
        ),
        cases={
            **{f"{name}, Common Voice": partial(_common_voice, code) for name, code in THREE.items()},
            **{f"{name}, Multi30k": partial(_multi30k, code) for name, code in THREE.items()},
            **{f"{name}, Tatoeba": partial(_tatoeba, code) for name, code in TATOEBA.items()},
            **{f"{name}, Wikipedia": partial(_wikipedia, code) for name, code in INDIC.items()},
        },
        columns={
            "sentences": lambda result: f"{result['sentences']:,}",
            "words": lambda result: f"{result['words']:,}",
            "terms": lambda result: f"{result['terms']:,}",
            "distinct": lambda result: f"{result['distinct_terms']:,}",
            "whole": lambda result: _share(result["whole"]),
            "whole, published": lambda result: _share(result["whole_published"]),
            "cut at": _cut_at,
        },
        needs_data=True,
    ),
    Benchmark(
        name="languages-speed",
        description=(
            f"sentences a second on one core, the median of {ROUNDS} rounds over {SENTENCES:,} sentences, the modes "
            "in turns; terms and characters are those of a sentence; no word met: what is kept of words met before "
            "is forgotten before each sentence"
        ),
        cases={
            **{name: partial(_speed, lines) for name, lines in WITHOUT_SPACES.items()},
            "English, Common Voice": lambda: _speed(common_voice_texts("en", "dev")),
            "French, Common Voice": lambda: _speed(common_voice_texts("fr", "dev")),
        },
        columns={
            "characters": lambda result: f"{result['characters']:.0f}",
            "terms, default": lambda result: f"{result['terms']['default']:.1f}",
            "terms, icu": lambda result: f"{result['terms']['icu']:.1f}",
            "default": _rate("default"),
            "icu": _rate("icu"),
            "icu, no word met": _rate("icu_anew"),
            "ICU": lambda result: str(result["icu_version"]),
        },
        needs_data=False,
        cases_with_data=frozenset({"English, Common Voice", "French, Common Voice"}),
    ),
)
