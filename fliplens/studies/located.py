"""A YAML file whose every value knows its line, so that what is wrong with it can be said where it stands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from fliplens.errors import InputError, reason_of

__all__ = ["Located", "read_located"]

T = TypeVar("T")

MOST_VALUES = 100_000
"""A file of more values is none of settings: aliases of aliases make billions of a few lines."""


@dataclass(frozen=True)
class Located:
    """A value of a YAML file: a mapping of names to `Located`, a list of them, or a plain scalar."""

    value: Any
    line: int
    """From 1."""
    file: Path
    name: str
    """Where in the file, by names: `corpora.english.train`."""

    def fail(self, expected: str, found: str | None = None) -> NoReturn:
        """Raise what says that something else was expected here.

        Raises:
            InputError: always.
        """
        shown = self.shown() if found is None else found
        raise InputError(f"expected {expected}, found {shown} ({self.name}, {self.file} line {self.line})")

    def shown(self) -> str:
        """Return the value as a message quotes it."""
        if isinstance(self.value, dict):
            return "a mapping of names"
        if isinstance(self.value, list):
            return "a list"
        return repr(self.value) if self.value is not None else "nothing"

    def plain(self) -> Any:
        """Return the value without lines: what a YAML reader gives."""
        if isinstance(self.value, dict):
            return {name: one.plain() for name, one in self.value.items()}
        if isinstance(self.value, list):
            return [one.plain() for one in self.value]
        return self.value

    def items(self) -> Iterator[tuple[str, Located]]:
        """Iterate over the names of a mapping and their values."""
        if not isinstance(self.value, dict):
            self.fail("a mapping of names")
        return iter(self.value.items())

    def list(self) -> list[Located]:
        """Return the items of a list; one value is a list of itself."""
        return self.value if isinstance(self.value, list) else [self]

    def text(self) -> str:
        """Return a text; a number is what it looks like."""
        if isinstance(self.value, bool) or not isinstance(self.value, str | int | float):
            self.fail("a text")
        return str(self.value)

    def get(self, name: str) -> Located | None:
        """Return what a mapping holds under a name, None where it does not, or holds nothing."""
        if not isinstance(self.value, dict):
            self.fail("a mapping of names")
        found: Located | None = self.value.get(name)
        return None if found is None or found.value is None else found

    def need(self, name: str, what: str) -> Located:
        """Return what a mapping holds under a name.

        Args:
            name: the name.
            what: what belongs there, for the message.
        """
        found = self.get(name)
        if found is None:
            self.fail(f"{name} ({what})", "none")
        return found

    def only(self, *names: str) -> None:
        """Refuse names of a mapping that are not among these."""
        for name, one in self.items():
            if name not in names:
                one.fail(f"names out of {', '.join(names)}", repr(name))

    def checked(self, make: Callable[[Any], T]) -> T:
        """Return what `make` makes of the plain value; what it refuses is said to stand here."""
        return self.asking(lambda: make(self.plain()))

    def asking(self, make: Callable[[], T]) -> T:
        """Return what `make` returns; what it refuses is said to be asked for here."""
        try:
            return make()
        except InputError as error:
            raise InputError(f"{error} ({self.name}, {self.file} line {self.line})") from error


def read_located(path: str | Path) -> Located:
    """Read a YAML mapping; no tags that would build objects.

    Raises:
        InputError: the file is missing, no YAML, no mapping, has a name twice, or values that are no plain ones.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise InputError(f"expected a YAML file at {path}, found none: check the path") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = reason_of(error)
        raise InputError(f"expected YAML in {path}, found something else ({reason})") from error
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"expected a mapping of settings in {path}, found something else")
    return _located(node, path, "", set(), itertools.count(1))


def _located(node: Any, path: Path, name: str, above: set[int], numbers: Iterator[int], at: int = 0) -> Located:
    import yaml

    # A value stands where its name does: a mapping starts a line later, and what an alias stands for elsewhere.
    line = at or node.start_mark.line + 1
    if id(node) in above:
        raise InputError(f"expected settings that end, found an alias to what it is part of in {path} line {line}")
    if next(numbers) > MOST_VALUES:
        raise InputError(
            f"expected at most {MOST_VALUES} values in {path}, found more: are there aliases of aliases?"
        )
    above = above | {id(node)}
    value: Any
    if isinstance(node, yaml.MappingNode):
        value = {}
        for key, item in node.value:
            label = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            at = key.start_mark.line + 1
            if not label:
                raise InputError(f"expected names that are texts in {path} line {at}, found something else")
            _check_text(label, path, at)
            if label in value:
                raise InputError(f"expected every name once in {path}, found {label!r} again in line {at}")
            value[label] = _located(item, path, f"{name}.{label}".lstrip("."), above, numbers, at)
    elif isinstance(node, yaml.SequenceNode):
        value = [_located(item, path, f"{name}[{number}]", above, numbers) for number, item in enumerate(node.value)]
    else:
        try:
            value = yaml.SafeLoader("").construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            # All but the first are the reader's own slips: of 2001-99-99, 0b_, `!!bool maybe` and the like.
            reason = reason_of(error)
            raise InputError(f"expected plain values in {path} line {line}, found another kind ({reason})") from error
        if isinstance(value, str):
            _check_text(value, path, line)
    return Located(value, line, path, name or "the file")


def _check_text(text: str, path: Path, line: int) -> None:
    """Refuse text that can name no file and go into none: escapes in quotes can spell it."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"expected text in {path} line {line}, found {ascii(text)[:120]}: take the escape out")
