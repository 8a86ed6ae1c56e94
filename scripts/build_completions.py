"""Writes the completion scripts below `completions/` from the tree of commands.

python scripts/build_completions.py
python scripts/build_completions.py --check
"""

import argparse
import sys
from pathlib import Path

from opencode_gate.cli.command_tree import tree
from opencode_gate.cli.completion_scripts import FILE_NAMES, completion_script

TARGET = Path(__file__).parent.parent / "completions"


def main() -> int:
    """Writes the scripts, or with `--check` says whether they are what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    root = tree()
    stale = 0
    for shell, name in FILE_NAMES.items():
        file, text = TARGET / name, completion_script(shell, root)
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"completions/{name} {'is not what the commands make' if check else 'written'}")
        if not check:
            TARGET.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
