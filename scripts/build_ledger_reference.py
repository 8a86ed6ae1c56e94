"""Writes the tables of `docs/reference/ledger.md` from the schema of a fresh ledger.

    python scripts/build_ledger_reference.py
    python scripts/build_ledger_reference.py --check

Only what stands between the markers is generated. A column without a comment in its migration
has an empty cell: its name says it all.
"""

import argparse
import re
import sqlite3
import sys
from pathlib import Path

from opencode_gate.ledger.sqlite.connection import migrations

TARGET = Path(__file__).parent.parent / "docs" / "reference" / "ledger.md"
BLOCK = re.compile(r"(<!-- columns of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Writes the page, or with `--check` says whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    page = TARGET.read_text(encoding="utf-8")
    fresh = written(page)
    if not arguments.check:
        TARGET.write_text(fresh, encoding="utf-8")
        return 0
    print(f"{TARGET.name} is {'up to date' if page == fresh else 'not what the schema makes'}")
    return 0 if page == fresh else 1


def written(page: str) -> str:
    """The page with its tables as the schema has them."""
    scripts = migrations()
    ledger = sqlite3.connect(":memory:")
    for script in scripts:
        ledger.executescript(script)
    comments = "\n".join(scripts)
    described = {match[2] for match in BLOCK.finditer(page)}
    tables = {row[0] for row in ledger.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
    if described != tables:
        raise SystemExit(f"{TARGET.name} and the schema differ in {sorted(described ^ tables)}")
    return BLOCK.sub(lambda match: match[1] + columns(ledger, match[2], comments) + match[3], page)


def columns(ledger: sqlite3.Connection, table: str, comments: str) -> str:
    """A table in Markdown, one line a column."""
    lines = ["| column | type | null | meaning |", "|---|---|---|---|"]
    for _, name, kind, not_null, _, key, hidden in ledger.execute(f"PRAGMA table_xinfo({table})"):
        type_name = kind.removesuffix(" GENERATED ALWAYS")
        null = "computed" if hidden else "key" if key else "no" if not_null else "yes"
        lines.append(f"| `{name}` | {type_name} | {null} | {meaning(table, name, comments)} |")
    return "\n".join(lines) + "\n"


def meaning(table: str, column: str, comments: str) -> str:
    """The comment behind a column's definition, in its table's statement or an `ALTER TABLE`."""
    created = re.search(rf"CREATE TABLE {table} \((.*?)^\)", comments, re.DOTALL | re.MULTILINE)
    added = re.findall(rf"^ALTER TABLE {table} ADD COLUMN (.*)$", comments, re.MULTILINE)
    definitions = "\n".join([created[1] if created else "", *added])
    found = re.search(rf'^\s*"?{column}"? [^\n]*?-- (.*)$', definitions, re.MULTILINE)
    return found[1].replace("|", "·") if found else ""


if __name__ == "__main__":
    sys.exit(main())
