"""TOML tables read into the structs of `governance.policy`, nothing let through by accident.

The idea: the structs are the schema, as they are for `config.toml`; what does not fit
is a `ShapeProblem` with the place of the key. The invariant: what comes out is what the ledger
keeps, whatever way the table was written in.
"""

import types
import typing
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, TypeVar

import msgspec

from opencode_gate.config.toml_shape import Place, ShapeProblem, dotted, nearest

S = TypeVar("S", bound=msgspec.Struct)


def read_struct(shape: type[S], table: object, path: Place) -> S:
    """`table` as an instance of the struct `shape`.

    Raises:
        ShapeProblem: an unknown or missing key, a wrong type, values that contradict each other.
    """
    if not isinstance(table, Mapping):
        raise ShapeProblem(path, f"is a table, written [{dotted(path)}]")
    fields = {field.name: field for field in msgspec.structs.fields(shape)}
    values: dict[str, Any] = {}
    for key, raw in table.items():
        if key not in fields:
            close = nearest(key, fields)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(fields)}"
            raise ShapeProblem((*path, key), "is not a key of a policy", hint)
        values[key] = _read(fields[key].type, raw, (*path, key))
    missing = [name for name, field in fields.items() if field.required and name not in values]
    if missing:
        raise ShapeProblem(path, f"needs the key {missing[0]}")
    try:
        return shape(**values)
    except ValueError as error:
        raise ShapeProblem(path, f"does not make sense: {error}") from error


def _read(declared: Any, raw: object, path: Place) -> Any:
    declared = _without_none(declared)
    origin = typing.get_origin(declared)
    if origin is tuple:
        return _read_list(typing.get_args(declared)[0], raw, path)
    if origin is Literal:
        choices = typing.get_args(declared)
        if raw not in choices:
            raise ShapeProblem(path, f"is one of {', '.join(choices)}, not {_plain(raw)}")
        return raw
    if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
        return read_struct(declared, raw, path)
    if declared is Decimal:
        return _read_amount(raw, path)
    if declared is str and isinstance(raw, datetime):
        return raw.isoformat()
    if type(raw) is not declared:
        raise ShapeProblem(path, f"is {_WORDS[declared]}, not {_plain(raw)}")
    return raw


def _read_list(inner: Any, raw: object, path: Place) -> tuple[Any, ...]:
    if isinstance(raw, list):
        return tuple(_read(inner, item, (*path, number)) for number, item in enumerate(raw))
    if isinstance(raw, Mapping):
        raise ShapeProblem(path, f"may be there several times, so it is written [[{dotted(path)}]]")
    raise ShapeProblem(path, f"is a list, written [{_plain(raw)}]")


def _read_amount(raw: object, path: Place) -> Decimal:
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal | str):
        raise ShapeProblem(path, f"is an amount in dollars such as 5 or 5.50, not {_plain(raw)}")
    if isinstance(raw, str):
        from opencode_gate.core.errors import UsageError
        from opencode_gate.session.amounts import usd_amount

        try:
            return usd_amount(raw)
        except UsageError as error:
            raise ShapeProblem(path, f"is an amount in dollars, not {raw!r}", error.hint) from error
    return Decimal(raw)


def _without_none(declared: Any) -> Any:
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(declared) if member is not types.NoneType]
        return members[0]
    return declared


def _plain(raw: object) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, Decimal | date):
        return str(raw)
    return repr(raw) if isinstance(raw, str | int | float) else "a table or a list"


_WORDS: dict[Any, str] = {bool: "true or false", str: "text in quotes", int: "a whole number"}
