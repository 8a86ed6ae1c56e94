"""Makes the bundled catalogue from a models.dev `api.json` or `api.json.gz`.

    python scripts/build_catalogue.py api.json.gz
    python scripts/build_catalogue.py --check api.json.gz

The same input makes the same members; the bytes are the same for the same zlib.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path

from opencode_gate.catalog.archive import pack

TARGET = Path(__file__).parent.parent / "opencode_gate" / "catalog" / "data" / "catalogue.zip"


def main() -> int:
    """Writes the archive, or with `--check` says whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("api", type=Path, help="api.json or api.json.gz from models.dev")
    parser.add_argument("--date", help="the day it was fetched; the newest entry's otherwise")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    raw = arguments.api.read_bytes()
    text = gzip.decompress(raw) if arguments.api.suffix == ".gz" else raw
    archive = pack(json.loads(text), date=arguments.date)
    if arguments.check:
        fresh = TARGET.exists() and TARGET.read_bytes() == archive
        print(f"{TARGET.name} is {'up to date' if fresh else 'not what the input makes'}")
        return 0 if fresh else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(archive)
    print(f"{TARGET.name}: {len(archive)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
