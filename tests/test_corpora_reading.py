"""Sources as they are downloaded: what is read of each layout, and one line where it is not one."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fliplens.corpora.counting import BadRows, Counts
from fliplens.corpora.rows import Row, stream_lines
from fliplens.corpora.sources import KINDS, Wanted, open_source
from fliplens.corpora.tables import text_rows
from fliplens.errors import FliplensWarning, InputError
from fliplens.files import read_lines


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def rows(kind: str, *places: object, counts: Counts | None = None, **wanted: Any) -> list[Row]:
    source = open_source(kind, [str(place) for place in places], Wanted(**wanted))
    return list(source.rows(counts if counts is not None else Counts()))


def texts(found: Sequence[Row]) -> list[tuple[str, ...]]:
    return [row.texts for row in found]


# Lines ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=8), max_size=6))
def test_streamed_lines_are_those_that_are_read_whole(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    for between, end, name in (("\n", "\n", "a.txt"), ("\r\n", "\r\n", "b.txt"), ("\n", "", "c.txt.gz")):
        path = tmp_path_factory.mktemp("lines") / name
        data = (between.join(lines) + end).encode()
        if data:
            path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
            assert list(stream_lines(path)) == read_lines(path)


def test_lines_end_at_line_feeds_alone_and_a_mark_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028two\x0bthree\rfour\r\n\r\nfive".encode())
    assert list(stream_lines(path)) == ["one\u2028two\x0bthree\rfour", "", "five"]


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as stream:
        for number in range(200):
            stream.write(b"".join(b"sentence %d of some words\n" % (1000 * number + k) for k in range(1000)))
    tracemalloc.start()
    assert sum(1 for _ in stream_lines(path)) == 200_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 5_000_000 and peak < 500_000


@pytest.mark.parametrize("before", [0, 1, 5000])
def test_bad_encoding_is_told_with_its_line(tmp_path: Path, before: int) -> None:
    for name in ("a.txt", "a.txt.gz"):
        data = b"good line\n" * before + b"caf\xe9 bad\nmore\n"
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        with pytest.warns(FliplensWarning, match=rf"found byte 0xe9 in line {before + 1}: such rows") as caught:
            found = list(stream_lines(tmp_path / name))
        assert found == ["good line"] * before + ["caf\ufffd bad", "more"] and len(caught) == 1
    # As a character of the file it is no byte that could not be read.
    (tmp_path / "b.txt").write_text("a \ufffd\n", encoding="utf-8")
    assert list(stream_lines(tmp_path / "b.txt")) == ["a \ufffd"]


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    whole = gzip.compress(b"a line of text\n" * 1000)
    for name, data in (("cut.gz", whole[:-20]), ("none.gz", b"plain text\n"), ("head.gz", whole[:5])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="expected a whole gzip file"):
            list(stream_lines(tmp_path / name))
    with pytest.raises(InputError, match="found none: check the path"):
        list(stream_lines(tmp_path / "absent"))
    with pytest.raises(InputError, match="Is a directory"):
        list(stream_lines(tmp_path))


# Parallel files -------------------------------------------------------------------------------------------------


@pytest.fixture
def europarl(tmp_path: Path) -> Path:
    write(tmp_path / "ep" / "europarl-v7.de-en.de", "Guten Tag.", "Danke.", "")
    write(tmp_path / "ep" / "europarl-v7.de-en.en", "Good day.", "Thank you.", "Empty.")
    return tmp_path / "ep"


EUROPARL = [("Guten Tag.", "Good day."), ("Danke.", "Thank you."), ("", "Empty.")]


def test_europarl_by_stem_folder_and_files(europarl: Path) -> None:
    stem = europarl / "europarl-v7.de-en"
    counts = Counts()
    found = rows("europarl", stem, counts=counts)
    assert texts(found) == EUROPARL and counts.read == 3
    assert {row.split for row in found} == {""}
    assert texts(rows("europarl", europarl)) == EUROPARL
    # Files that are named stand in the order in which they are.
    assert texts(rows("parallel", f"{stem}.de", f"{stem}.en")) == EUROPARL
    assert texts(rows("parallel", f"{stem}.en", f"{stem}.de")) == [(en, de) for de, en in EUROPARL]
    assert texts(rows("parallel", stem, languages=("en", "de"))) == [(en, de) for de, en in EUROPARL]
    assert open_source("europarl", [str(stem)]).languages == ("de", "en")


def test_samanantar_and_packed_files(tmp_path: Path) -> None:
    folder = tmp_path / "en-hi"
    write(folder / "train.en.gz", "Hello.", "Rain.")
    write(folder / "train.hi", "नमस्ते।", "वर्षा।")
    found = rows("samanantar", folder)
    assert texts(found) == [("Hello.", "नमस्ते।"), ("Rain.", "वर्षा।")]
    # The only split there is: no way to split a corpus.
    assert {row.split for row in found} == {""}
    assert open_source("samanantar", [str(folder)]).languages == ("en", "hi")


def test_three_languages_and_splits_of_a_folder(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for language in ("de", "en", "fr"):
            write(tmp_path / "m" / f"{split}.{language}.gz", f"{split} {language}")
    write(tmp_path / "m" / "README.txt", "no corpus")
    found = rows("parallel", tmp_path / "m")
    assert found == [
        Row(("train de", "train en", "train fr"), "train"),
        Row(("val de", "val en", "val fr"), "dev"),
    ]
    assert texts(rows("parallel", tmp_path / "m", languages=("fr", "de"))) == [
        ("train fr", "train de"),
        ("val fr", "val de"),
    ]
    named = rows("parallel", f"train={tmp_path / 'm' / 'val'}", f"test={tmp_path / 'm' / 'train'}")
    assert [row.split for row in named] == ["train", "test"]


def test_files_whose_names_tell_no_language(tmp_path: Path) -> None:
    first, second = write(tmp_path / "left.txt", "a"), write(tmp_path / "right.txt", "b")
    assert texts(rows("parallel", first, second, languages=("en", "de"))) == [("a", "b")]
    with pytest.raises(InputError, match="as many languages as files"):
        rows("parallel", first, second)


def test_sides_of_different_length_are_told_with_both_lengths(europarl: Path) -> None:
    write(europarl / "europarl-v7.de-en.en", *(f"line {number}" for number in range(7)))
    with pytest.raises(InputError, match=r"found 3 lines in .*\.de and 7 lines in .*\.en: one of them is cut off"):
        rows("europarl", europarl / "europarl-v7.de-en")


@pytest.mark.parametrize(
    ("places", "wanted", "message"),
    [
        (["nothing/here"], {}, "two languages or more, found none"),
        (["ep/europarl-v7.de-en"], {"languages": ("de", "fr")}, "of de, fr, found those of de, en"),
        (
            ["ep/europarl-v7.de-en.de"],
            {},
            r"found ep\S+\.de-en\.de alone: name their stem, ep\S+\.de-en, which has de, en",
        ),
        (["ep/europarl-v7.de-en.de"], {"languages": ("de", "en")}, "alone: name their stem"),
        (["lone/a.de"], {}, r"alone: put its translation beside it as a\.LANGUAGE, or prepare it as text"),
        (["lone"], {}, r"expected files STEM\.LANGUAGE .* in the folder lone, found a \(de\): check the path"),
        (["bare"], {}, r"expected files STEM\.LANGUAGE .* in the folder bare, found none: check the path"),
        (
            ["several"],
            {},
            r"one corpus in two languages or more in the folder several, found several corpora, ben-eng \(ben, eng\)"
            r", deu-eng \(deu, eng\): name one, as several/ben-eng, or .* as --languages ben,eng$",
        ),
        (
            ["several"],
            {"languages": ("ben", "deu")},
            "one corpus of ben, deu in the folder several, found several corpora",
        ),
        (["mixed"], {}, r"in the folder mixed, found deu-eng \(deu, eng\): name one, as mixed/deu-eng, or"),
        (["train=several"], {}, r"found several corpora, .*: name one, as several/ben-eng"),
        (["ep/europarl-v7.de-en"], {"languages": ("de",)}, "two languages or more, found de"),
        (["ep/europarl-v7.de-en"], {"languages": ("de", "de")}, "each language once"),
        (["ep/europarl-v7.de-en"], {"languages": ("de", "../x")}, "expected a language such as"),
        (["ep/europarl-v7.de-en"], {"columns": ("a", "b")}, "found some for"),
        (["ep/europarl-v7.de-en"], {"min_up_votes": 2}, "found some for"),
        ([], {}, "expected where the source is"),
    ],
)
def test_parallel_files_that_are_not_there(
    europarl: Path,
    monkeypatch: pytest.MonkeyPatch,
    places: list[str],
    wanted: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(europarl.parent)
    for name in ("lone/a.de", "several/deu-eng.deu", "several/deu-eng.eng", "several/ben-eng.ben"):
        write(Path(name), "text")
    for name in ("several/ben-eng.eng", "mixed/deu-eng.deu", "mixed/deu-eng.eng", "mixed/README.md", "bare/a.npy"):
        write(Path(name), "text")
    for kind in ("parallel", "europarl", "samanantar", "tatoeba"):
        # Of columns Tatoeba has some to say.
        if kind != "tatoeba" or "columns" not in wanted:
            with pytest.raises(InputError, match=message):
                rows(kind, *places, **wanted)


def test_one_corpus_of_several_is_named_or_told_by_its_languages(tmp_path: Path) -> None:
    for name in ("deu-eng.deu", "deu-eng.eng", "ben-eng.ben", "ben-eng.eng"):
        write(tmp_path / name, name)
    expected = [("deu-eng.deu", "deu-eng.eng")]
    assert texts(rows("tatoeba", tmp_path / "deu-eng")) == expected
    assert texts(rows("tatoeba", tmp_path, languages=("deu", "eng"))) == expected


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.en").touch()
    (tmp_path / "a.de").touch()
    with pytest.raises(InputError, match="found an empty file"):
        rows("parallel", tmp_path / "a")
    with pytest.raises(InputError, match="found an empty file"):
        rows("text", tmp_path / "a.en")


# Pairs a line ---------------------------------------------------------------------------------------------------


def test_tatoeba_in_its_four_layouts(tmp_path: Path) -> None:
    expected = [("Go.", "Geh."), ("Hi.", "Hallo.")]
    two = write(tmp_path / "eng-deu.tsv", "Go.\tGeh.", "Hi.\tHallo.")
    three = write(tmp_path / "deu.txt", "Go.\tGeh.\tCC-BY 2.0 (France)", "Hi.\tHallo.\tCC-BY")
    four = write(tmp_path / "pairs in eng-deu.tsv.gz", "\ufeff12\tGo.\t34\tGeh.", "56\tHi.\t78\tHallo.")
    assert texts(rows("tatoeba", two)) == texts(rows("tatoeba", four)) == expected
    assert texts(rows("tatoeba", three, languages=("en", "de"))) == expected
    assert open_source("tatoeba", [str(four)]).languages == ("eng", "deu")
    assert texts(rows("tatoeba", four, columns=("4", "2"))) == [(b, a) for a, b in expected]
    write(tmp_path / "t" / "deu-eng.deu", "Geh.", "Hallo.")
    write(tmp_path / "t" / "deu-eng.eng", "Go.", "Hi.")
    assert texts(rows("tatoeba", tmp_path / "t" / "deu-eng")) == [(b, a) for a, b in expected]


def test_lines_without_enough_columns_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "eng-deu.tsv", "Go.\tGeh.", "no tab", "Hi.\tHallo.", "")
    counts = Counts()
    with pytest.warns(
        FliplensWarning, match=r"left out 2 rows of .* expected 2 columns, .* in line 2 of .*, found 1"
    ):
        assert len(rows("tatoeba", path, counts=counts)) == 2
    assert (counts.read, counts.malformed, counts.kept) == (4, 2, 2)
    # The first line may be the bad one.
    late = write(tmp_path / "eng-ita.tsv", "no tab", "1\tGo.\t2\tVai.")
    with pytest.warns(FliplensWarning, match="left out 1 row of"):
        assert texts(rows("tatoeba", late)) == [("Go.", "Vai.")]
    with pytest.raises(InputError, match="2 columns, separated by tabs, in line 1 of .* found 1, and no other row"):
        rows("tatoeba", write(tmp_path / "eng-fra.tsv", "no tab"))
    (tmp_path / "eng-spa.tsv").touch()
    with pytest.raises(InputError, match="a pair of sentences a line in .*, found an empty file"):
        rows("tatoeba", tmp_path / "eng-spa.tsv")
    with pytest.raises(InputError, match="expected 4 columns, separated by tabs"):
        rows("tatoeba", path, columns=("2", "4"))
    with pytest.raises(InputError, match="two numbers of columns, from 1"):
        rows("tatoeba", path, columns=("a", "b"))
    with pytest.raises(InputError, match="the two languages of .*, found 0"):
        rows("tatoeba", write(tmp_path / "deu.txt", "Go.\tGeh."))


# Named columns --------------------------------------------------------------------------------------------------

CELLS = [
    ("A plain one.", "Eine einfache."),
    ('He said "no", twice.', "Er sagte „nein“, zweimal."),
    ("Two\nlines.", "Zwei\nZeilen."),
    ("", "leer"),
]


def table(path: Path) -> Path:
    """Write CELLS in the format that the name asks for, by other means than those under test."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind in ("csv", "tsv"):
        with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter="\t" if kind == "tsv" else ",")
            writer.writerow(["id", "en", "de"])
            writer.writerows([number, *cells] for number, cells in enumerate(CELLS))
    elif kind == "jsonl":
        lines = [
            json.dumps({"id": number, "en": en or None, "de": de, "both": {"en": en, "de": de}})
            for number, (en, de) in enumerate(CELLS)
        ]
        write(path, *lines)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = {
            "id": list(range(len(CELLS))),
            "en": [en or None for en, _ in CELLS],
            "de": [de for _, de in CELLS],
            "both": [{"en": en, "de": de} for en, de in CELLS],
        }
        parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_columns_of_every_kind_of_table(tmp_path: Path, name: str) -> None:
    path = table(tmp_path / name)
    assert list(text_rows(path, ["de", "en"])) == [(de, en) for en, de in CELLS]
    if "sv" not in name:
        assert list(text_rows(path, ["both.en", "de"])) == CELLS
        with pytest.raises(InputError, match=r"expected a column both\.fr in"):
            list(text_rows(path, ["both.fr"]))
        with pytest.raises(InputError, match="expected text in column id"):
            list(text_rows(path, ["id"]))
    with pytest.raises(InputError, match=r"expected a column fr, it in .*, found id, en, de"):
        list(text_rows(path, ["fr", "en", "it"]))
    counts = Counts()
    found = rows("table", path, languages=("en", "de"), columns=("en", "de"), counts=counts)
    assert texts(found) == CELLS and counts.read == len(CELLS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", 'en,de\n"open,b\n', "in line 2 of .* quotation marks that are not closed"),
        ("a.csv", 'en,"de\na,b\n', "expected names of columns in line 1 of .* quotation marks"),
        ("a.csv", "en,de\na,b,c\n", r"expected 2 columns \(en, de\) in line 2 .* found 3, and no other row"),
        ("a.csv", "en,de\n" + "a\n" * 3, "in line 2 .* found 1, and no row before or behind it"),
        ("a.csv", "", "found no columns"),
        ("a.jsonl", "[1]\n", "line 1 of .*, found list"),
        ("a.jsonl", "none\n" * 2000, "expected a JSON object in line 1 of .*, found something else"),
        ("a.jsonl", '{"en": ["a"], "de": "b"}\n', "expected text in column en of line 1 .*, found list"),
        ("a.parquet", "none", "expected a Parquet file"),
        ("a.xlsx", "", "expected a file that ends in"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        rows("table", tmp_path / name, languages=("en", "de"), columns=("en", "de"))


GOOD = [(f"Line {number}.", f"Zeile {number}.") for number in range(4)]
OPEN = '"Never closed, said he'


@pytest.mark.parametrize(
    ("name", "bad", "n", "message"),
    [
        ("a.csv", "only one", 1, r"expected 2 columns \(en, de\) in line 4 of .*, found 1"),
        ("a.csv", "a,b,c", 1, "in line 4 of .*, found 3"),
        ("a.csv", f'{OPEN}\n{OPEN}\n"He ""said"" so" and,went', 3, "in line 4 .* not closed or not doubled"),
        ("a.csv", '"two\nlines",but,three cells', 2, "in line 4 .*, found 3"),
        ("a.csv", "x" * 1000 + ",y", 1, "in line 4 .*, found a line of 1002 characters"),
        ("a.csv", '"' + "x\n" * 600 + '",y', 601, "in line 4 .*more than 1000 characters"),
        ("a.tsv", "only one", 1, r"expected 2 columns \(en, de\) in line 4 of .*, found 1"),
        ("a.jsonl", '{"en": "a", ', 1, "expected a JSON object in line 3 of .*, found something else"),
        ("a.jsonl", "[" * 100_000, 1, "expected a JSON object in line 3 of .*, found something else"),
        ("a.jsonl", '[1]\n"x"\nnull\n3', 4, "expected a JSON object in line 3 of .*, found list"),
        ("a.jsonl", '{"en": ["a"], "de": "b"}', 1, "expected text in column en of line 3 of .*, found list"),
    ],
)
def test_rows_that_are_laid_out_otherwise_are_counted_and_the_first_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bad: str, n: int, message: str
) -> None:
    monkeypatch.setattr("fliplens.corpora.tables.LARGEST_CELL", 1000)
    before = csv.field_size_limit()
    between = "\t" if name.endswith(".tsv") else ","
    if name.endswith("sv"):
        lines = [f"en{between}de", *(between.join(cells) for cells in GOOD)]
        lines.insert(3, bad)
    else:
        lines = [json.dumps(dict(zip(("en", "de"), cells, strict=True))) for cells in GOOD]
        lines.insert(2, bad)
    counts = Counts()
    with pytest.warns(FliplensWarning, match=message) as caught:
        found = rows(
            "table", write(tmp_path / name, *lines), languages=("en", "de"), columns=("en", "de"), counts=counts
        )
    assert texts(found) == GOOD and len(caught) == 1 and csv.field_size_limit() == before
    assert (counts.read, counts.malformed) == (len(GOOD) + n, n)
    assert f"left out {'1 row' if n == 1 else f'{n} rows'} of" in str(caught[0].message)


def test_marks_that_quote_nothing_are_a_tabbed_texts_own(tmp_path: Path) -> None:
    lines = ["en\tde", '"No," said he.\t„Nein“, sagte er.', '"Why?\t"Warum?', "A\x00b.\tC.", '"All of it."\t"Alles."']
    found = rows("table", write(tmp_path / "a.tsv", *lines), languages=("en", "de"), columns=("en", "de"))
    assert texts(found) == [
        ('"No," said he.', "„Nein“, sagte er."),
        ('"Why?', '"Warum?'),
        ("A\x00b.", "C."),
        ("All of it.", "Alles."),
    ]


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=6)


@given(st.lists(st.tuples(CELL | st.sampled_from(['"', 'a"b', '""', ",", "\t"]), CELL), min_size=1, max_size=8))
def test_whatever_is_written_as_csv_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    for name in ("a.csv", "a.tsv"):
        path = tmp_path_factory.mktemp("csv") / name
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter="," if name == "a.csv" else "\t", lineterminator="\n")
            writer.writerows([("en", "de"), *cells])
        assert list(text_rows(path, ["en", "de"])) == cells


@given(st.lists(st.sampled_from(["a,b", "a", "a,b,c", '"a",b', '"a', '"a"b,c', "", '"a""b",c']), max_size=12))
def test_no_line_of_csv_is_lost_or_counted_twice(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", "en,de", "good,gut", *lines)
    counts = Counts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(text_rows(path, ["en", "de"], counts))
    # No cell of these spans lines (a mark that opens one is never closed in front of a comma): each is a row.
    alone = {"a,b": ("a", "b"), '"a",b': ("a", "b"), '"a""b",c': ('a"b', "c")}
    assert found == [("good", "gut"), *(alone[line] for line in lines if line in alone)]
    assert counts.read == 1 + sum(map(bool, lines)) and counts.kept == len(found)


def test_a_file_whose_start_is_all_bad_is_not_read_to_its_end() -> None:
    counts = Counts(read=5)
    bad = BadRows("f", counts)
    with pytest.raises(InputError, match="^the first, and no row before or behind it"):
        for number in range(2000):
            counts.read += 1
            bad.add("the first" if not number else "another")
    assert counts.malformed == 1000
    later = BadRows("f", counts)
    counts.read += 1  # a good one
    with pytest.warns(FliplensWarning, match="left out 2000 rows of f as malformed, the first: it"):
        for _ in range(2000):
            counts.read += 1
            later.add("it")
        later.end()


def test_tables_need_columns_and_languages(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv")
    with pytest.raises(InputError, match="expected the columns of the text, found none"):
        rows("table", path)
    with pytest.raises(InputError, match="a language for each of the 2 columns"):
        rows("table", path, columns=("en", "de"))
    assert open_source("table", [str(path)], Wanted(columns=("en",))).languages == ("und",)
    with pytest.raises(InputError, match=r"expected a file at .*absent\.csv"):
        rows("table", tmp_path / "absent.csv", columns=("en",))


# Data sets ------------------------------------------------------------------------------------------------------


def test_data_sets_saved_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    columns = {"id": [1, 2, 3], "translation": [{"en": f"line {n}", "de": f"Zeile {n}"} for n in range(3)]}
    whole = datasets.Dataset.from_dict(columns)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole, "validation": whole.select([0])}).save_to_disk(tmp_path / "two")
    wanted: dict[str, Any] = {"languages": ("en", "de"), "columns": ("translation.en", "translation.de")}
    expected = [(f"line {n}", f"Zeile {n}") for n in range(3)]
    counts = Counts()
    found = rows("hf", tmp_path / "one", counts=counts, **wanted)
    assert texts(found) == expected and counts.read == 3 and {row.split for row in found} == {""}
    split = rows("hf", tmp_path / "two", **wanted)
    assert [row.split for row in split] == ["train"] * 3 + ["dev"]
    assert {row.split for row in rows("hf", tmp_path / "two", resplit=True, **wanted)} == {""}
    with pytest.raises(InputError, match="expected a column text in .*, found id, translation"):
        rows("hf", tmp_path / "one", columns=("text",))
    with pytest.raises(InputError, match=r"expected a column translation\.fr"):
        rows("hf", tmp_path / "one", columns=("translation.fr",))
    with pytest.raises(InputError, match="expected text in column id of row 0 of .*, found int"):
        rows("hf", tmp_path / "one", columns=("id",))
    mixed = datasets.Dataset.from_dict({"t": [{"en": "a"}, None, {"en": None}, {"en": "b"}]})
    mixed.save_to_disk(tmp_path / "mixed")
    assert texts(rows("hf", tmp_path / "mixed", columns=("t.en",))) == [("a",), ("",), ("",), ("b",)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected a data set saved to disk"):
        rows("hf", tmp_path / "empty", columns=("a",))


# Common Voice ---------------------------------------------------------------------------------------------------

HEAD = "client_id\tpath\tsentence_id\tsentence\tup_votes\tdown_votes\tlocale"


def voice(folder: Path, name: str, *clips: tuple[str, str, int, int], head: str = HEAD) -> None:
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    lines = [f"c\t{path}\tid\t{sentence}\t{up}\t{down}\ten" for path, sentence, up, down in clips]
    write(folder / f"{name}.tsv", head, *lines)


def test_common_voice_reads_its_own_splits_or_all_that_is_validated(tmp_path: Path) -> None:
    folder = tmp_path / "en"
    voice(folder, "train", ("a.mp3", "One here.", 2, 0), ("b.mp3", "Two here.", 3, 1))
    voice(folder, "test", ("c", "Three here.", 2, 0))
    voice(folder, "validated", *((f"{letter}.mp3", f"{letter} is here.", 2, 0) for letter in "abcde"))
    write(folder / "clip_durations.tsv", "clip\tduration[ms]", "b.mp3\t2500", "a.mp3\t1000")
    found = rows("common-voice", folder)
    assert [(row.texts, row.split, Path(row.audio).name, row.seconds) for row in found] == [
        (("One here.",), "train", "a.mp3", 1.0),
        (("Two here.",), "train", "b.mp3", 2.5),
        (("Three here.",), "test", "c.mp3", None),
    ]
    source = open_source("common-voice", [str(folder)])
    assert source.languages == ("en",) and source.spoken
    again = rows("common-voice", folder, resplit=True, languages=("en-x",))
    assert [Path(row.audio).name for row in again] == ["a.mp3", "b.mp3", "c.mp3", "d.mp3", "e.mp3"]
    assert {row.split for row in again} == {""}


def test_votes_quotes_and_lines_that_are_cut(tmp_path: Path) -> None:
    folder = tmp_path / "en"
    voice(
        folder,
        "validated",
        ("a.mp3", '"He said ""no"" twice."', 2, 0),
        ("b.mp3", '"All of it is quoted."', 2, 1),
        ("c.mp3", 'A "word" in quotes.', 5, 2),
        ("d.mp3", "Few votes.", 1, 0),
    )
    with (folder / "validated.tsv").open("a", encoding="utf-8") as stream:
        stream.write("c\te.mp3\n\n")
    counts = Counts()
    with pytest.warns(
        FliplensWarning, match="left out 1 row of .* expected 6 columns or more in line 6 of .*, found 2"
    ):
        found = rows("common-voice", folder, min_up_votes=2, max_down_votes=1, counts=counts)
    assert texts(found) == [('He said "no" twice.',), ('"All of it is quoted."',)]
    assert counts.to_json() == {"read": 5, "changed": 0, "kept": 2, "dropped": {"malformed": 1, "few_votes": 2}}
    with pytest.warns(FliplensWarning, match="left out 1 row"):
        assert len(rows("common-voice", folder)) == 4
    voice(folder, "validated", ("a.mp3", "One here.", 2, 0), ("b.mp3", "Two here.", "many", 0))  # type: ignore[arg-type]
    with pytest.warns(FliplensWarning, match="expected numbers of votes in line 3 of"):
        assert texts(rows("common-voice", folder, min_up_votes=2)) == [("One here.",)]


def test_common_voice_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none: name the folder"):
        rows("common-voice", tmp_path / "absent")
    (tmp_path / "cv" / "en").mkdir(parents=True)
    with pytest.raises(InputError, match=r"found en: name the folder that holds them"):
        rows("common-voice", tmp_path / "cv")
    folder = tmp_path / "cv" / "en"
    voice(folder, "train", head="client_id\ttext")
    with pytest.raises(InputError, match="expected columns path, sentence .*, found client_id, text"):
        rows("common-voice", folder)
    voice(folder, "train", ("a.mp3", "One.", 2, 0), head="client_id\tpath\tx\tsentence")
    assert len(rows("common-voice", folder)) == 1
    with pytest.raises(InputError, match="expected columns up_votes, down_votes"):
        rows("common-voice", folder, min_up_votes=1)
    voice(folder, "train", ("a.mp3", "One.", 2, 0))
    write(folder / "clip_durations.tsv", "clip\tduration[ms]", "a.mp3\tlong")
    with pytest.raises(InputError, match="milliseconds a line in .*, found no such line"):
        rows("common-voice", folder)
    write(folder / "clip_durations.tsv", "clip\tduration[ms]", "a.mp3\tlong", "b.mp3\t2000", "c.mp3")
    with pytest.warns(FliplensWarning, match="milliseconds in line 2 of .* and in 1 more: the clips' headers"):
        assert [row.seconds for row in rows("common-voice", folder)] == [None]
    voice(tmp_path / "cv" / "de", "train", ("a.mp3", "Eins.", 2, 0))
    with pytest.raises(InputError, match="clips of one language, found en, de"):
        rows("common-voice", folder, tmp_path / "cv" / "de")


# All kinds ------------------------------------------------------------------------------------------------------


def test_kinds_are_those_of_the_command_line() -> None:
    from fliplens.cli.data_flags import KINDS as NAMED

    assert tuple(KINDS) == NAMED
    with pytest.raises(InputError, match="expected a kind of source out of common-voice"):
        open_source("opus", ["a"])


def test_installed_documentation() -> None:
    found = rows("installed", limit=50, max_words=12, min_words=5)
    assert len(found) == 50 and all(5 <= len(row.texts[0].split()) <= 12 for row in found)
    with pytest.raises(InputError, match="expected nothing behind installed"):
        rows("installed", "docs")
