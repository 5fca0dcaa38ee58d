"""Plots of studies: their files are what they should be, the same every time, and hold the words and numbers."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from commands import ROOT, environment
from hypothesis import given, settings
from hypothesis import strategies as st

from fliplens.errors import InputError, MissingExtraError
from fliplens.studies.drawing import COLOURS, DASHES, HATCHES, MARKERS, check_drawing, families
from fliplens.studies.plots import BarPlot, Bars, Line, LinePlot, render
from fliplens.studies.rendering import one_line
from fliplens.studies.tables import Cell, Column, Table, clean

pytest.importorskip("matplotlib")

SVG = "{http://www.w3.org/2000/svg}"


def lines(*labels: str) -> LinePlot:
    made = tuple(
        Line(label, (1, 2, 4), tuple(Cell(0.1 * x + 0.05 * n, se=0.01) for x in (1, 2, 4)))
        for n, label in enumerate(labels)
    )
    return LinePlot("Entity recall", "n, words", "recall", made)


def bars() -> BarPlot:
    return BarPlot(
        "Accuracy by view",
        "accuracy",
        ("text", "noisy"),
        (
            Bars("SpLiCE", (Cell(0.2958, ci95=(0.29, 0.3)), Cell.nothing("not run"))),
            Bars("FLiP", (Cell(0.6145, se=0.002), Cell(0.5883))),
        ),
        x_label="view",
    )


def drawn_words(svg: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - our own


@pytest.mark.parametrize("plot", [lines("strict", "partial"), bars()], ids=["lines", "bars"])
def test_both_forms_are_whole_and_the_same_every_time(plot: LinePlot | BarPlot) -> None:
    svg, png = render(plot, "svg"), render(plot, "png")
    assert (svg, png) == (render(plot, "svg"), render(plot, "png"))
    assert b"<dc:date>" not in svg and b"Matplotlib v" not in svg + png
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and (width, height) == (7 * 160, int(4.2 * 160))


def test_another_process_gives_the_same_bytes() -> None:
    code = "from test_studies_plots import *\nimport hashlib\nfor k in ('svg', 'png'):\n"
    code += "    print(hashlib.sha256(render(lines('a', 'b'), k) + render(bars(), k)).hexdigest())"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT / "tests",
            env={**environment(), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and len(runs[0].split()) == 2


def test_the_words_are_text() -> None:
    words = drawn_words(render(lines("strict", "partial"), "svg"))
    assert {"Entity recall", "n, words", "recall, %", "strict", "partial", "band: 95% interval"} <= set(words)
    words = drawn_words(render(bars(), "svg"))
    expected = {"Accuracy by view", "accuracy, %", "text", "noisy", "SpLiCE", "FLiP", "29.6", "61.5", "58.8", "–"}
    assert expected <= set(words) and "error bar: 95% interval" in words and "view" in words


def test_without_uncertainty_nothing_is_said_of_it() -> None:
    plain = LinePlot("t", "x", "y", (Line("a", (1, 2), (Cell(1), Cell(2))),))
    assert not [word for word in drawn_words(render(plain, "svg")) if "95%" in word]
    plain_bars = BarPlot("t", "y", ("g",), (Bars("a", (Cell(0.5),)),))
    assert not [word for word in drawn_words(render(plain_bars, "svg")) if "95%" in word]


awkward = st.text(st.sampled_from("ab_$^{}\\&<>\"' \n\t\x00\x0b\ud800\ufffeहि漢ع"), min_size=1, max_size=12)


@settings(max_examples=15)
@given(awkward, awkward, awkward)
def test_any_words_can_be_written(title: str, label: str, group: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cells = (Cell(0.5), Cell(-0.2))
        plot = BarPlot(title, label, (group, "_x"), (Bars(label, cells), Bars("_hidden", cells)))
        shown = drawn_words(render(plot, "svg"))
        render(plot, "png")
    assert "_hidden" in shown and "_x" in shown
    together = "".join("".join(shown).split())
    for text in (title, label, group):
        assert "".join(one_line(clean(text)).split()) in together


def axis_numbers(svg: bytes) -> list[float]:
    return [float(word.replace("−", "-")) for word in drawn_words(svg) if re.fullmatch(r"−?\d+(\.\d+)?", word)]


def rectangles(svg: bytes) -> list[tuple[float, float]]:
    """Return bottom and top (in points from the page's top) of the closed rectangles of bars."""
    found = []
    for path in ET.fromstring(svg).iter(f"{SVG}path"):  # noqa: S314 - our own
        if "clip-path" in path.attrib:
            heights = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path.attrib["d"])]
            if len(heights) == 4 and path.attrib["d"].rstrip().endswith("z"):
                found.append((max(heights), min(heights)))
    return found


def test_bars_start_at_zero_and_are_as_long_as_their_numbers() -> None:
    plot = BarPlot("t", "y", ("g", "h"), (Bars("a", (Cell(0.5), Cell(0.52))), Bars("b", (Cell(0.25), Cell(-0.125)))))
    found = rectangles(render(plot, "svg"))
    zero = found[0][0]
    lengths = [zero - top if bottom == pytest.approx(zero) else zero - bottom for bottom, top in found]
    assert [length / lengths[0] for length in lengths] == pytest.approx([1.0, 1.04, 0.5, -0.25], abs=1e-4)


def test_lines_of_positive_numbers_start_at_zero_unless_told() -> None:
    high = (Line("a", (1, 2), (Cell(0.8), Cell(0.9))),)
    assert 0.0 in axis_numbers(render(LinePlot("t", "x", "y", high), "svg"))
    assert 0.0 not in axis_numbers(render(LinePlot("t", "x", "y", high, from_zero=False), "svg"))
    low = (Line("a", (1, 2), (Cell(-0.8), Cell(0.9))),)
    assert min(axis_numbers(render(LinePlot("t", "x", "y", low), "svg"))) < 0


def test_a_log_axis_names_what_was_measured() -> None:
    made = (Line("a", (32, 64, 384), (Cell(0.4), Cell.nothing("x"), Cell(0.6))),)
    words = drawn_words(render(LinePlot("t", "rank", "y", made, x_axis="log"), "svg"))
    assert {"32", "64", "384"} <= set(words)
    named = LinePlot("t", "rank", "y", made, x_axis="log", x_ticks=((32, "32"), (384, "384\nfull")))
    assert {"32", "384", "full"} <= set(drawn_words(render(named, "svg")))


def test_a_plot_is_made_from_a_table() -> None:
    columns = [Column("method"), Column("view"), Column.percent("with"), Column.percent("without")]
    table = Table.build("T", columns, [["FLiP", "text", 0.5, 0.4], ["LiP", "text", 0.3, 0.2]])
    plot = BarPlot.of(table, [2, 3], y_label="accuracy", names=[0, 1])
    assert plot.groups == ("FLiP, text", "LiP, text") and [one.label for one in plot.bars] == ["with", "without"]
    assert plot.bars[1].cells == table.column(3) and (plot.unit, plot.scale) == ("%", 100.0)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="a cell for each of 2 x"):
        Line("a", (1, 2), (Cell(1),))
    with pytest.raises(InputError, match="found none"):
        LinePlot("t", "x", "y", ())
    with pytest.raises(InputError, match="use linear"):
        LinePlot("t", "x", "y", (Line("a", (0,), (Cell(1),)),), x_axis="log")
    with pytest.raises(InputError, match="linear or log"):
        LinePlot("t", "x", "y", (Line("a", (1,), (Cell(1),)),), x_axis="cubic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="found none"):
        BarPlot("t", "y", (), ())
    with pytest.raises(InputError, match="a cell for each of 2 groups"):
        BarPlot("t", "y", ("a", "b"), (Bars("x", (Cell(1),)),))


def test_looks_are_told_apart_in_grey() -> None:
    """Lightness as the eye sees it (CIE L*), or else what is drawn beside colour."""

    def lightness(colour: str) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
        ]
        y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y

    steps = [abs(lightness(one) - lightness(other)) for one, other in pairwise(COLOURS)]
    assert min(steps) > 6, steps
    assert len(set(MARKERS)) == len(set(HATCHES)) == len(COLOURS) and len(set(map(str, DASHES))) >= 4


def test_fonts_are_looked_for_only_where_letters_are_missing() -> None:
    assert families("plain, é, λ, −") == ["DejaVu Sans", "sans-serif"]
    found = families("हिन्दी \U0001fae8")
    assert found[0] == "DejaVu Sans" and found[-1] == "sans-serif"
    assert not [name for name in found if name.startswith("Last Resort")]


def test_without_matplotlib_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (check_drawing, lambda: render(bars(), "svg")):
        with pytest.raises(MissingExtraError, match=re.escape("pip install 'fliplens[plots]'")):
            call()


def test_describing_plots_and_tables_loads_no_matplotlib() -> None:
    code = (
        "import sys, fliplens.studies.page; print([n for n in ('matplotlib', 'torch', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
