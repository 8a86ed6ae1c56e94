"""Rules written as TOML: into an empty file, or into one that is there and keeps its comments.

The invariant: what is written is read back and compared before anybody gets it, so that a file
never says something else than the rules it was made from.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from opencode_gate.core.errors import ConfigError
from opencode_gate.governance.policy import Owner, Policy, Rules
from opencode_gate.session.policy_file import FILE_KINDS, is_same, parse_policy
from opencode_gate.session.policy_names import GROUPS
from opencode_gate.session.policy_sense import owned

if TYPE_CHECKING:
    from tomlkit.items import Item

Plain: TypeAlias = dict[str, Any]

_HEAD = """\
# Rules of ogate: who may spend how much on which models. docs/how-to/policy-file.md explains
# every key; `ogate policy check FILE` reads this file, `ogate policy apply FILE` puts it in force.
"""


def policy_text(policy: Policy, *, into: str | None = None, source: str = "the file") -> str:
    """The rules as TOML.

    Args:
        into: the text of a file that is there; its comments and its order stay, and what it says
            in other words.
        source: names that file in errors.

    Raises:
        ConfigError: `bad-policy`, the file is no TOML or too entangled to be changed in place.
    """
    if into is None or not into.strip():
        text = _HEAD + _fresh(policy)
    else:
        text = _merged(policy, into, source)
    if not _says(text, policy):
        raise ConfigError(
            "bad-policy",
            f"{source} cannot be changed in place without changing what it says",
            hint="ogate policy export to a new file",
        )
    return text


def _says(text: str, policy: Policy) -> bool:
    try:
        found = parse_policy(text, source="what was written", at_us=0, is_checked=False)
    except ConfigError:
        return False
    return is_same(found, policy)


def owner_text(owner: Owner, rules: Rules) -> str:
    """The rules of one owner as TOML."""
    document: dict[str, Any] = {}
    _put_owners(document, GROUPS[owner.kind], {owner.name: rules})
    import tomlkit

    return tomlkit.dumps(document).strip()


def plain_rules(rules: Rules) -> Plain:
    """The rules of an owner as a TOML table: what is the default is left out."""
    found = _plain(rules)
    assert isinstance(found, dict)
    return found


def _plain(value: object) -> Any:
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        said = {field.name: getattr(value, field.name) for field in fields}
        plain = {
            field.name: _plain(said[field.name])
            for field in fields
            if field.required or said[field.name] != field.default
        }
        # Single values come first: behind a table they would belong to it.
        return dict(sorted(plain.items(), key=lambda pair: _is_table(pair[1])))
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


def _fresh(policy: Policy) -> str:
    import tomlkit

    document = tomlkit.document()
    for kind in FILE_KINDS:
        _put_owners(document, GROUPS[kind], owned(policy, kind))
    text = tomlkit.dumps(document)
    return f"\n{text}" if text else ""


def _merged(policy: Policy, text: str, source: str) -> str:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        for kind in FILE_KINDS:
            _put_owners(document, GROUPS[kind], owned(policy, kind))
        return tomlkit.dumps(document)
    except (TOMLKitError, KeyError, TypeError) as error:
        raise ConfigError(
            "bad-policy",
            f"{source} cannot be changed in place: {error}",
            hint="ogate policy export to a new file",
        ) from error


def _put_owners(
    document: MutableMapping[str, Any], group: str, owners: Mapping[str, Rules]
) -> None:
    import tomlkit

    if group not in document:
        if owners:
            made = tomlkit.table(is_super_table=True)
            for name, rules in owners.items():
                made.add(name, _item(plain_rules(rules)))
            document[group] = made
        return
    tables = document[group]
    for name in [name for name in tables if name not in owners]:
        del tables[name]
    for name, rules in owners.items():
        plain = plain_rules(rules)
        if name in tables and (plain or not _is_implied(tables[name])):
            _sync(tables[name], plain)
        else:
            tables[name] = _new_item(plain, tables, None)
    if not owners:
        del document[group]


def _is_implied(table: object) -> bool:
    """Whether a table has no line of its own, only tables below it."""
    from tomlkit.items import Table

    return isinstance(table, Table) and table.is_super_table()


def _sync(table: MutableMapping[str, Any], plain: Plain) -> None:
    """Makes a table say what `plain` says; what it says already is not touched."""
    for key in [key for key in table if key not in plain]:
        del table[key]
    for key, value in plain.items():
        if key in table and _is_said(table[key], value):
            continue
        if key in table and isinstance(value, dict):
            _sync(table[key], value)
        elif key in table and _is_table(value) and _sync_tables(table[key], value):
            continue
        else:
            table[key] = _new_item(value, table, table.get(key))


def _new_item(value: object, table: object, former: object) -> Any:
    """A value for a table, in one line where the table or what was there before is."""
    from tomlkit.items import Array, InlineTable

    if isinstance(table, InlineTable) or isinstance(former, Array | InlineTable):
        return _inline(value)
    item = _item(value)
    if _is_table(value):
        _set_apart(item[0] if isinstance(value, list) else item)
    return item


def _inline(value: object) -> Any:
    """A value that needs no line of its own."""
    import tomlkit

    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, inner in value.items():
            table.append(key, _inline(inner))
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        for one in value:
            array.append(_inline(one))
        return array
    return _item(value)


def _sync_tables(tables: Any, wanted: Sequence[Plain]) -> bool:
    """Changes a list of tables in place; False where it has to be written anew."""
    from tomlkit.items import AoT, Array

    if not isinstance(tables, AoT | Array) or not all(isinstance(one, Mapping) for one in tables):
        return False
    names = [_name(one) for one in wanted]
    for number in reversed(range(len(tables))):
        if _name(tables[number]) not in names:
            del tables[number]
    if [_name(one) for one in tables] != names[: len(tables)] or not len(tables):
        return False
    for number, plain in enumerate(wanted):
        if number < len(tables):
            _sync(tables[number], plain)
        else:
            is_inline = isinstance(tables, Array)
            tables.append(_inline(plain) if is_inline else _set_apart(_item(plain)))
    return True


def _name(table: Mapping[str, Any]) -> tuple[object, ...]:
    """What makes a budget or a limit the same one with other amounts."""
    measures = [key for key in ("usd", "tokens", "requests", "concurrent") if key in table]
    return (table.get("window"), bool(table.get("rolling", False)), table.get("per"), *measures)


def _is_said(written: Any, value: object) -> bool:
    """Whether an item of the file says a value, in whatever way it is written."""
    if isinstance(value, Decimal):
        return isinstance(written, int | float | str) and _amount(written) == value
    if isinstance(value, bool) or isinstance(written, bool):
        return written is value
    if isinstance(value, list):
        return (
            isinstance(written, list)
            and len(written) == len(value)
            and all(_is_said(one, other) for one, other in zip(written, value, strict=True))
        )
    if isinstance(value, dict):
        return (
            isinstance(written, Mapping)
            and written.keys() == value.keys()
            and all(_is_said(written[key], value[key]) for key in value)
        )
    from datetime import datetime

    if isinstance(written, datetime):
        return written.isoformat() == value
    return bool(written == value)


def _amount(written: Any) -> Decimal | None:
    from opencode_gate.core.errors import UsageError
    from opencode_gate.session.amounts import usd_amount

    if isinstance(written, int):
        return Decimal(int(written))
    if not isinstance(written, str):
        # A float of the file keeps the digits it was written with.
        return Decimal(written.as_string().replace("_", ""))
    try:
        return usd_amount(str(written))
    except UsageError:
        return None


def _set_apart(table: "Item") -> "Item":
    """With an empty line above."""
    table.trivia.indent = "\n"
    return table


def _item(value: object) -> Any:
    import tomlkit

    if isinstance(value, Decimal):
        # With the digits it has, not as the nearest binary number.
        return tomlkit.value(f"{value:f}")
    if isinstance(value, dict):
        table = tomlkit.table()
        for key, inner in value.items():
            table.add(key, _item(inner))
        return table
    if _is_table(value):
        assert isinstance(value, list)
        tables = tomlkit.aot()
        for one in value:
            tables.append(_item(one))
        return tables
    return tomlkit.item(value)
