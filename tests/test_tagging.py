"""Names in text: what a word is there, the gazetteer, the file that is written, the command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, assert_one_line, call, command, environment, interrupt
from hypothesis import given, settings
from hypothesis import strategies as st

from fliplens.errors import FliplensError, InputError
from fliplens.evaluation.entities import read_entities
from fliplens.files import write_lines
from fliplens.tagging import DecliningTagger, Tagged, Tagger, load_tagger, tag_texts
from fliplens.tagging.gazetteer import GazetteerTagger
from fliplens.tagging.names import names_in, words_of
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary

PLACES = ROOT / "tests" / "places.txt"

AWKWARD = st.one_of(
    st.characters(codec="utf-8"),
    st.sampled_from([*"ab1 -_'’ʼ＇", "\u00ad", "\u200c", "\u200d", "\u0301", "\u0338", "\ufe0f", "\ufeff", "İ", "ß"]),
    st.sampled_from(["\u1fef", "\u0958", "\u093f", "\u0939", "\u212b", "\u0345", "\u11a8", "\u1100", "\u1161"]),
)


class Listed:
    """A tagger that says what it was told to, and counts its calls."""

    spec = "listed"
    revision: str | None = None
    texts_a_call = 3

    def __init__(self, answers: dict[str, list[str]], *, fail_at: int | None = None, setting: int = 0) -> None:
        self.answers = answers
        self.fail_at = fail_at
        self.settings = {"setting": setting}
        self.calls: list[list[str]] = []

    def tag(self, texts: Sequence[str]) -> list[list[str]]:
        if len(self.calls) == self.fail_at:
            raise FliplensError("the line is dead")
        self.calls.append(list(texts))
        return [list(self.answers.get(text, ())) for text in texts]


class Shy(Listed):
    """Declines every text that holds a secret."""

    declined = 0

    def tag(self, texts: Sequence[str]) -> list[list[str]]:
        self.declined += sum("secret" in text for text in texts)
        return super().tag(texts)


def lines_of(path: Path) -> list[dict[str, object]]:
    # Sentences may hold other line breaks, which JSON lines do not end at.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def vocabulary_of(texts: Sequence[str]) -> Vocabulary:
    tokeniser = Tokeniser()
    terms = {term for text in texts for term in tokeniser.terms(text)}
    return Vocabulary(tuple(sorted(terms)), tokeniser=tokeniser)


# Words and their places -----------------------------------------------------------------------------------------


@settings(max_examples=1500)
@given(st.text(AWKWARD, max_size=14), st.booleans())
def test_words_with_places_are_the_tokenisers_words(text: str, lowercase: bool) -> None:
    tokeniser = Tokeniser(lowercase=lowercase)
    words = words_of(text, tokeniser)
    assert [word.term for word in words] == tokeniser.terms(text)
    assert all(tokeniser.terms(text[word.start : word.end]) == [word.term] for word in words)
    assert all(a.end <= b.start for a, b in pairwise(words))


@pytest.mark.parametrize(
    ("text", "names", "held", "missing"),
    [
        ("New York, New York!", ["New York,", "new york", "(NEW YORK)"], ["New York"], 0),
        ("He lives in York.", ["New York", "York"], ["York"], 1),
        ("Germany's and the Netherlands’s capitals", ["germany", "Netherlands"], ["Germany", "Netherlands"], 0),
        ("l'Allemagne et d’Italie", ["Allemagne", "Italie"], ["Allemagne", "Italie"], 0),
        ("Lloyd's of London", ["Lloyd's", "Lloyd's of London"], ["Lloyd's", "Lloyd's of London"], 0),
        ("Mr O'Brien", ["Brien", "O’Brien"], ["O'Brien"], 1),
        ("We can't, don't", ["Don", "can"], [], 2),
        ("Berlin", ["", "  ", "--", "?!"], [], 0),
        ("Cafe\u0301 Müller", ["Café Mu\u0308ller"], ["Cafe\u0301 Müller"], 0),
        ("Her name is Washington, D.C. now", ["Washington DC", "Washington D.C."], ["Washington, D.C"], 1),
        ("我住在东京。", ["东京", "京都"], ["东京"], 1),
        ("नई दिल्ली में", ["दिल्ली", "दिल"], ["दिल्ली"], 1),
        ("", ["Berlin"], [], 1),
        ("Paris's Paris", ["Paris"], ["Paris"], 0),
    ],
)
def test_names_are_held_as_the_text_writes_them(text: str, names: list[str], held: list[str], missing: int) -> None:
    assert names_in(text, names) == (held, missing)


# The gazetteer --------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["ab", "ba", "aa", "bb", "a"])


def brute_force(text: list[str], names: set[tuple[str, ...]]) -> list[str]:
    """The longest name at each word, by trying all of them."""
    found, i = [], 0
    while i < len(text):
        here = [name for name in names if tuple(text[i : i + len(name)]) == name]
        if here:
            longest = max(here, key=len)
            found.append(" ".join(longest))
            i += len(longest)
        else:
            i += 1
    return found


@given(
    st.lists(WORDS, max_size=12), st.lists(st.lists(WORDS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=6)
)
def test_the_longest_name_at_each_word_is_found(text: list[str], names: list[tuple[str, ...]]) -> None:
    tagger = GazetteerTagger([" ".join(name) for name in names])
    assert tagger.n_names == len(set(names))
    assert tagger.tag([" ".join(text)]) == [brute_force(text, set(names))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Flights to new york city, NEW YORK and York.", ["new york city", "NEW YORK", "York"]),
        ("New-York’s mayor", ["New-York"]),
        ("the rose of Rose Hill", ["rose", "Rose Hill"]),
        ("Washington, D.C., in Côte d'Ivoire", ["Washington, D.C", "Côte d'Ivoire"]),
        ("Vive l’Ivoire et d'York", ["Ivoire", "York"]),
        ("Newer Yorks roses", []),
        ("", []),
        ("...", []),
    ],
)
def test_names_are_given_as_the_text_writes_them(text: str, found: list[str]) -> None:
    names = ["New York", "york", "YORK", "", "!", "New York City", "Rose", "Rose Hill", "Washington D.C."]
    assert GazetteerTagger([*names, "Cote d'Ivoire", "Côte d’Ivoire", "Ivoire"]).tag([text]) == [found]


def test_match_case_asks_for_the_capitals_of_the_list() -> None:
    tagger = GazetteerTagger(["Rose", "Will Smith", "NATO"], match_case=True)
    texts = ["Rose will rise", "a rose", "WILL SMITH", "Will Smith's rose", "nato and NATO"]
    assert tagger.tag(texts) == [["Rose"], [], [], ["Will Smith"], ["NATO"]]
    assert GazetteerTagger(["Rose"]).tag(texts[:2]) == [["Rose"], ["rose"]]


def test_a_name_may_be_of_any_length() -> None:
    name = " ".join(f"w{i}" for i in range(5000))
    tagger = GazetteerTagger([name, "w0", "w1 w2"])
    assert tagger.tag([name, name[:-1]]) == [[name], ["w0", "w1 w2"]]


def test_a_gazetteer_is_a_file_of_names(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffNew York\r\n\r\nnew york\r\n--\r\nYork\r\n".encode())
    tagger = load_tagger(f"gazetteer:{path}")
    assert isinstance(tagger, Tagger) and not isinstance(tagger, DecliningTagger)
    assert isinstance(tagger, GazetteerTagger) and tagger.n_names == 2
    assert tagger.spec == f"gazetteer:{path.resolve()}" and tagger.settings == {"match_case": False}
    before = tagger.revision
    path.write_text("New York\n")
    assert load_tagger(f"gazetteer:{path}").revision not in (None, before)
    path.write_text("\n--\n")
    with pytest.raises(InputError, match="expected names, one a line"):
        load_tagger(f"gazetteer:{path}")
    with pytest.raises(InputError, match="found one text"):
        GazetteerTagger("York")


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("nonsense", {}, "expected a tagger of gazetteer:FILE"),
        ("gazetteer:", {}, "expected a tagger of gazetteer:FILE"),
        ("gazetteer:nowhere.txt", {}, "expected a text file at nowhere.txt"),
        ("gazetteer:x", {"labels": ["PER"]}, "expected labels with the tagger transformers alone"),
        ("gazetteer:x", {"batch_size": 3}, "with the tagger transformers or gemini alone"),
        ("gemini", {"match_case": True}, "with the tagger gazetteer alone"),
        ("transformers:x", {"base_url": "http://x"}, "with the tagger gemini alone"),
        ("transformers:x", {"batch_size": 0}, "batch_size of 1 or more"),
    ],
)
def test_a_wrong_spec_or_option_is_told(spec: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_tagger(spec, **options)  # type: ignore[arg-type]


# The file -------------------------------------------------------------------------------------------------------

TEXTS = [
    "Ann lives in New York, near Ann's mother.",
    "",
    "Nobody here.",
    "— !",
    "In Köln, “Ann”",
    "Bob",
    "Bob and Ann",
]
ANSWERS = {
    TEXTS[0]: ["Ann", "New York,", "ANN", "Chicago", "", "New York"],
    TEXTS[2]: [],
    TEXTS[4]: ["“Ann”", "Köln"],
    TEXTS[5]: ["Bob", "Bobby"],
    TEXTS[6]: ["Bob", "Ann"],
}
NAMES = [["Ann", "New York"], [], [], [], ["Ann", "Köln"], ["Bob"], ["Bob", "Ann"]]
COUNTS = Tagged(sentences=7, sentences_with_names=4, names=7, dropped=2, declined=0)


def test_the_file_is_what_read_entities_reads(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "names.jsonl"
    tagger = Listed(ANSWERS)
    assert tag_texts(TEXTS, tagger, out) == COUNTS
    assert lines_of(out) == [
        {"text": text, "line_number": number, "entity_names": names}
        for number, (text, names) in enumerate(zip(TEXTS, NAMES, strict=True), 1)
    ]
    # Texts without a word are nobody's business.
    assert tagger.calls == [[TEXTS[0], TEXTS[2]], [TEXTS[4], TEXTS[5]], [TEXTS[6]]]
    vocabulary = vocabulary_of(TEXTS)
    entities = read_entities(out, TEXTS, vocabulary)
    assert entities.entity_row.tolist() == [0, 0, 4, 4, 5, 6, 6]
    read = [vocabulary.words[word] for word in entities.words]
    assert read == ["ann", "new", "york", "ann", "köln", "bob", "bob", "ann"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["names.jsonl", "names.jsonl.manifest.json"]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.text(AWKWARD, max_size=20), st.lists(st.text(AWKWARD, min_size=1, max_size=5), max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_the_text_every_written_name_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[str]]]
) -> None:
    texts = ["Berlin", *(text for text, _ in rows)]
    # Names out of the text itself, and names out of nowhere.
    answers = {text: [*names, text[1:4], text[2:9]] for text, names in rows} | {"Berlin": ["Berlin"]}
    out = tmp_path_factory.mktemp("any") / "names.jsonl"
    done = tag_texts(texts, Listed(answers), out)
    vocabulary = vocabulary_of(texts)
    entities = read_entities(out, texts, vocabulary)
    assert len(entities.entity_row) == done.names
    tokeniser = Tokeniser()
    for text, line in zip(texts, lines_of(out), strict=True):
        names = line["entity_names"]
        assert line["text"] == text and isinstance(names, list)
        cut = [tuple(tokeniser.terms(name)) for name in names]
        assert all(cut) and len(set(cut)) == len(cut)


def test_a_killed_job_goes_on_and_loses_one_call(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    tag_texts(TEXTS, Listed(ANSWERS), whole)
    out = tmp_path / "names.jsonl"
    with pytest.raises(FliplensError, match="the line is dead"):
        tag_texts(TEXTS, Listed(ANSWERS, fail_at=2), out)
    assert not out.exists()
    second = Listed(ANSWERS)
    assert tag_texts(TEXTS, second, out) == COUNTS
    assert second.calls == [[TEXTS[6]]]
    assert out.read_bytes() == whole.read_bytes()
    # A finished job is not done again, and tells the same.
    third = Listed(ANSWERS, fail_at=0)
    assert tag_texts(TEXTS, third, out) == COUNTS
    with pytest.raises(FliplensError, match="the line is dead"):
        tag_texts(TEXTS, third, out, overwrite=True)
    assert out.read_bytes() == whole.read_bytes()


def test_wherever_a_part_file_breaks_off_the_job_ends_the_same(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    tag_texts(TEXTS, Listed(ANSWERS), whole)
    out, part = tmp_path / "names.jsonl", tmp_path / "names.jsonl.part"
    with pytest.raises(FliplensError):
        tag_texts(TEXTS, Listed(ANSWERS, fail_at=2), out)
    content = part.read_bytes()
    header = content.index(b"\n") + 1
    second = content.index(b"\n", header) + 1
    for size in range(header, len(content) + 1):
        part.write_bytes(content[:size])
        tagger = Listed(ANSWERS)
        assert tag_texts(TEXTS, tagger, out) == COUNTS
        assert out.read_bytes() == whole.read_bytes()
        assert len(tagger.calls) == (1 if size == len(content) else 2 if size >= second else 3)
        out.unlink()
    # A header that is not whole is nobody's job; nothing was answered yet.
    part.write_bytes(content[: header - 1])
    with pytest.raises(InputError, match="hold this job"):
        tag_texts(TEXTS, Listed(ANSWERS), out)
    part.write_bytes(b"")
    assert tag_texts(TEXTS, Listed(ANSWERS), out) == COUNTS


def test_records_of_another_process_are_not_taken_for_ours(tmp_path: Path) -> None:
    out, part = tmp_path / "names.jsonl", tmp_path / "names.jsonl.part"
    with pytest.raises(FliplensError):
        tag_texts(TEXTS, Listed(ANSWERS, fail_at=1), out)
    content = part.read_bytes()
    part.write_bytes(content + content[content.index(b"\n") + 1 :])
    assert tag_texts(TEXTS, Listed(ANSWERS), out) == COUNTS


@pytest.mark.parametrize("finished", [True, False])
def test_another_job_at_the_same_place_is_refused(tmp_path: Path, finished: bool) -> None:
    out = tmp_path / "names.jsonl"
    if finished:
        tag_texts(TEXTS, Listed(ANSWERS), out)
    else:
        with pytest.raises(FliplensError):
            tag_texts(TEXTS, Listed(ANSWERS, fail_at=1), out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for texts, tagger in [([*TEXTS, "more"], Listed(ANSWERS)), (TEXTS, Listed(ANSWERS, setting=1))]:
        with pytest.raises(InputError, match="other texts or by another tagger") as error:
            tag_texts(texts, tagger, out)
        assert "\n" not in str(error.value)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert tag_texts(["Ann", "Bob"], Listed({"Ann": ["Ann"]}), out, overwrite=True).names == 1
    assert [line["text"] for line in lines_of(out)] == ["Ann", "Bob"]


def test_a_file_of_somebody_else_or_changed_since_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "names.jsonl"
    out.write_text("mine\n")
    with pytest.raises(InputError, match="to be free or to hold this job"):
        tag_texts(TEXTS, Listed(ANSWERS), out)
    assert out.read_text() == "mine\n"
    tag_texts(TEXTS, Listed(ANSWERS), out, overwrite=True)
    out.write_text(out.read_text() + "\n")
    with pytest.raises(InputError, match="changed since"):
        tag_texts(TEXTS, Listed(ANSWERS), out)


def test_a_kill_between_manifest_and_file_leaves_a_job_that_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "names.jsonl"
    replace = Path.replace

    def dies(self: Path, target: Path) -> Path:
        if target == out:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        tag_texts(TEXTS, Listed(ANSWERS), out)
    monkeypatch.undo()
    assert not out.exists()
    tagger = Listed(ANSWERS, fail_at=0)
    assert tag_texts(TEXTS, tagger, out) == COUNTS


def test_declined_texts_are_counted_and_list_no_names(tmp_path: Path) -> None:
    texts = ["Ann", "a secret of Ann", "secret", "Bob", "Ann's secret"]
    tagger = Shy({"Ann": ["Ann"]})
    assert isinstance(tagger, DecliningTagger)
    done = tag_texts(texts, tagger, tmp_path / "names.jsonl")
    assert done == Tagged(sentences=5, sentences_with_names=1, names=1, dropped=0, declined=3)


def test_answers_that_are_no_names_are_refused(tmp_path: Path) -> None:
    class Short(Listed):
        def tag(self, texts: Sequence[str]) -> list[list[str]]:
            return super().tag(texts)[1:]

    with pytest.raises(FliplensError, match="list of names for each of 2 texts"):
        tag_texts(TEXTS, Short(ANSWERS), tmp_path / "names.jsonl")
    with pytest.raises(FliplensError, match="something else in them"):
        tag_texts(["Ann"], Listed({"Ann": [3]}), tmp_path / "x.jsonl")  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("texts", "out", "message"),
    [
        ([], "names.jsonl", "expected texts to tag in texts, found none"),
        (["ok", 3], "names.jsonl", "found int as number 2"),
        (["\ud800"], "names.jsonl", "lone surrogate"),
        ("Ann", "names.jsonl", "found one str"),
        (["Ann"], "names.json", "ends in .jsonl"),
        (["Ann"], "folder.jsonl", "found a folder"),
    ],
)
def test_what_cannot_be_tagged_or_written_is_told(tmp_path: Path, texts: list[str], out: str, message: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match=message):
        tag_texts(texts, Listed({}), tmp_path / out)


# The command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    write_lines(path, ["From Paris to New York City, then Paris.", "", "a guinea pig", "Germany's Guinea"])
    return path


def test_the_command_writes_names_and_tells_how_many(text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "names.jsonl"
    run = call("tag", text_file, "-o", out, "--by", f"gazetteer:{PLACES}", "--quiet")
    assert (run.status, run.err) == (0, "")
    assert run.out.startswith("4 sentences, 3 with names, 5 names (gazetteer:")
    assert [line["entity_names"] for line in lines_of(out)] == [
        ["Paris", "New York City"],
        [],
        ["guinea"],
        ["Germany", "Guinea"],
    ]
    again = call("tag", text_file, "-o", out, "--by", f"gazetteer:{PLACES}", "--quiet", "--json")
    assert again.json == {
        "output": str(out),
        "tagger": f"gazetteer:{PLACES.resolve()}",
        "revision": GazetteerTagger.load(PLACES).revision,
        "sentences": 4,
        "sentences_with_names": 3,
        "names": 5,
        "dropped": 0,
        "declined": 0,
    }
    by_case = ["tag", text_file, "-o", out, "--by", f"gazetteer:{PLACES}", "--match-case", "--quiet"]
    assert_one_line(call(*by_case), 2, "another tagger", "--overwrite")
    assert call(*by_case, "--overwrite", "--json").json["names"] == 4


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["--by", "gazetteer:none.txt"], 2, "expected a text file at none.txt"),
        (["--by", "words"], 2, "found 'words': name one of these"),
        (["--by", f"gazetteer:{PLACES}", "--labels", "PER"], 2, "transformers alone"),
        (["--by", f"gazetteer:{PLACES}", "--batch-size", "0"], 2, "alone"),
        (["--by", f"gazetteer:{PLACES}", "-o", "names.txt"], 2, "ends in .jsonl"),
        ([], 2, "--by"),
    ],
)
def test_a_wrong_call_is_one_line(
    text_file: Path, tmp_path: Path, argv: list[str], status: int, message: str
) -> None:
    assert_one_line(call("tag", text_file, "-o", tmp_path / "x.jsonl", *argv, "--quiet"), status, message)
    assert not (tmp_path / "x.jsonl").exists()


SLOW = """
import sys, time
import fliplens.tagging.gazetteer as gazetteer

gazetteer.GazetteerTagger.texts_a_call = 10
tag = gazetteer.GazetteerTagger.tag

def slow(self, texts):
    time.sleep(0.05)
    return tag(self, texts)

gazetteer.GazetteerTagger.tag = slow
from fliplens.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_killed_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    texts = tmp_path / "texts.txt"
    write_lines(texts, [f"Sentence {i} is of Paris." for i in range(400)])
    out, part = tmp_path / "names.jsonl", tmp_path / "names.jsonl.part"
    argv = ["tag", str(texts), "-o", str(out), "--by", f"gazetteer:{PLACES}", "--quiet"]

    def begun(_stderr: str) -> bool:
        return part.is_file() and part.read_bytes().count(b"\n") > 3

    killed = interrupt(*argv, number=number, once=begun, log=tmp_path / "log", script=SLOW)
    assert killed.out == "" and not out.exists()
    if number == signal.SIGKILL:
        assert killed.status == -signal.SIGKILL
    else:
        assert killed.status == 130 and "run the same command again" in killed.err
    before = part.read_bytes()
    kept = before.count(b"\n") - 1
    done = subprocess.run(command(argv, script=SLOW), env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("400 sentences, 400 with names, 400 names")
    assert [line["line_number"] for line in lines_of(out)] == list(range(1, 401))
    assert kept >= 3


def test_asking_for_help_or_for_a_tagger_loads_no_model_library() -> None:
    code = (
        "from fliplens.cli import main\ntry:\n    main(['tag', '--help'])\nexcept SystemExit:\n    pass\n"
        "import sys\nassert not {'numpy', 'torch', 'regex'} & set(sys.modules), 'by help'\n"
        "import fliplens.tagging\nfliplens.tagging.load_tagger('gazetteer:' + sys.argv[1])\n"
        "assert not {'torch', 'transformers', 'google.genai'} & set(sys.modules), 'by tagging'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(PLACES)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--match-case" in done.stdout and "GEMINI_API_KEY" in done.stdout


def test_names_of_real_text_measure_a_lens(data_dir: Path, tmp_path: Path) -> None:
    from fliplens.embeddings import open_embeddings
    from fliplens.evaluation.evaluating import evaluate
    from fliplens.files import read_lines
    from fliplens.training.fitting import VocabularyConfig, fit
    from fliplens.training.recipes import TrainConfig

    folder = data_dir / "common-voice"
    dev = read_lines(folder / "en.dev.txt")
    out = tmp_path / "names.jsonl"
    done = tag_texts(dev, GazetteerTagger.load(PLACES, match_case=True), out)
    assert 10 < done.sentences_with_names < 100
    rows = np.arange(4000)
    lens = fit(
        read_lines(folder / "en.train.txt")[:4000],
        open_embeddings(folder / "en.train.minilm.npy").subset(rows),
        vocabulary=VocabularyConfig(size=4000),
        config=TrainConfig(passes=1, rank=64),
    )
    entities = read_entities(out, dev, lens.vocabulary)
    assert entities.n_rows == done.sentences_with_names and len(entities.entity_row) == done.names
    result = evaluate(lens, dev, open_embeddings(folder / "en.dev.minilm.npy"), entities=entities)
    recall = result.views["primary"].entity_recall["without_prior"]
    assert 0 < recall.strict[-1].mean <= recall.partial[-1].mean <= 1
