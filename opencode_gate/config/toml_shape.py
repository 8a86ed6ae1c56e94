"""TOML tables read into frozen values, and nothing let through that was not understood.

The idea: the class of the values is the schema. A key it does not have, or a value of another
type, is a `ShapeProblem` that names the key, and the nearest key where there is one. The
invariant: a value that comes out has the type its field declares, so nobody checks again. A field
that is a tuple takes one table or several (`[[…]]`).
"""

import math
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal, TypeVar

import msgspec

KeyPath = tuple[str, ...]
Place = tuple[str | int, ...]
"""Keys from the root down; a number is the place of a table in a list of them, from 0 on."""

Check = Callable[[Any], str | None]
"""Says what is wrong with a value, or `None`; raises `ShapeProblem` for what is below it.

Stands by field in a class's `CHECKS`, or in `KEY_CHECKS` for the keys of a mapping.
"""

T = TypeVar("T", bound=msgspec.Struct)

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class ShapeProblem(Exception):
    """A key or value that does not fit, with its place; never leaves this package."""

    def __init__(self, path: Place, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.path = path
        self.text = text
        self.hint = hint


@cache
def field_types(shape: type[msgspec.Struct]) -> dict[str, Any]:
    """The declared type of each field of a class of values, `Optional` taken off."""
    hints = typing.get_type_hints(shape)
    return {name: _without_none(hints[name]) for name in shape.__struct_fields__}


def read_table(shape: type[T], table: object, path: Place = ()) -> T:
    """`table` as an instance of `shape`.

    Raises:
        ShapeProblem: an unknown key, a wrong type, a value a check refuses, a missing key.
    """
    if not isinstance(table, Mapping):
        raise ShapeProblem(path, "is a table, written [" + dotted(path) + "]")
    declared = field_types(shape)
    values: dict[str, Any] = {}
    for key, raw in table.items():
        if key not in declared:
            raise ShapeProblem((*path, key), "is not a setting", _nearest_hint(key, declared))
        values[key] = _read_value(declared[key], raw, (*path, key))
        _check(shape, key, values[key], (*path, key))
    for field in msgspec.structs.fields(shape):
        if field.required and field.name not in values:
            raise ShapeProblem(path, f"needs the key {field.name}")
    return shape(**values)


def read_text(shape: type[msgspec.Struct], name: str, text: str, path: KeyPath) -> Any:
    """The value of field `name` of `shape` from text: a variable, a flag, a command's argument.

    Raises:
        ShapeProblem: the text is no such value.
    """
    declared = field_types(shape)[name]
    value = _read_value(declared, _value_of_text(declared, text, path), path)
    _check(shape, name, value, path)
    return value


def read_text_at(shape: type[msgspec.Struct], path: KeyPath, text: str) -> Any:
    """The value at a dotted path below `shape` from text, by the type declared there.

    Raises:
        ShapeProblem: there is no such setting, it is a table, or the text is no value for it.
    """
    declared: Any = shape
    for depth, key in enumerate(path[:-1]):
        declared = _member(declared, key, path[: depth + 1])
    owner, last = declared, path[-1]
    if _is_table(owner) and last in field_types(owner):
        return read_text(owner, last, text, path)
    return _read_value(_member(owner, last, path), text, path)


def _is_table(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, msgspec.Struct)


def _member(declared: Any, key: str, path: KeyPath) -> Any:
    if typing.get_origin(declared) is tuple:
        declared = typing.get_args(declared)[0]
    if _is_table(declared):
        known = field_types(declared)
        if key not in known:
            raise ShapeProblem(path, "is not a setting", _nearest_hint(key, known))
        return known[key]
    origin = typing.get_origin(declared)
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        return typing.get_args(declared)[1]
    raise ShapeProblem(path[:-1], "is a single value, nothing is below it")


def dotted(path: Place) -> str:
    """A key path as TOML writes it, with quotes only where TOML needs them."""
    return "".join(
        f"[{key}]" if isinstance(key, int) else f".{_quoted(key)}" for key in path
    ).removeprefix(".")


def _quoted(key: str) -> str:
    is_bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if is_bare else f'"{key}"'


def nearest(word: str, known: "typing.Iterable[str]") -> list[str]:
    """Up to three of `known` that look most like `word`, best first."""
    import difflib

    return difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)


def _without_none(declared: Any) -> Any:
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(declared) if member is not types.NoneType]
        if len(members) == 1:
            return members[0]
    return declared


def _read_value(declared: Any, raw: object, path: Place) -> Any:
    origin = typing.get_origin(declared)
    if origin is tuple:
        return _read_tables(typing.get_args(declared)[0], raw, path)
    if origin is Literal:
        choices = typing.get_args(declared)
        if raw not in choices:
            raise ShapeProblem(path, f"is one of {', '.join(choices)}, not {raw!r}")
        return raw
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(typing.get_args(declared)[1], raw, path)
    if _is_table(declared):
        return read_table(declared, raw, path)
    if declared is Decimal:
        return _read_amount(raw, path)
    if declared is date:
        return _read_day(raw, path)
    if type(raw) is not declared:
        raise ShapeProblem(path, f"is {_WORDS[declared]}, not {_plain(raw)}")
    return raw


def _read_mapping(inner: Any, raw: object, path: Place) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ShapeProblem(path, f"is a table, written [{dotted(path)}]")
    return {key: _read_value(inner, value, (*path, key)) for key, value in raw.items()}


def _read_tables(inner: Any, raw: object, path: Place) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        return (_read_value(inner, raw, path),)
    return tuple(_read_value(inner, item, (*path, number)) for number, item in enumerate(raw))


def _read_day(raw: object, path: Place) -> date:
    if isinstance(raw, date) and not isinstance(raw, datetime):
        return raw
    try:
        return date.fromisoformat(raw if isinstance(raw, str) else "")
    except ValueError as error:
        raise ShapeProblem(path, f"is a day such as 2026-11-01, not {_plain(raw)}") from error


def _read_amount(raw: object, path: Place) -> Decimal:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str | Decimal):
        raise ShapeProblem(path, f"is a number, not {_plain(raw)}")
    try:
        amount = Decimal(str(raw))
    except InvalidOperation as error:
        raise ShapeProblem(path, f"is a number, not {raw!r}") from error
    if not amount.is_finite() or amount < 0:
        raise ShapeProblem(path, f"is a number from 0 up, not {raw}")
    return amount


def _value_of_text(declared: Any, text: str, path: KeyPath) -> object:
    if declared is bool:
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ShapeProblem(path, f"is true or false, not {text!r}")
        return word in _TRUE
    if declared is int:
        try:
            return int(text)
        except ValueError as error:
            raise ShapeProblem(path, f"is a whole number, not {text!r}") from error
    return text


def _check(shape: type, name: str, value: Any, path: Place) -> None:
    check: Check | None = getattr(shape, "CHECKS", {}).get(name)
    try:
        problem = check(value) if check is not None else None
    except ShapeProblem as below:
        raise ShapeProblem((*path, *below.path), below.text, below.hint) from below
    if problem is not None:
        raise ShapeProblem(path, problem)
    check_key: Check | None = getattr(shape, "KEY_CHECKS", {}).get(name)
    for key in value if check_key is not None else ():
        if check_key is not None and (wrong := check_key(key)) is not None:
            raise ShapeProblem((*path, key), wrong)


def _nearest_hint(key: str, declared: Mapping[str, Any]) -> str:
    close = nearest(key, declared)
    if close:
        return f"did you mean {close[0]}?"
    return "known keys: " + ", ".join(declared)


def _plain(raw: object) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, float) and not math.isfinite(raw):
        return str(raw)
    if isinstance(raw, date):
        return str(raw)
    return f"{raw!r}" if isinstance(raw, str | int | float | Decimal) else "a table or a list"


_WORDS: dict[Any, str] = {bool: "true or false", str: "text in quotes", int: "a whole number"}
