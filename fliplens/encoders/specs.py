"""The one string that names an encoder: `FAMILY`, or `FAMILY:MODEL[@REVISION][#option=value,option=value]`.

Where a family has one published model a language, `FAMILY-LANGUAGE` is that model.

The families and their options are those of `fliplens.encoders.registry`; here a spec is only taken apart and put
together again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from fliplens.errors import InputError
from fliplens.specs import parse_options

__all__ = ["LANGUAGE", "NESTED", "Spec"]

NESTED = "encoder"
"""The option whose value is a spec itself: it comes last, and all that follows is its own."""
LANGUAGE = "language"
"""The option that also follows a family's name behind a hyphen, where that names a published model."""


@dataclass(frozen=True)
class Spec:
    """An encoder's name, taken apart."""

    family: str
    """Which adapter: `st`, `hf`, `gemini`, ..."""
    model: str = ""
    """A folder, a Hub id or a service's name for the model; "" where the family has but one."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """In the order of the spec."""
    service: bool = False
    """Whether the model is a service's name for it: never a folder, and without a revision."""
    by_language: bool = False
    """Whether it is written FAMILY-LANGUAGE."""

    @classmethod
    def parse(cls, family: str, rest: str, *, service: bool = False) -> Spec:
        """Take apart what follows `FAMILY:`.

        A folder that exists under the whole name is that folder, whatever signs its name holds. A service's name for
        a model may hold any sign but #: `nomic-embed-text:latest`, `@cf/baai/bge-m3`.

        Raises:
            InputError: options that are not `name=value`, or one twice.
        """
        if service:
            model, _, options = rest.partition("#")
            return cls(family, model, None, _options(options, family, rest), service=True)
        if Path(rest).expanduser().is_dir():
            return cls(family, rest)
        model, _, options = rest.partition("#")
        revision = ""
        if not Path(model).expanduser().is_dir():
            model, _, revision = model.partition("@")
        return cls(family, model, revision or None, _options(options, family, rest))

    @classmethod
    def of_language(cls, family: str, language: str) -> Spec:
        """Return the spec of a family's published model of a language."""
        return cls(family, options=MappingProxyType({LANGUAGE: language}), by_language=True)

    @property
    def folder(self) -> Path | None:
        """The model's folder, absolute, if there is one of that name."""
        if self.service:
            return None
        path = Path(self.model).expanduser()
        return path.resolve() if self.model and path.is_dir() else None

    def canonical(self) -> Spec:
        """Return the spec with its folder, if it names one, as an absolute path."""
        return self if self.folder is None else replace(self, model=str(self.folder))

    def whole_number(self, option: str) -> int | None:
        """Return the value of an option that is a whole number, None where it is not given.

        Raises:
            InputError: it is something else.
        """
        value = self.options.get(option)
        if value is not None and not re.fullmatch(r"-?\d{1,9}", value, re.ASCII):
            raise InputError(f"expected a whole number as {option}= in {str(self)!r}, found {value!r}")
        return None if value is None else int(value)

    def one_of(self, option: str, *choices: str) -> str:
        """Return the value of an option that has a few, the first of them where it is not given.

        Raises:
            InputError: it is none of them.
        """
        value = self.options.get(option, choices[0])
        if value not in choices:
            raise InputError(f"expected {option}={' or '.join(choices)} in {str(self)!r}, found {value!r}")
        return value

    def with_option(self, option: str, value: str) -> Spec:
        """Return the spec with one option set, in its place where it had been given."""
        return replace(self, options=MappingProxyType({**self.options, option: value}))

    def __str__(self) -> str:
        if self.by_language and list(self.options) == [LANGUAGE]:
            return f"{self.family}-{self.options[LANGUAGE]}"
        text = self.family + (f":{self.model}" if self.model else "")
        text += f"@{self.revision}" if self.revision else ""
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{text}#{options}" if options else text


def _options(text: str, family: str, rest: str) -> Mapping[str, str]:
    return MappingProxyType(parse_options(text, repr(f"{family}:{rest}"), nested=NESTED))
