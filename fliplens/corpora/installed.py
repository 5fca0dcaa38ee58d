"""English sentences that every machine with Python already has: the documentation of what is installed.

The docstrings of the standard library and of installed packages hold tens of thousands of plain English
sentences, enough to train and measure a first lens without a download. Files are read as text and never
imported: none of their code runs.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import signal
import site
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

from fliplens.errors import InputError
from fliplens.progress import track

__all__ = ["installed_sentences"]

LARGEST_FILE = 2 * 1024 * 1024
"""Bytes; a larger Python file is generated data, and slow to parse."""

SKIPPED_FOLDERS = frozenset({"test", "tests", "__pycache__", "site-packages", "dist-packages", "lib-dynload"})
"""Tests hold no prose; the package folders are roots of their own; the rest hold no source."""

FILES_A_TASK = 32
"""Files a process takes at a time."""

OVERSAMPLING = 1.1
"""Sentences gathered for each one wanted, so that a sample is not simply the first files read."""


def installed_sentences(
    n: int | None = None,
    *,
    seed: int = 0,
    min_words: int = 4,
    max_words: int = 20,
    show_progress: bool = False,
    roots: Sequence[Path] | None = None,
    processes: int = 1,
) -> list[str]:
    """Return clean English sentences from the docstrings of the Python code installed on this machine.

    Docstrings of modules, classes and functions are cut into paragraphs; code, doctests, directives, tables,
    headings and lists of parameters are dropped, markup is undone, and what reads as a whole sentence (a capital
    letter at the start, an end mark, mostly words) is kept once, whatever its case.

    The same files and the same seed give the same list in the same order, wherever the files are. Files are
    read in an order drawn from the seed and their paths relative to the roots, and reading stops when a tenth
    more sentences than were asked for are at hand: a sample costs a part of the whole.

    Args:
        n: how many sentences; None for all there are. Fewer come back if the documentation holds fewer.
        seed: which sample, and in which order.
        min_words: sentences of fewer words, counted between spaces, are left out.
        max_words: sentences of more words are left out.
        show_progress: show a bar on stderr.
        roots: folders to read instead of the standard library and the installed packages. Symbolic links
            below a root are not followed; files over 2 MB, files that do not parse and folders named `test`
            or `tests` are passed over.
        processes: how many parse at once; the result is the same. More than one is started by `spawn`, which
            needs a main module that is safe to import.

    Raises:
        InputError: `n` is negative, the word limits leave nothing, or a root is not a folder.
    """
    if n is not None and n < 0:
        raise InputError(f"expected n to be 0 or more, or None for all sentences, found {n}")
    if not 1 <= min_words <= max_words:
        raise InputError(
            f"expected 1 <= min_words <= max_words, found min_words={min_words} and max_words={max_words}"
        )
    keyed = _python_files(_installed_roots() if roots is None else roots)
    files = [path for _, path in sorted((_draw(seed, key), path) for key, path in keyed)]
    wanted = None if n is None else int(n * OVERSAMPLING) + 1
    found = track(
        islice(_distinct_sentences(files, min_words, max_words, processes), wanted),
        what="read documentation",
        total=wanted,
        unit="sentences",
        show=show_progress,
    )
    return sorted(found, key=lambda sentence: _draw(seed, sentence))[:n]


def _installed_roots() -> list[Path]:
    """Return the folders of the standard library and of installed packages that exist, each once."""
    paths = sysconfig.get_paths()
    folders = [paths["stdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()]
    return list(dict.fromkeys(Path(folder).resolve() for folder in folders if Path(folder).is_dir()))


def _python_files(roots: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield every Python source file below `roots` with a key that does not depend on where the roots are."""
    for number, root in enumerate(roots):
        if not Path(root).is_dir():
            raise InputError(f"expected a folder of Python code at {root}, found none: check the path")
        for folder, subfolders, names in os.walk(root, followlinks=False):
            subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS and name[0] != "."]
            relative = Path(folder).relative_to(root).as_posix()
            for name in names:
                # A link may lead anywhere; what lies below the roots is reached without it.
                if name.endswith(".py") and not (path := Path(folder, name)).is_symlink():
                    yield f"{number}/{relative}/{name}", path


def _draw(seed: int, key: str) -> bytes:
    """Return pseudorandom bytes for `key`; sorting by them shuffles.

    Unlike a generator's shuffle this depends on no other key, so that one more installed file moves none of
    the others, and on no version of any library.
    """
    text = f"{seed}:{key}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).digest()


def _distinct_sentences(files: Iterable[Path], min_words: int, max_words: int, processes: int) -> Iterator[str]:
    """Yield the clean sentences of the files' docstrings, each once, in the order of the files."""
    read = partial(_sentences_of_file, min_words=min_words, max_words=max_words)
    seen: set[str] = set()
    with ExitStack() as stack:
        found: Iterable[list[str]]
        if processes > 1:
            # Imported here: only who asks for processes pays for it.
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            pool = ProcessPoolExecutor(
                processes,
                mp_context=get_context("spawn"),
                # An interrupt is the caller's to answer: the workers are ended by the shutdown below.
                initializer=signal.signal,
                initargs=(signal.SIGINT, signal.SIG_IGN),
            )
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            found = pool.map(read, files, chunksize=FILES_A_TASK)
        else:
            found = map(read, files)
        for sentences in found:
            for sentence in sentences:
                key = sentence.lower()
                if key not in seen:
                    seen.add(key)
                    yield sentence


def _sentences_of_file(path: Path, min_words: int, max_words: int) -> list[str]:
    """Return the clean sentences of one file's docstrings."""
    return [
        sentence
        for docstring in _docstrings(path)
        for paragraph in _paragraphs(docstring)
        for sentence in _split_sentences(_without_markup(paragraph))
        if _is_prose(sentence, min_words, max_words)
    ]


# --- files to docstrings ---------------------------------------------------------------------------------------


def _docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of one file in the order of the source, none if it cannot be read or parsed."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return  # a docstring of a whole sentence in single quotes is too rare to parse a file for
        with warnings.catch_warnings():
            # Old code is full of invalid escapes; they are its author's concern.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring
        # Only statements can hold definitions: leaving expressions out makes the walk many times shorter.
        for block in ("finalbody", "orelse", "handlers", "body"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):  # a lambda's body is an expression
                pending.extend(reversed(statements))


# --- docstrings to paragraphs ----------------------------------------------------------------------------------

_LISTS = (
    "parameters|other parameters|params|args|arguments|keyword args|keyword arguments|kwargs|options|inputs?|"
    "outputs?|returns?|yields?|receives|raises|warns|throws|except|exceptions|attributes|properties|methods|"
    "members|fields|see also|references|examples?|usage|shapes?|todo|call arguments|input shape|output shape|"
    "environment|commands|constants|functions|classes|routines"
)
_LIST_SECTION = re.compile(rf"(?:{_LISTS})", re.IGNORECASE)
_LIST_HEADING = re.compile(rf"\**(?:{_LISTS})\**\s*:{{1,2}}\**", re.IGNORECASE)
_UNDERLINE = re.compile(r"([-=~^\"'`#*+.:_])\1{2,}")
_TABLE = re.compile(r"\||\+[-=]{2,}|[-=]{3,}\s+[-=]{3,}|\S\s{3,}\S")
_FENCE = re.compile(r"`{3,}|~{3,}")
_ITEM = re.compile(r"(?:[-*+•]|#?\(?\w{1,2}[.)])\s+\S")
_FIELD = re.compile(r":[A-Za-z][^`:]*:(?!`)|@\w+")
_DEFINITION = re.compile(r"[*`'\"]*\w[\w.,*`'\"]*(?:\s*\([^)]*\))?[*`'\"]*\s*(?:::?|--?|=)(?:\s|$)")
_OTHER_LINE = re.compile(r"[#<>{}\[\]$@%\\]|https?:|\.\.\s|\.\.$")


def _paragraphs(docstring: str) -> Iterator[str]:
    """Yield the running text of a docstring, one joined paragraph at a time, markup still inside.

    Only lines at the left margin are prose for sure. What is indented is code, the rest of a list item, the
    body of a directive or the description of a parameter, and is dropped whichever it is.
    """
    lines: list[str] = []  # of the paragraph being read
    broken = False  # the paragraph holds something that is not running text
    in_list_section = in_fence = False
    for raw in [*docstring.expandtabs().split("\n"), ""]:
        line = raw.strip()
        if _FENCE.match(line):
            in_fence = not in_fence
            broken = True
            continue
        if in_fence:
            continue
        if not line:
            if lines and not broken and not in_list_section:
                yield _joined(lines)
            lines, broken = [], False
        elif raw[0].isspace():
            # An indented line in a paragraph ends what is running text in it.
            if lines and not broken and not in_list_section:
                yield _joined(lines)
            lines, broken = [], True
        elif _UNDERLINE.fullmatch(line):
            # An underline makes a heading of the line above it; a heading opens or closes a list of parameters.
            in_list_section = bool(lines) and _LIST_SECTION.fullmatch(lines[-1].rstrip(":")) is not None
            lines, broken = [], False
        elif _LIST_HEADING.fullmatch(line):
            lines, broken = [], True
        elif (
            line.startswith((">>>", "..."))
            or _ITEM.match(line)
            or _FIELD.match(line)
            or _DEFINITION.match(line)
            or _OTHER_LINE.match(line)
            or _TABLE.search(line)
        ):
            # Not a line of prose, and the lines up to the next blank one go with it.
            if lines and not broken and not in_list_section and not _TABLE.search(line):
                yield _joined(lines)
            lines, broken = [], True
        elif not broken:
            lines.append(line)


def _joined(lines: list[str]) -> str:
    """Join wrapped lines; a word cut at its own hyphen grows together."""
    return re.sub(r"(?<=[a-z]-) (?=[a-z])", "", " ".join(lines))


# --- paragraphs to sentences -----------------------------------------------------------------------------------

_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\s*\[[#*]?\w*\]_"), ""),  # footnote and citation marks
    (re.compile(r":math:`[^`]*`"), "="),  # a formula: no sentence with one is prose
    (re.compile(r"\[`*[~!]?([^\]`]+)`*\]\([^)\s]*\)"), r"\1"),  # Markdown links
    (re.compile(r"\[`([^\]`]+)`\]"), r"`\1`"),  # Markdown references to code
    (re.compile(r"(?::[\w.+-]+)?:[\w.+-]+:`([^`<]+?)\s*<[^`>]*>`"), r"\1"),  # roles with a title
    (re.compile(r"(?::[\w.+-]+)?:[\w.+-]+:`([^`]+)`"), r"`\1`"),  # roles
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}"), r"\1"),  # links
    (re.compile(r"``([^`]+)``_?"), r"`\1`"),
    (re.compile(r"`[~!](?:[\w]+\.)*([\w]+(?:\(\))?)`"), r"\1"),  # the last part of a dotted name
    (re.compile(r"`([^`]+)`_{0,2}"), r"\1"),
    (re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+?)(?<=\S)\*\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*]+?)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<!\w)_(?=[A-Za-z])([^_]+?)_(?!\w)"), r"\1"),
)
_ANY_MARKUP = re.compile(r"[`*\[_]")


def _without_markup(text: str) -> str:
    """Undo reStructuredText and Markdown: ``x`` becomes x, :class:`~a.B` becomes B, [x](url) becomes x."""
    if _ANY_MARKUP.search(text):
        for pattern, replacement in _MARKUP:
            text = pattern.sub(replacement, text)
    return " ".join(text.split())


_BOUNDARY = re.compile(r"(?<=[.!?])(?:(?<=\S)|[\"')\]])\s+(?=[\"'(]?[A-Z0-9])")
_ABBREVIATION = re.compile(
    r"(?<![\w.])(?:e\.?g|i\.?e|cf|vs|viz|al|resp|approx|fig|figs|eq|eqs|sec|ch|chap|no|nos|vol|pp?|ed|eds|"
    r"dr|mr|mrs|ms|prof|st|jr|inc|ltd|co|dept|univ|proc|trans|ref|refs|def|thm|incl|max|min|[A-Z])\.$",
    re.IGNORECASE,
)


def _split_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a paragraph; an abbreviation or an initial does not end one."""
    start = 0
    for boundary in _BOUNDARY.finditer(text):
        if not _ABBREVIATION.search(text, start, boundary.start()):
            yield text[start : boundary.start()]
            start = boundary.end()
    yield text[start:]


_WORD = re.compile(r"[\"'(]*[A-Za-zÀ-ÿ]+(?:['’/-][A-Za-zÀ-ÿ]+)*[\"')]*[,;:.!?]*[\"')]*")
_CODE = re.compile(
    r"[\\{}|=<>^$@~`*_#\[\]+&%]|::|->|--|\.\.|://|www\.|\(\)|\w\(|\w\.\w*\.\w|[a-z]\.[A-Za-z]{2}|[a-z][A-Z]|"
    r"\s[,.;:!?/]|\xad|\ufffd"
)
_LATIN = re.compile(r"\b(?:e\.g|i\.e)\.,?")
_LEFT_OPEN = re.compile(r"\b(?:a|an|and|as|by|from|in|of|or|see|the|to|with)[.!?]$|[a-z]{3}\. [a-z]")
_LABEL = re.compile(r"[\w /'-]{1,30}:\s")


def _is_prose(sentence: str, min_words: int, max_words: int) -> bool:
    """Tell whether a piece of running text reads as one whole English sentence."""
    words = sentence.split()
    if not min_words <= len(words) <= max_words:
        return False
    if not ("A" <= sentence[0] <= "Z") or sentence[-1] not in ".!?":
        return False
    if _ABBREVIATION.search(sentence) or _LEFT_OPEN.search(sentence):
        return False  # cut where no sentence ends, or its last word was a citation
    if ".g." in sentence or ".e." in sentence:
        words = _LATIN.sub("", sentence).split()  # which the patterns would take for dotted names
    if _CODE.search(" ".join(words)):
        return False
    if _LABEL.match(sentence) or sentence.count("(") != sentence.count(")") or sentence.count('"') % 2:
        return False
    proper = [word for word in words if _WORD.fullmatch(word)]
    lower = sum(1 for word in proper if word.islower())
    # A sentence is made of words, and most of them are neither names nor capitals.
    return len(proper) >= 0.85 * len(words) and lower >= 0.5 * len(words)
