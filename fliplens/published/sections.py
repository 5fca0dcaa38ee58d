"""Settings of the published YAML files, read with their kind checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fliplens.errors import InputError

__all__ = ["Section"]


class Section:
    """One mapping of a YAML whose values are read with their kind checked; messages name file and setting."""

    def __init__(self, values: dict[str, Any], name: str, path: Path) -> None:
        self._values, self._name, self._path = values, name, path

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def get(self, name: str) -> Any:
        """Return the value as it stands, None where there is none."""
        return self._values.get(name)

    def section(self, name: str) -> Section:
        """Return the mapping under `name`, an empty one where there is none."""
        value = self._values.get(name) or {}
        if not isinstance(value, dict):
            raise InputError(f"expected settings under {self._name}{name} in {self._path}, found {value!r}")
        return Section(value, f"{self._name}{name}.", self._path)

    def replace(self, dotted: str, value: Any) -> None:
        """Set one value by its dotted name."""
        first, _, rest = dotted.partition(".")
        if not rest:
            self._values[first] = value
            return
        inner = self._values.get(first)
        self._values[first] = dict(inner) if isinstance(inner, dict) else {}
        Section(self._values[first], f"{self._name}{first}.", self._path).replace(rest, value)

    def _read(self, name: str, kind: type, expected: str, default: Any) -> Any:
        value = self._values.get(name)
        if value is None:
            value = default
        if value is None:
            raise InputError(f"expected {self._name}{name} ({expected}) in {self._path}, found none")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"expected {self._name}{name} to be {expected} in {self._path}, found {value!r}")
        try:
            # YAML reads 1e-4 as a string, and batch sizes may be written 6e3.
            number = str(value) if kind is str else kind(float(value))
            if kind is int and number != float(value):
                raise ValueError(value)
            return number
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"expected {self._name}{name} to be {expected} in {self._path}, found {value!r}"
            ) from error

    def whole(self, name: str, default: int | None) -> int:
        """Return a whole number; without a default it must be there."""
        return int(self._read(name, int, "a whole number", default))

    def number(self, name: str, default: float | None) -> float:
        """Return a number; without a default it must be there."""
        return float(self._read(name, float, "a number", default))

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InputError(f"expected {self._name}{name} to be true or false in {self._path}, found {value!r}")
        return value

    def text(self, name: str, default: str | None) -> str:
        """Return a name; without a default it must be there."""
        return str(self._read(name, str, "a name", default))

    def names(self, name: str) -> list[str]:
        """Return a list of names that has at least one."""
        value = self._values.get(name)
        if not isinstance(value, list) or not value:
            raise InputError(f"expected {self._name}{name} as a list in {self._path}, found {value!r}")
        return [str(item) for item in value]
