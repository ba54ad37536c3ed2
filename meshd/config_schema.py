"""How one setting is described, read and checked.

This file owns `Setting` (a key's type, limits and words) and nothing about which keys exist. A section is a
frozen dataclass whose fields are made by `setting(...)`; what the annotation says is the type that TOML
must give, and the type that a string from a flag or a variable is turned into. Rules: a value is checked
the same way wherever it came from, and every refusal is a ValueError whose sentence names the limit.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
#: What stands for "none" in a flag or variable, for a setting that may be left unset.
_NONE = frozenset({"", "none"})


class Limits(NamedTuple):
    """What a value must keep to, besides its type; None means no such limit."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # strictly greater than
    choices: tuple[str, ...] | None = None
    form: str = ""  # what a string must look like, in words, for `wanted`
    check: Callable[[Any], Any] | None = None  # returns the value to keep, raises ValueError


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One key: its dotted name, its type, what it means, and its limits."""

    name: str
    kind: type  # str, bool, int, float, Path, or tuple (of strings)
    optional: bool
    default: Any
    doc: str
    unit: str
    limits: Limits

    def from_text(self, text: str) -> Any:
        """Turn a flag's or a variable's string into a checked value; raises ValueError."""
        if self.optional and text.strip().lower() in _NONE:
            return None
        return self.from_toml(self._parse(text))

    def from_toml(self, value: Any) -> Any:
        """Check a value as TOML gave it and return the one to keep; raises ValueError."""
        return self._limited(self._typed(value))

    def wanted(self) -> str:
        """Say in a few words which values are allowed, for messages and for the list of settings."""
        limits = self.limits
        if limits.choices:
            return "one of " + ", ".join(limits.choices)
        if limits.form:
            return limits.form
        words = {str: "a string", bool: "true or false", int: "a whole number", float: "a number",
                 Path: "a path", tuple: "a list of strings"}[self.kind]  # fmt: skip
        if self.unit:
            words += f" of {self.unit}"
        if limits.above is not None:
            words += f" above {limits.above:g}"
        if limits.minimum is not None and limits.maximum is not None:
            words += f" from {_plain(limits.minimum)} to {_plain(limits.maximum)}"
        elif limits.minimum is not None:
            words += f", at least {_plain(limits.minimum)}"
        elif limits.maximum is not None:
            words += f"{' and' if limits.above is not None else ','} at most {_plain(limits.maximum)}"
        return words

    def _parse(self, text: str) -> Any:
        if self.kind is bool:
            word = text.strip().lower()
            if word in _TRUE or word in _FALSE:
                return word in _TRUE
            raise ValueError(f"must be {self.wanted()}, not {text!r}")
        if self.kind in (int, float):
            try:
                return int(text) if self.kind is int else float(text)
            except ValueError:
                raise ValueError(f"must be {self.wanted()}, not {text!r}") from None
        if self.kind is tuple:
            return _parse_list(text)
        return text

    def _typed(self, value: Any) -> Any:
        kind = self.kind
        if kind is tuple:
            if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"must be {self.wanted()}, not {value!r}")
            return tuple(value)
        if kind is float and type(value) is int:
            return float(value)
        if kind is Path and isinstance(value, str):
            return _parse_path(value)
        if type(value) is not kind:  # exact: true is no whole number here
            raise ValueError(f"must be {self.wanted()}, not {value!r}")
        return value

    def _limited(self, value: Any) -> Any:
        limits = self.limits
        if limits.choices is not None and value not in limits.choices:
            raise ValueError(f"must be {self.wanted()}, not {value!r}")
        if self.kind in (int, float):
            too_low = limits.minimum is not None and value < limits.minimum
            too_low |= limits.above is not None and value <= limits.above
            too_high = limits.maximum is not None and value > limits.maximum
            if too_low or too_high or (self.kind is float and not math.isfinite(value)):
                raise ValueError(f"must be {self.wanted()}, not {value!r}")
        return limits.check(value) if limits.check is not None else value


def setting(default: Any, doc: str, *, unit: str = "", **limits: Any) -> Any:
    """Make a dataclass field that describes one key; `limits` are the fields of `Limits`.

    A default of None in an optional field means "unset", or one that `load_config` derives from other
    settings.
    """
    return dataclasses.field(
        default=default, metadata={"doc": " ".join(doc.split()), "unit": unit, "limits": Limits(**limits)}
    )


def settings_of(section: str, cls: type) -> Iterator[Setting]:
    """Yield the settings that a section's dataclass describes, in the order written."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, optional = _unwrap(hints[field.name])
        yield Setting(
            name=f"{section}.{field.name}",
            kind=kind,
            optional=optional,
            default=field.default,
            doc=field.metadata["doc"],
            unit=field.metadata["unit"],
            limits=field.metadata["limits"],
        )


def _unwrap(hint: Any) -> tuple[type, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        (kind,) = (arg for arg in get_args(hint) if arg is not type(None))
        return get_origin(kind) or kind, True
    return get_origin(hint) or hint, False


def _parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(f"must be a path, not {text!r}")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"names the home of a user who is not known here: {text!r}") from None


def _parse_list(text: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return tomllib.loads(f"list = {text}")["list"]
        except tomllib.TOMLDecodeError:
            # `[::1]:7390` opens with a bracket too and is no TOML: read it as a plain list.
            pass
    return [item.strip() for item in text.split(",") if item.strip()]


def _plain(number: float) -> str:
    return f"{number:g}" if number < 1 or number != int(number) else str(int(number))
