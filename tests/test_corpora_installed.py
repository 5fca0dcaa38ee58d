"""Sentences from docstrings: what is kept, what is dropped, and that a sample is reproducible."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fliplens.corpora import installed
from fliplens.corpora.installed import installed_sentences
from fliplens.errors import InputError


def write_module(root: Path, name: str, docstring: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'r"""{docstring}"""\n', encoding="utf-8")


def sentences_of(root: Path, docstring: str) -> list[str]:
    """Return the sentences of one docstring in the order of the text."""
    write_module(root, "module.py", docstring)
    found = installed_sentences(roots=[root], min_words=3, max_words=30)
    flat = docstring.replace("`", "").replace("*", "")
    return sorted(found, key=lambda sentence: flat.find(sentence.split()[0]))


# --- cleaning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the number of rows.", ["Return the number of rows."]),
        (
            "One wrapped sentence that goes\non in the next line.",
            ["One wrapped sentence that goes on in the next line."],
        ),
        ("A well-\nknown hyphen is cut here.", ["A well-known hyphen is cut here."]),
        (
            "First sentence stands here. Second one follows it!",
            ["First sentence stands here.", "Second one follows it!"],
        ),
        (
            "Known marks, e.g. these and i.e. those, do not end it. Dr. Who agrees with this.",
            ["Known marks, e.g. these and i.e. those, do not end it.", "Dr. Who agrees with this."],
        ),
        ("Set ``verbose`` to see more output.", ["Set verbose to see more output."]),
        ("Use :class:`Lens` or :py:func:`~package.module.fit` instead.", ["Use Lens or fit instead."]),
        (
            "Read the `long guide <https://example.org/a>`_ before you start.",
            ["Read the long guide before you start."],
        ),
        ("Read the [long guide](https://example.org/a) before you start.", ["Read the long guide before you start."]),
        ("This is **very** much *preferred* here.", ["This is very much preferred here."]),
        ("The method of Newton [1]_ is used.", ["The method of Newton is used."]),
        # What is not prose.
        ("The method was first described in [1]_.", []),
        ("Return x_i where :math:`x^2` holds for it.", []),
        ("Call foo.bar.baz() to make it go.", []),
        ("See https://example.org for the details.", []),
        ("this one starts with a small letter.", []),
        ("No end mark in this one", []),
        ("Too short.", []),
        ("word " * 31 + "end.", []),
        ("Unbalanced (parentheses in this one.", []),
        ("This one trails off into nothing...", []),
        ("ALL CAPITALS ARE NO PROSE HERE.", []),
        ("Note: a label is no start of a sentence.", []),
        ("1 2 3 4 5 6 7.", []),
    ],
)
def test_sentences_by_hand(tmp_path: Path, docstring: str, expected: list[str]) -> None:
    assert sentences_of(tmp_path, docstring) == expected


def test_structure_is_dropped_and_prose_around_it_is_kept(tmp_path: Path) -> None:
    docstring = """Summary line of the thing.

    Before the code there is text. It ends with a colon::

        Indented code is not a sentence.

    .. note::
        Directives are dropped with their body.

    .. versionadded:: 1.2
       Not this one either.

    >>> print("Doctest lines are no prose.")
    Output of doctests is no prose.

    ```python
    Fenced code is no prose at all.

    Even after an empty line.
    ```

    - Items are not running text.
      Nor is the rest of them.
    1. Numbered items are none either.

    ======  ======
    Table   Cells are not sentences.
    ======  ======

    | Column one | Is not a sentence. |

    :param x: Field lists are not prose.
    @return: Neither is this one.

    alpha : float
        The description of a parameter.

    Args:
        beta: The description of an argument.
        gamma (int): The next description of one.

    After the arguments comes more text.

    Parameters
    ----------
    delta : int
        The description of another one.
    Under a heading of parameters nothing counts.

    Notes
    -----
    Under other headings there is prose.
    """
    assert sentences_of(tmp_path, docstring) == [
        "Summary line of the thing.",
        "Before the code there is text.",
        "After the arguments comes more text.",
        "Under other headings there is prose.",
    ]


def test_each_sentence_comes_once_whatever_its_case(tmp_path: Path) -> None:
    write_module(tmp_path, "a.py", "Return the number of rows.")
    write_module(tmp_path, "b.py", "Return the NUMBER of rows.\n\nReturn the number of rows.")
    assert len(installed_sentences(roots=[tmp_path])) == 1


def test_word_limits(tmp_path: Path) -> None:
    write_module(tmp_path, "a.py", "\n\n".join(f"So {'very ' * count}long." for count in range(10)))
    found = installed_sentences(roots=[tmp_path], min_words=4, max_words=6)
    assert sorted(len(sentence.split()) for sentence in found) == [4, 5, 6]


# --- finding docstrings ----------------------------------------------------------------------------------------


def test_docstrings_of_modules_classes_and_functions(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '# a comment with """ in it: first\n'
        '"""Module text stands at the top."""\n'
        'NOT = """Strings that are values do not count."""\n'
        'QUOTE = \'"""\'\n'
        "class A:  # note: with a comment\n"
        "    # and another\n\n"
        "    r'''Class text stands below the class.'''\n"
        "    async def f(self) -> None:\n"
        '        """Method text has an \\\nescaped line end."""\n'
        '        """A second string is no docstring."""\n'
        '        x = {"key":\n'
        '            """Values in a dictionary do not count.""",\n'
        "        }\n"
        "    def g(self):\n"
        '        f"""Formatted strings are {no} docstrings at all."""\n'
        '        b"""Bytes are no docstrings at all."""\n'
    )
    assert sorted(installed_sentences(roots=[tmp_path])) == [
        "Class text stands below the class.",
        "Method text has an escaped line end.",
        "Module text stands at the top.",
    ]


def test_every_docstring_of_the_standard_library_is_found() -> None:
    """The walk over statements against a walk over every node."""
    library = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(
        path for name in ("asyncio", "email", "json", "unittest") for path in (library / name).glob("*.py")
    )
    assert len(paths) > 30
    for path in paths:
        source = path.read_text(encoding="utf-8")
        expected = [
            docstring
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and (docstring := ast.get_docstring(node))
        ]
        if '"""' in source:
            assert sorted(installed._docstrings(path)) == sorted(expected), path.name


def test_processes_change_nothing_but_the_time(tmp_path: Path) -> None:
    for number in range(80):
        text = f"This is the sentence of module number {number} here."
        (tmp_path / f"m{number}.py").write_text(f'"""{text}"""\n', encoding="utf-8")
    alone = installed_sentences(30, roots=[tmp_path], seed=2)
    assert len(alone) == 30
    assert installed_sentences(30, roots=[tmp_path], seed=2, processes=2) == alone


def test_nothing_is_imported(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    root = tmp_path / "root"
    write_module(root, "trap_for_imports.py", "Reading a file must not run it.")
    with (root / "trap_for_imports.py").open("a") as stream:
        stream.write(f"open({str(trace)!r}, 'w').close()\nraise RuntimeError('imported')\n")
    assert installed_sentences(roots=[root]) == ["Reading a file must not run it."]
    assert not trace.exists()
    assert "trap_for_imports" not in sys.modules


def test_files_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    write_module(tmp_path, "good.py", "The good file is still read.")
    (tmp_path / "latin.py").write_bytes(b'"""The caf\xe9 is not in this encoding."""\n')
    (tmp_path / "null.py").write_bytes(b'"""\x00Null bytes\x00 are in this one."""\n')
    (tmp_path / "open.py").write_text('"""An open string has no end.\n')
    (tmp_path / "escape.py").write_text('"""An escape that is \\xz not one."""\n')
    (tmp_path / "large.py").write_text('"""The large file is not read."""\n' + "#" * installed.LARGEST_FILE)
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "data.txt").write_text('"""Other files are not read."""\n')
    for name in ("tests/a.py", "test/a.py", "pkg/tests/a.py", ".hidden/a.py", "site-packages/a.py"):
        write_module(tmp_path, name, "What tests say is not documentation.")
    assert installed_sentences(roots=[tmp_path]) == ["The good file is still read."]


def test_invalid_escapes_give_no_warning(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""An invalid escape is \\d here.\n\nThe text goes on after it."""\n')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert installed_sentences(roots=[tmp_path]) == ["The text goes on after it."]
    assert caught == []


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links")
def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    write_module(outside, "a.py", "What lies outside is not read.")
    write_module(root, "b.py", "What lies inside is read.")
    (root / "linked").symlink_to(outside, target_is_directory=True)
    (root / "linked.py").symlink_to(outside / "a.py")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "dangling.py").symlink_to(root / "nowhere.py")
    assert installed_sentences(roots=[root]) == ["What lies inside is read."]


# --- sampling --------------------------------------------------------------------------------------------------

NAMES = [f"{a}{b}" for a in ("red", "green", "blue", "pale", "dark") for b in ("stone", "leaf", "bird", "boat")]


def write_library(root: Path, names: list[str]) -> None:
    for name in names:
        text = "\n\n".join(f"The {name} is {kind} than the rest." for kind in ("older", "newer", "larger", "smaller"))
        write_module(root, f"package_{name[:3]}/{name}.py", text)


def test_the_same_files_and_seed_give_the_same_list_anywhere(tmp_path: Path) -> None:
    write_library(tmp_path / "one", NAMES)
    write_library(tmp_path / "two" / "elsewhere", NAMES[::-1])
    for n in (None, 7):
        first = installed_sentences(n, seed=5, roots=[tmp_path / "one"])
        assert first == installed_sentences(n, seed=5, roots=[tmp_path / "one"])
        assert first == installed_sentences(n, seed=5, roots=[tmp_path / "two" / "elsewhere"])


def test_another_seed_gives_another_sample(tmp_path: Path) -> None:
    write_library(tmp_path, NAMES)
    one, two = (installed_sentences(20, seed=seed, roots=[tmp_path]) for seed in (1, 2))
    assert one != two
    assert set(one) != set(two)
    assert installed_sentences(seed=1, roots=[tmp_path]) != sorted(installed_sentences(roots=[tmp_path]))


def test_how_many(tmp_path: Path) -> None:
    write_library(tmp_path, NAMES)
    everything = installed_sentences(roots=[tmp_path])
    assert len(everything) == len(set(everything)) == 4 * len(NAMES)
    assert len(installed_sentences(10, roots=[tmp_path])) == 10
    assert set(installed_sentences(10, roots=[tmp_path])) <= set(everything)
    assert installed_sentences(0, roots=[tmp_path]) == []
    assert installed_sentences(10_000, roots=[tmp_path]) == everything


def test_reading_stops_when_enough_is_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_library(tmp_path, NAMES)
    read: list[Path] = []
    docstrings = installed._docstrings

    def noting(path: Path) -> Iterator[str]:
        read.append(path)
        return docstrings(path)

    monkeypatch.setattr(installed, "_docstrings", noting)
    installed_sentences(8, roots=[tmp_path])
    assert len(read) <= 4


def test_several_roots_and_none(tmp_path: Path) -> None:
    write_module(tmp_path / "a", "same.py", "The first root holds this.")
    write_module(tmp_path / "b", "same.py", "The second root holds this.")
    assert len(installed_sentences(roots=[tmp_path / "a", tmp_path / "b"])) == 2
    assert installed_sentences(roots=[]) == []


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n to be 0 or more"):
        installed_sentences(-1, roots=[tmp_path])
    with pytest.raises(InputError, match="min_words"):
        installed_sentences(min_words=5, max_words=4, roots=[tmp_path])
    with pytest.raises(InputError, match="expected a folder of Python code"):
        installed_sentences(roots=[tmp_path / "nowhere"])


def test_the_installed_documentation_reads_as_prose(capsys: pytest.CaptureFixture[str]) -> None:
    found = installed_sentences(200, show_progress=True)
    assert len(found) == 200
    assert "read documentation" in capsys.readouterr().err
    assert all(4 <= len(sentence.split()) <= 20 for sentence in found)
    assert not [sentence for sentence in found if set("`|<>{}\\") & set(sentence)]
