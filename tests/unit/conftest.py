"""A journal and the ledger that it is folded into."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.sqlite.governance import SqliteGovernance, open_governance
from tests.support.ledger_records import a_session


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.fixture
def journal(folder: Path) -> Journal:
    return Journal.create(folder, session=a_session(id="01S"))


@pytest.fixture
def governance(ledger_file: Path) -> Iterator[SqliteGovernance]:
    with closing(open_governance(ledger_file)) as opened:
        yield opened
