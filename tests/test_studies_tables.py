"""Tables of studies: what is read back from each form is what was put in, whatever the words; sentences claim no more
than cells carry.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fliplens.arithmetic.uncertainty import estimate
from fliplens.errors import InputError
from fliplens.studies.findings import PER_CENT, Scale, beyond_chance, compared, highest, measured, times, trend
from fliplens.studies.rendering import (
    csv_names,
    escape_latex,
    escape_markdown,
    from_csv_text,
    show_number,
    show_p,
    to_csv,
    to_latex,
    to_markdown,
)
from fliplens.studies.tables import Cell, Column, Table

NASTY = [
    "a | b",
    r"back\slash \| pipe",
    "*bold* _it_ `code` ~~gone~~ $x$",
    "<b>&amp;</b> [a](b) ![c](d)",
    "# heading",
    "trailing #",
    "- item",
    "1. first",
    "=SUM(A1)",
    "'=quoted",
    "''",
    "'plain",
    "@who",
    "+1",
    "-1",
    "\t=tab",
    "हिन्दी தமிழ் বাংলা తెలుగు",
    "العربية 中文 ไทย",
    "e\u0301 é",
    'say "so", he said',
    "100% {braces} ^~#_&",
    "[1] starts an option",
    "* starred",
]
# Nothing that cannot be in a file of text: rendering replaces control characters, which is tested apart.
words = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.sampled_from("ab|\\`*_[]<>&~$#+-=.1)!{}^%@'\" ä漢हि"), max_size=12),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp", "Zs", "Co"]), max_size=12),
)
finite = st.floats(-1e6, 1e6)


@st.composite
def numbers(draw: st.DrawFn) -> Cell:
    mean, half = draw(finite), draw(st.floats(0, 10))
    return Cell(
        mean,
        se=draw(st.none() | st.floats(0, 10)),
        ci95=draw(st.sampled_from([None, (mean - half, mean + half)])),
        p=draw(st.none() | st.floats(0, 1)),
        n=draw(st.none() | st.integers(0, 10**6)),
        difference=draw(st.none() | finite.map(Cell)),
        signed=draw(st.booleans()),
        best=draw(st.booleans()),
    )


cells = st.one_of(numbers(), words.map(Cell.of_text), words.map(Cell.nothing))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(
        st.lists(
            st.builds(
                Column,
                words,
                st.lists(words, max_size=2).map(tuple),
                words,
                st.sampled_from([1.0, 100.0]),
                st.integers(0, 4),
                st.sampled_from([None, "higher", "lower"]),
            ),
            min_size=1,
            max_size=4,
        )
    )
    rows = draw(st.lists(st.tuples(*[cells] * len(columns)), max_size=4))
    return Table(draw(words), tuple(columns), tuple(rows), tuple(draw(st.lists(words, max_size=2))), draw(words))


def modality() -> Table:
    """Table 2 of the paper in small."""
    return Table.build(
        "Modality",
        [
            Column("Lang."),
            Column("embeddings", ("Training",)),
            Column.percent("Text", "Test embeddings", "Accuracy"),
            Column.percent("Speech", "Test embeddings", "Accuracy"),
            Column.percent("(Text, Speech)", "Jaccard"),
        ],
        [
            ["EN", "Text", Cell(0.7571, se=0.0012), Cell(-0.0222, signed=True, p=0.0001), 0.872],
            ["EN", "Speech", Cell.nothing("no audio"), Cell(0.7268, ci95=(0.72, 0.733)), np.float32(0.5)],
        ],
        notes=["One note."],
        source="table 2 of the paper",
        breaks=[1],
    )


# Values ---------------------------------------------------------------------------------------------------------


def test_a_cell_is_made_from_an_estimate() -> None:
    found = estimate(np.array([0.0, 1.0, 1.0, 0.0, 1.0]))
    cell = Cell.of(found)
    assert (cell.mean, cell.se, cell.ci95, cell.n) == (found.mean, found.se, found.ci95, 5)
    assert Cell.of(estimate(np.array([np.nan]))).missing == "undefined: nothing to average"


def test_a_cell_is_made_from_a_difference() -> None:
    class Difference:
        mean, se, ci95, p_value, n = -0.02, 0.01, (-0.04, -0.001), 0.03, 7

    cell = Cell.of(Difference(), signed=True)
    assert cell == Cell(-0.02, se=0.01, ci95=(-0.04, -0.001), p=0.03, n=7, signed=True)


def test_what_is_not_finite_is_missing() -> None:
    assert Cell(math.nan, se=1.0, best=True) == Cell.nothing("undefined: nothing to average")
    assert Cell(math.inf).missing == "infinite"
    assert Cell(1.0, se=math.nan, ci95=(math.nan, 2.0), p=math.nan) == Cell(1.0)
    assert Cell(1.0, difference=Cell.nothing("x")) == Cell(1.0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Cell(), "exactly one"),
        (lambda: Cell(1.0, text="x"), "mean and text"),
        (lambda: Cell(text="x", se=1.0), "leave these out"),
        (lambda: Cell(missing="x", best=True), "best"),
        (lambda: Cell(1.0, ci95=(2.0, 1.0)), "swap its ends"),
        (lambda: Cell(1.0, p=1.5), "p-value"),
        (lambda: Column("x", decimals=-1), "decimals"),
        (lambda: Column("x", scale=0), "scale above 0"),
        (lambda: Column("x", better="more"), "better"),  # type: ignore[arg-type]
        (lambda: Column("x", shows=("sd",)), "'sd'"),  # type: ignore[arg-type]
        (lambda: Table("t", (), ()), "with columns"),
        (lambda: Table.build("t", [Column("x")], [[None]]), "found NoneType"),
        (lambda: Table.build("t", [Column("x")], [["a", "b"]]), "found 2 in row 0"),
    ],
)
def test_what_cannot_be_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        wrong()


def test_the_best_numbers_are_marked_as_shown() -> None:
    columns = [Column("m"), Column.percent("up", decimals=1), Column("down", better="lower"), Column("neither")]
    rows = [["a", 0.61240, 3.0, 1], ["b", 0.61238, 2.0, 2], ["c", 0.2, 4.0, 3], ["d", Cell(9, signed=True), "x", 4]]
    marked = Table.build("t", columns, rows).with_best()
    assert [[cell.best for cell in row] for row in marked.rows] == [
        [False, True, False, False],
        [False, True, True, False],
        [False] * 4,
        [False] * 4,
    ]


def test_what_is_not_known_to_be_worse_is_marked_as_well() -> None:
    cells = [Cell(0.6, se=0.01), Cell(0.58, se=0.01), Cell(0.55, ci95=(0.5, 0.59)), Cell(0.5, se=0.01), Cell(0.57)]
    marked = Table.build("t", [Column.percent("x")], [[cell] for cell in cells]).with_best()
    assert [row[0].best for row in marked.rows] == [True, True, True, False, False]


def test_a_group_given_as_it_is_is_one_heading() -> None:
    assert Column("x", "Accuracy").groups == ("Accuracy",)  # type: ignore[arg-type]


# JSON -----------------------------------------------------------------------------------------------------------


@given(tables())
def test_json_holds_everything(table: Table) -> None:
    text = json.dumps(table.to_json(), allow_nan=False)
    assert Table.from_json(json.loads(text)) == table


def test_json_of_what_is_not_there_is_null_and_surrogates_are_replaced() -> None:
    table = Table.build("a\ud800b", [Column("x")], [[math.nan], [1.0]])
    value = table.to_json()
    assert value["title"] == "a\ufffdb"
    assert value["rows"][0][0]["mean"] is None
    assert value["rows"][1][0]["se"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"format_version": 99},
        {"columns": [{"heading": "x", "colour": 1}]},
        {"rows": [[{"mean": "x"}]]},
        {"rows": None},
        {"rows": [[3]]},
    ],
)
def test_json_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    value = {**Table.build("t", [Column("x")], [[1.0]]).to_json(), **change}
    with pytest.raises(InputError, match="expected"):
        Table.from_json(value)


# Markdown -------------------------------------------------------------------------------------------------------


def parsed(markdown: str) -> tuple[list[list[str]], list[str]]:
    """Return what a Markdown parser shows: the cells of the one table, and headings and paragraphs beside it."""
    rows: list[list[str]] = []
    others: list[str] = []
    inside = ""
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            inside = token.type
        elif token.type in ("th_close", "td_close"):
            inside = ""
        elif token.type == "inline":
            shown = "".join(
                child.content if child.type in ("text", "text_special") else f"<{child.type}>"
                for child in token.children or []
                if child.type not in ("strong_open", "strong_close")
            )
            (rows[-1] if inside else others).append(shown)
        elif token.content.strip():
            others.append(f"<{token.type}>")
    return rows, others


@settings(max_examples=200)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), words.filter(str.strip), words.filter(str.strip))
@example([(one, other) for one, other in itertools.pairwise(NASTY)], NASTY[0], NASTY[1])
def test_markdown_shows_the_words_as_they_are(rows: list[tuple[str, str]], title: str, note: str) -> None:
    table = Table.build(title, [Column(title), Column(note)], rows, notes=[note])
    shown, others = parsed(to_markdown(table))
    assert shown == [[title.strip(), note.strip()], *([one.strip(), two.strip()] for one, two in rows)]
    assert others == [title.strip(), note.strip()]


def test_markdown_shows_numbers_groups_reasons_and_source() -> None:
    rows, others = parsed(to_markdown(modality().with_best()))
    assert rows == [
        [
            "Lang.",
            "Training · embeddings",
            "Test embeddings · Accuracy · Text, %",
            "Test embeddings · Accuracy · Speech, %",
            "Jaccard · (Text, Speech), %",
        ],
        ["EN", "Text", "75.71 ± 0.12", "−2.22 (p < 0.001)", "87.20"],
        ["EN", "Speech", "–¹", "72.68 (72.00 to 73.30)", "50.00"],
    ]
    assert others == ["Modality", "¹ no audio", "One note.", "Corresponds to table 2 of the paper."]
    lines = to_markdown(modality().with_best(), level=0).splitlines()
    assert lines[1] == "| --- | --- | ---: | ---: | ---: |"
    assert "**87.20**" in lines[2]


def test_line_breaks_and_control_characters_stay_inside_their_cell() -> None:
    table = Table.build("a\nb", [Column("x\r\ny"), Column("z")], [["one\n\ntwo\x0b\x00|", "u\u2028v"]])
    rows, others = parsed(to_markdown(table))
    assert rows == [["x y", "z"], ["one two |", "u v"]] and others == ["a b"]


def test_numbers_are_shown_with_true_signs() -> None:
    assert show_number(-2.224, 2) == "−2.22"
    assert show_number(2.224, 2, signed=True) == "+2.22"
    assert show_number(-0.001, 2, signed=True) == "0.00"
    assert show_number(10.0, 0) == "10"
    assert [show_p(p) for p in (0.0, 0.0009, 0.001, 0.0416, 0.0996, 0.61, 1.0)] == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.001",
        "p = 0.042",
        "p = 0.10",
        "p = 0.61",
        "p = 1.00",
    ]


# CSV ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(max_size=8) | words, words), min_size=1, max_size=5), words)
@example([("=1+1", "'=1"), ("\r", "a\nb"), ("＝1", "''@")], "-x")
def test_csv_words_are_read_back(rows: list[tuple[str, str]], heading: str) -> None:
    table = Table.build("t", [Column(heading), Column("other")], rows)
    read = list(csv.reader(io.StringIO(to_csv(table), newline="")))
    assert [[from_csv_text(field) for field in row] for row in read[1:]] == [
        [cell.text for cell in row] for row in table.rows
    ]
    # No program runs what starts with an apostrophe.
    assert not any(
        field[:1] in ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠") for row in read for field in row
    )


@given(st.lists(numbers() | words.map(Cell.nothing), min_size=1, max_size=6))
def test_csv_numbers_are_read_back_to_the_last_bit(column: list[Cell]) -> None:
    rows = list(
        csv.DictReader(io.StringIO(to_csv(Table.build("t", [Column.percent("x")], [[one] for one in column]))))
    )
    assert len(rows) == len(column)

    def number(row: dict[str, str], part: str) -> float | None:
        return float(row[f"x_{part}"]) if row.get(f"x_{part}") else None

    for cell, row in zip(column, rows, strict=True):
        low, high = cell.ci95 or (None, None)
        assert [number(row, part) for part in ("mean", "se", "low", "high", "p", "n")] == [
            cell.mean,
            cell.se,
            low,
            high,
            cell.p,
            cell.n,
        ]
        assert number(row, "difference") == (cell.difference and cell.difference.mean)
        assert number(row, "is_difference") == (1 if cell.signed else None)
        if cell.missing:
            assert from_csv_text(row["x_missing"]) == cell.missing


def test_csv_names_are_plain_and_never_twice() -> None:
    columns = [Column("Text, %", ("Accuracy",)), Column("हिन्दी"), Column("x"), Column("X"), Column("?!")]
    table = Table.build("t", columns, [["a", "b", 1, Cell(2, se=0.5, ci95=(1, 3)), "c"]])
    assert csv_names(table) == ["accuracy_text", "हिन्दी", "x", "x_2", "column_5"]
    assert (
        to_csv(table) == "accuracy_text,हिन्दी,x_mean,x_2_mean,x_2_se,x_2_low,x_2_high,column_5\na,b,1,2,0.5,1,3,c\n"
    )
    mixed = Table.build("t", [Column("x")], [["none"], [1.5]])
    assert to_csv(mixed) == "x_mean,x_text\n,none\n1.5,\n"


# LaTeX ----------------------------------------------------------------------------------------------------------


def unescaped(text: str) -> str:
    """Return what LaTeX sets for the commands that `escape_latex` writes; anything else active is an error."""
    commands = {
        r"\textbackslash{}": "\\", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~", r"\textless{}": "<",
        r"\textgreater{}": ">", r"\textbar{}": "|", r"{\textasciigrave}": "`", "{[}": "[", "{]}": "]", "{*}": "*",
        r"\{": "{", r"\}": "}", r"\$": "$", r"\&": "&", r"\#": "#", r"\%": "%", r"\_": "_", "$-$": "\u2212",
        r"$\pm$": "±", r"$\times$": "×", r"$\alpha$": "α", "{}": "",
    }  # fmt: skip
    pattern = re.compile("|".join(re.escape(one) for one in sorted(commands, key=len, reverse=True)))
    left = pattern.sub("", text)
    assert not re.search(r"[\\{}$&#^_~%]", left), left
    assert not re.search(r"--|''|,,|\?`|!`", pattern.sub(lambda match: "{}" if match[0] == "{}" else "x", text))
    return pattern.sub(lambda match: commands[match[0]], text)


@given(words)
@example("α and a--b---c, ''x'' ,, ± − ×")
def test_latex_reads_as_the_words(text: str) -> None:
    assert unescaped(escape_latex(text)) == text.replace("\t", " ")


@given(tables())
def test_latex_has_the_right_structure(table: Table) -> None:
    lines = to_latex(table).splitlines()
    specification = next(line for line in lines if line.startswith(r"\begin{tabular}"))
    (letters,) = re.findall(r"\{tabular\}\{([lr]*)\}$", specification)
    assert len(letters) == len(table.columns)
    start, end = lines.index(r"\toprule"), lines.index(r"\bottomrule")
    body = [line for line in lines[start + 1 : end] if line.endswith(r" \\")]
    depth = max(len(column.groups) for column in table.columns)
    assert len(body) == depth + 1 + len(table.rows)
    for line in body:
        spans = sum(int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", line))
        assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == len(table.columns)
    for text in ("begin", "end"):
        assert sum(line.count(f"\\{text}{{") for line in lines) == 2
    # Braces close where they open, on each line.
    for line in lines:
        bare = re.sub(r"\\[{}\\]", "", line)
        assert bare.count("{") == bare.count("}")


def test_latex_puts_neighbours_under_one_heading() -> None:
    text = to_latex(modality().with_best(), label="tab:mod_%")
    assert r"\multicolumn{2}{c}{Test embeddings}" in text and r"\cmidrule(lr){3-4}" in text
    assert text.count("Test embeddings") == 1
    assert r"\label{tab:mod}" in text and r"\textbf{87.20}" in text and r"--\textsuperscript{1}" in text
    assert text.count(r"\midrule") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX")
def test_latex_compiles(tmp_path: Path) -> None:
    ascii_words = "".join(map(chr, range(32, 127)))
    rows = [[ascii_words, Cell(0.5, se=0.1, best=True), Cell.nothing(ascii_words)], ["[x] é α", 1, Cell(2, p=0.5)]]
    nasty = Table.build(ascii_words, [Column("a"), Column.percent("b", "*"), Column("")], rows, notes=[ascii_words])
    (tmp_path / "t.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}"
        + to_latex(modality())
        + to_latex(nasty)
        + r"\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:].decode("utf-8", "replace")


# Findings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (
            Cell(0.023, ci95=(0.019, 0.027), p=0.0002),
            "A is 2.3 points above B (95% interval 1.9 to 2.7, p < 0.001).",
        ),
        (Cell(-0.023, ci95=(-0.027, -0.019)), "A is 2.3 points below B (95% interval 1.9 to 2.7)."),
        (Cell(0.023, p=0.02), "A is 2.3 points above B (p = 0.020)."),
        (
            Cell(0.002, ci95=(-0.001, 0.005), p=0.2),
            "No difference beyond chance between A and B (0.2 points, 95% interval −0.1 to 0.5, p = 0.20).",
        ),
        # What is known disagrees: nothing is claimed.
        (
            Cell(0.002, ci95=(0.001, 0.005), p=0.2),
            "No difference beyond chance between A and B (0.2 points, 95% interval 0.1 to 0.5, p = 0.20).",
        ),
        (
            Cell(-0.002, ci95=(-0.005, 0.001), p=0.01),
            "No difference beyond chance between A and B (−0.2 points, 95% interval −0.5 to 0.1, p = 0.010).",
        ),
        (Cell(0.02, se=0.005), "A is 2.0 points above B (95% interval 1.0 to 3.0)."),
        (
            Cell(0.0001, ci95=(0.00005, 0.0002)),
            "A is less than 0.1 points above B (95% interval 0.0 to 0.0).",
        ),
        (Cell(0.02), "A is 2.0 points above B; whether that is more than chance was not measured."),
        (Cell(0.0), "A and B are equal; how far chance goes was not measured."),
        (Cell.nothing("no audio."), "The difference between A and B was not measured: no audio."),
        (Cell.of_text("x"), "The difference between A and B was not measured: it is no number."),
    ],
)
def test_a_difference_is_told_as_far_as_it_goes(difference: Cell, sentence: str) -> None:
    assert compared("A", "B", difference) == sentence
    claimed = sentence.startswith("A is") and "(" in sentence
    assert beyond_chance(difference) == claimed


def test_one_number_is_told_with_what_is_known_of_it() -> None:
    assert measured("text", Cell(0.6, se=0.01, ci95=(0.58, 0.62))) == "text: 60.0% (95% interval 58.0 to 62.0)."
    assert measured("text", Cell(0.6, se=0.01)) == "text: 60.0% (standard error 1.0)."
    assert measured("time", Cell(3.21), Scale(decimals=1, unit=" s")) == "time: 3.2 s."
    assert measured("speech", Cell.nothing("no audio")) == "Speech was not measured: no audio."
    assert PER_CENT.change(-0.023) == "−2.3 points"


def test_the_highest_is_told_with_its_lead() -> None:
    a, b = Cell(0.7, ci95=(0.69, 0.71)), Cell(0.65, ci95=(0.64, 0.66))
    assert (
        highest({"B": b, "A": a, "C": Cell.nothing("x")}) == "A is highest with 70.0%, 5.0 points above the next, B."
    )
    close = Cell(0.695, ci95=(0.68, 0.7))
    assert highest({"A": a, "B": close}).endswith("B; their 95% intervals overlap.")
    assert highest({"A": a, "B": Cell(0.6)}).endswith("whether that is more than chance was not measured.")
    assert highest({"A": a}) == "Only A was measured: 70.0%."
    assert highest({"A": a, "B": a, "C": a}) == "A, B and C are level at the highest, 70.0%."
    assert highest({"A": Cell.nothing("x")}) == "Nothing was measured."


def test_a_trend_is_told_with_its_turns() -> None:
    def told(*values: float | None) -> str:
        made = [Cell.nothing("x") if value is None else Cell(value) for value in values]
        return trend("Recall", "n", range(1, len(values) + 1), made)

    assert told(0.1, 0.2, 0.2) == "Recall rises from 10.0% at n = 1 to 20.0% at n = 3, nowhere falling."
    assert told(0.3, None, 0.2) == "Recall falls from 30.0% at n = 1 to 20.0% at n = 3, nowhere rising."
    assert told(0.3, 0.3) == "Recall stays at 30.0% from n = 1 to 2."
    assert told(0.1, 0.4, 0.2) == (
        "Recall goes from 10.0% at n = 1 to 20.0% at n = 3, not steadily: highest 40.0% at n = 2, "
        "lowest 10.0% at n = 1."
    )
    assert told(0.2, 0.1, 0.2).startswith("Recall goes from 20.0% at n = 1 to 20.0% at n = 3, not steadily")
    assert told(0.2, None) == "Recall was measured at 1 value of n: no trend to tell."
    assert told(None, None) == "Recall was measured at no values of n: no trend to tell."
    with pytest.raises(InputError, match="pair them"):
        trend("Recall", "n", [1, 2], [Cell(1)])


def test_a_ratio_is_told_where_there_is_one() -> None:
    assert times("FLiP", "SpLiCE", Cell(0.6145), Cell(0.2958)) == "FLiP is 2.08 times as high as SpLiCE."
    assert times("A", "B", Cell(0.5), Cell(0.0)) == "B is at 0.00: no ratio to A can be taken."
    assert times("A", "B", Cell(0.5), Cell.nothing("none")) == "B was not measured: none."


def test_markdown_is_escaped_no_more_than_needed() -> None:
    assert escape_markdown("FLiP rank-384 (text), 2.5 + 1 = 3.5!") == "FLiP rank-384 (text), 2.5 + 1 = 3.5!"
