r"""Tables as Markdown, CSV and LaTeX.

What is text stays that text in each of them, in any script:

- Markdown (GitHub's): whatever would be markup is escaped; line breaks and control characters become spaces.
- CSV holds numbers as measured (shares, not per cent) in full precision; mean, standard error, ends of the 95%
  interval and so on have columns of their own. It is UTF-8 without a byte-order mark, one line feed a row. A text
  that a spreadsheet would run as a formula (first character one of `= + - @`, their full-width forms, tab or
  carriage return) gets an apostrophe before it, and so does one that already starts with apostrophes and then one of
  these: who reads such a text strips one apostrophe (`from_csv_text`). Numbers never get one.
- LaTeX is a `table` for `\input`; it needs booktabs. Words in other than Latin letters need LuaLaTeX or XeLaTeX and
  a font that has them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import groupby

from fliplens.studies.tables import Cell, Column, Table

__all__ = [
    "csv_names",
    "escape_latex",
    "escape_markdown",
    "from_csv_text",
    "one_line",
    "show_number",
    "show_p",
    "to_csv",
    "to_latex",
    "to_markdown",
]

MINUS = "\u2212"
DASH = "\u2013"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufdd0-\ufdef\ufffe\uffff]+")
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


# Text -----------------------------------------------------------------------------------------------------------


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, each run of which becomes one space."""
    return _CONTROL.sub(" ", text)


def escape_markdown(text: str) -> str:
    """Return a text as GitHub's Markdown that reads as that text, in a paragraph, a heading or a table's cell."""
    escaped = re.sub(r"([\\`*_\[\]<>&|~$])", r"\\\1", one_line(text).strip(" "))
    # At the start of a line these would begin a heading, a list, a quotation or a rule.
    escaped = re.sub(r"^(\s*)([#+\-=])", r"\1\\\2", escaped)
    escaped = re.sub(r"^(\s*\d+)([.)])", r"\1\\\2", escaped)
    # Any number of them at the end of a heading would be dropped.
    return re.sub(r"(?<!\\)(#+\s*)$", r"\\\1", escaped)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"{\textasciigrave}",
    # After the end of a row these would be its options.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    MINUS: "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "∞": r"$\infty$",
}
# Symbols of the model, which plain LaTeX has in mathematics alone; a Greek word stays one.
_GREEK = {
    "α": "alpha",
    "β": "beta",
    "λ": "lambda",
    "μ": "mu",
    "σ": "sigma",
    "θ": "theta",
    "φ": "varphi",
    "Δ": "Delta",
}
_SYMBOL = re.compile(rf"(?<!\w)[{''.join(_GREEK)}](?![^\W\d])")


def escape_latex(text: str) -> str:
    """Return a text as LaTeX that reads as that text; line breaks and control characters become spaces."""
    escaped = "".join(_LATEX.get(char, char) for char in one_line(text))
    escaped = _SYMBOL.sub(lambda match: rf"$\{_GREEK[match[0]]}$", escaped)
    # Two of them in a row would become another sign.
    return re.sub(r"(?<=([-',]))(?=\1)", "{}", escaped)


_FORMULA = re.compile("^'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")


def _csv_text(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def from_csv_text(text: str) -> str:
    """Return the text that a field of `to_csv` stands for: without the apostrophe that keeps it from being run."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


# Numbers --------------------------------------------------------------------------------------------------------


def show_number(value: float, decimals: int, *, signed: bool = False) -> str:
    """Return a number with that many decimals, with a true minus sign; zero as shown has no sign."""
    shown = f"{abs(value):.{decimals}f}"
    if not shown.strip("0."):
        return shown
    return (MINUS if value < 0 else "+" if signed else "") + shown


def show_p(p: float) -> str:
    """Return a p-value as it is written: "p < 0.001", "p = 0.042", "p = 0.61"."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def _parts(cell: Cell, column: Column) -> tuple[str, str, list[str]]:
    """Return a number, what follows it ("± 0.13") and what stands in brackets, as shown."""
    if cell.mean is None:
        raise AssertionError("only numbers have parts")

    def number(value: float, signed: bool = False) -> str:
        return show_number(value * column.scale, column.decimals, signed=signed)

    after, brackets = "", []
    if "se" in column.shows and cell.se is not None:
        after = f"± {number(cell.se)}"
    if cell.ci95 is not None and ("ci95" in column.shows or ("se" in column.shows and cell.se is None)):
        brackets.append(f"{number(cell.ci95[0])} to {number(cell.ci95[1])}")
    if "difference" in column.shows and cell.difference is not None and cell.difference.mean is not None:
        brackets.append(number(cell.difference.mean, signed=True))
        if "p" in column.shows and cell.difference.p is not None:
            brackets.append(show_p(cell.difference.p))
    if "p" in column.shows and cell.p is not None:
        brackets.append(show_p(cell.p))
    return number(cell.mean, cell.signed), after, brackets


def _reasons(table: Table) -> list[str]:
    """Return why cells are missing, each reason once, in order."""
    return list(dict.fromkeys(cell.missing for row in table.rows for cell in row if cell.missing is not None))


def _is_text(cells: Sequence[Cell]) -> bool:
    """Return whether a column is words: its numbers, and those alone, stand at its right."""
    return any(cell.text is not None for cell in cells) or not any(cell.mean is not None for cell in cells)


def _heading(column: Column, escape: Callable[[str], str]) -> str:
    unit = f", {escape(column.unit)}" if column.unit else ""
    return escape(column.heading) + unit if column.heading else escape(column.unit)


# Markdown -------------------------------------------------------------------------------------------------------


def to_markdown(table: Table, *, level: int = 2) -> str:
    """Return a table for GitHub: its title as a heading, the table, what is missing and why, notes and source.

    A Markdown table has one row of headings: groups stand before the column's own heading.

    Args:
        table: what is shown.
        level: of the heading, 1 to 6; 0 leaves it out.
    """
    reasons = _reasons(table)
    headings = [
        " · ".join([*(escape_markdown(group) for group in column.groups if group), _heading(column, escape_markdown)])
        for column in table.columns
    ]
    ruler = ["---" if _is_text(table.column(place)) else "---:" for place in range(len(table.columns))]

    def shown(cell: Cell, column: Column) -> str:
        if cell.text is not None:
            return escape_markdown(cell.text)
        if cell.missing is not None:
            return DASH + str(reasons.index(cell.missing) + 1).translate(_SUPERSCRIPTS)
        number, after, brackets = _parts(cell, column)
        number = f"**{number}**" if cell.best else number
        return " ".join(filter(None, [number, after, f"({escape_markdown(', '.join(brackets))})" * bool(brackets)]))

    body = [[shown(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]
    lines = ["| " + " | ".join(line) + " |" for line in [headings, ruler, *body]]
    below = [
        f"{str(number).translate(_SUPERSCRIPTS)} {escape_markdown(reason)}"
        for number, reason in enumerate(reasons, start=1)
    ]
    below += [escape_markdown(note) for note in table.notes]
    below += [f"Corresponds to {escape_markdown(table.source)}."] * bool(table.source)
    title = ["#" * level + " " + escape_markdown(table.title)] * (level > 0)
    return "\n\n".join([*title, "\n".join(lines), *below]) + "\n"


# CSV ------------------------------------------------------------------------------------------------------------

_EMPTY = Cell(missing="")


def _csv_parts(cell: Cell) -> dict[str, float | int | str | None]:
    """Return all that a column of numbers holds of a cell, by the end of its name."""
    other = cell.difference or _EMPTY
    low, high = cell.ci95 or (None, None)
    other_low, other_high = other.ci95 or (None, None)
    return {
        "mean": cell.mean,
        "se": cell.se,
        "low": low,
        "high": high,
        "p": cell.p,
        "n": cell.n,
        "is_difference": 1 if cell.signed else None,
        "difference": other.mean,
        "difference_se": other.se,
        "difference_low": other_low,
        "difference_high": other_high,
        "difference_p": other.p,
        "missing": cell.missing,
        "text": cell.text,
    }


def csv_names(table: Table) -> list[str]:
    """Return a plain name for each column: its headings in lower case, words joined by `_`, no name twice."""
    names: list[str] = []
    for number, column in enumerate(table.columns, start=1):
        # Marks belong to the letters that carry them: `\w` alone would break Indic words.
        words = "".join(
            char if char.isalnum() or char == "_" or _is_mark(char) else " "
            for char in " ".join([*column.groups, column.heading]).lower()
        ).split()
        plain = "_".join(words) or f"column_{number}"
        name, again = plain, 2
        while name in names:
            name, again = f"{plain}_{again}", again + 1
        names.append(name)
    return names


def to_csv(table: Table) -> str:
    """Return a table as CSV: a column of words is one field, a column of numbers one field for each of its parts.

    The parts are `NAME_mean`, `_se`, `_low`, `_high` (95% interval), `_p`, `_n`, `_is_difference` (1 where the number
    is itself one), `_difference` (from a number beside it) and its own, `_missing` (why there is no number) and
    `_text` (words instead of one); those that no cell of the column has are left out, but for the mean. Numbers are
    as measured, not scaled.
    """
    headings: list[str] = []
    fields: list[list[str]] = []
    for place, name in enumerate(csv_names(table)):
        cells = table.column(place)
        if all(cell.text is not None for cell in cells):
            headings.append(name)
            fields.append([_csv_text(cell.text or "") for cell in cells])
            continue
        parts = [_csv_parts(cell) for cell in cells]
        for part in _csv_parts(_EMPTY):
            values = [one[part] for one in parts]
            if part == "mean" or any(value is not None for value in values):
                headings.append(f"{name}_{part}")
                fields.append([_csv_field(value) for value in values])
    rows = [[_csv_text(heading) for heading in headings], *map(list, zip(*fields, strict=True))]
    # A row of one empty field would else be no row.
    return "".join((",".join(map(_quoted, row)) if row != [""] else '""') + "\n" for row in rows)


def _quoted(field: str) -> str:
    """Return a field, in quotes where it needs them.

    The standard library's writer, told to end rows by a line feed, leaves a carriage return bare in Python 3.11.
    """
    return '"' + field.replace('"', '""') + '"' if re.search('[",\r\n]', field) else field


def _csv_field(value: float | int | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _csv_text(value)
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


# LaTeX ----------------------------------------------------------------------------------------------------------


def to_latex(table: Table, *, label: str = "") -> str:
    r"""Return a table as a LaTeX `table` with booktabs: headings over several columns, best numbers in bold.

    Args:
        table: what is shown; title and source become the caption.
        label: for `\ref`; letters, digits, `:` and `-` only, others are dropped.
    """
    reasons = _reasons(table)
    numeric = [not _is_text(table.column(place)) for place in range(len(table.columns))]

    def shown(cell: Cell, column: Column) -> str:
        if cell.text is not None:
            return escape_latex(cell.text)
        if cell.missing is not None:
            return rf"--\textsuperscript{{{reasons.index(cell.missing) + 1}}}"
        number, after, brackets = _parts(cell, column)
        pieces = [number, after, f"({', '.join(brackets)})" * bool(brackets)]
        # A number must not be parted from what is said of it.
        bold, *others = [escape_latex(piece) for piece in pieces if piece]
        return "~".join([rf"\textbf{{{bold}}}" if cell.best else bold, *others])

    body: list[str] = []
    for number, row in enumerate(table.rows):
        if number and number in table.breaks:
            body.append(r"\midrule")
        body.append(" & ".join(shown(cell, column) for cell, column in zip(row, table.columns, strict=True)) + r" \\")
    source = f". Corresponds to {escape_latex(table.source)}." if table.source else ""
    caption = escape_latex(table.title.rstrip(".") if source else table.title) + source
    below = [rf"\textsuperscript{{{number}}} {escape_latex(one)}" for number, one in enumerate(reasons, start=1)]
    below += [escape_latex(note) for note in table.notes]
    lines = [
        r"% Needs \usepackage{booktabs}; words in other than Latin letters need LuaLaTeX or XeLaTeX and their fonts.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        *([rf"\label{{{re.sub('[^A-Za-z0-9:-]', '', label)}}}"] if label else []),
        rf"\begin{{tabular}}{{{''.join('r' if one else 'l' for one in numeric)}}}",
        r"\toprule",
        *_latex_headings(table, numeric),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\footnotesize {line}\par}}" for line in below),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_headings(table: Table, numeric: Sequence[bool]) -> list[str]:
    """Return the rows of headings, one a level of groups with rules under them, then the columns' own."""
    depth = max(len(column.groups) for column in table.columns)
    lines: list[str] = []
    for level in range(depth):
        cells, rules, start = [], [], 1
        # Columns stand under one heading where all headings from the top down to it are the same.
        for path, columns in groupby(table.columns, key=lambda column: column.groups[: level + 1]):
            width = len(list(columns))
            if len(path) > level and path[level]:
                cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(path[level])}}}")
                rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            else:
                cells.extend([""] * width)
            start += width
        lines.append(" & ".join(cells) + r" \\")
        if rules:
            lines.append(" ".join(rules))
    own = [
        rf"\multicolumn{{1}}{{{'r' if number else 'l'}}}{{{_heading(column, escape_latex)}}}"
        for column, number in zip(table.columns, numeric, strict=True)
    ]
    lines.append(" & ".join(own) + r" \\")
    return lines
