"""Writes the table of every provider in the bundled catalogue: works, or why not.

python scripts/build_provider_table.py
python scripts/build_provider_table.py --check
"""

import argparse
import sys
from pathlib import Path

from opencode_gate.catalog.archive import Archive
from opencode_gate.catalog.catalogue import BUNDLED, Catalogue
from opencode_gate.catalog.provider_facts import BASE_URL_BY_ID, BASE_URL_BY_NPM
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.settings import Settings

TARGET = Path(__file__).parent.parent / "docs" / "reference" / "providers.md"
_NOTE = "<!-- Made by scripts/build_provider_table.py; change the code, not this page. -->\n"


def page() -> str:
    """The page."""
    catalogue = Catalogue(Archive(BUNDLED), Settings(), {})
    templates = {
        entry["id"]: entry.get("api")
        or BASE_URL_BY_ID.get(entry["id"])
        or BASE_URL_BY_NPM.get(entry.get("npm", ""))
        for entry in catalogue.entries()
    }
    rows = [row for row in catalogue.providers().values() if row.source == "catalogue"]
    rows.sort(key=lambda row: row.id)
    counts = catalogue.model_counts()
    working = [row for row in rows if row.why_not is None]
    needy = [row for row in working if row.missing_variables]
    return (
        f"# Providers\n\n{_NOTE}\n"
        f"The catalogue of {catalogue.date} has {len(rows)} providers with\n"
        f"{sum(counts[row.id] for row in rows):,} models. {len(working)} of the providers work:\n"
        "they speak one of the four formats ogate understands (OpenAI chat completions, OpenAI\n"
        "Responses, Anthropic Messages, Gemini), so a key is all they need"
        f" ({len(needy)} of them need\nan account or a host name too)."
        f" {len(rows) - len(working)} do not work yet; the last table says why.\n\n"
        "`ogate providers list --all` says the same about the catalogue on your machine, which\n"
        "may be newer, and about servers of your own; `ogate providers show ID` about one.\n\n"
        "OpenCode Zen (`opencode`) has models that need no key. A server that is not here and\n"
        "speaks one of the formats is [added with one command](../how-to/add-a-provider.md).\n\n"
        "## Work\n\n"
        "| id | name | models | key | needs also | address |\n"
        "| --- | --- | ---: | --- | --- | --- |\n"
        + "".join(_working_line(row, counts[row.id], templates[row.id]) for row in working)
        + "\n## Do not work yet\n\n"
        "| id | name | models | why |\n| --- | --- | ---: | --- |\n"
        + "".join(
            f"| `{row.id}` | {_cell(row.name)} | {counts[row.id]} | {_cell(row.why_not or '')} |\n"
            for row in rows
            if row.why_not is not None
        )
    )


def _working_line(row: ProviderRow, models: int, address: str | None) -> str:
    cells = (
        f"`{row.id}`",
        _cell(row.name),
        str(models),
        _names(row.key_env),
        _names(row.missing_variables),
        f"`{(address or '').rstrip('/')}`",
    )
    return "| " + " | ".join(cells) + " |\n"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Writes the page, or with `--check` says whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    text = page()
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"docs/reference/{TARGET.name} {'is not what the code makes' if check else 'written'}")
    if check:
        return 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
