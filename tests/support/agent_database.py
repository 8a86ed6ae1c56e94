"""Opencode's database as it writes it itself, with rows a test wants in it; times in ms."""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE project (id TEXT PRIMARY KEY, worktree TEXT NOT NULL, name TEXT);
CREATE TABLE session (id TEXT PRIMARY KEY, project_id TEXT NOT NULL, parent_id TEXT,
  directory TEXT NOT NULL, title TEXT NOT NULL, version TEXT NOT NULL, agent TEXT, model TEXT,
  cost REAL DEFAULT 0 NOT NULL, tokens_input INTEGER DEFAULT 0 NOT NULL,
  tokens_output INTEGER DEFAULT 0 NOT NULL, tokens_reasoning INTEGER DEFAULT 0 NOT NULL,
  tokens_cache_read INTEGER DEFAULT 0 NOT NULL, tokens_cache_write INTEGER DEFAULT 0 NOT NULL,
  time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL);
CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL,
  time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL, data TEXT NOT NULL);
CREATE TABLE part (id TEXT PRIMARY KEY, message_id TEXT NOT NULL, session_id TEXT NOT NULL,
  time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL, data TEXT NOT NULL);
CREATE TABLE account_state (id INTEGER PRIMARY KEY, active_org_id TEXT);
"""
FOLDER = "/home/u/repo"


class AgentDatabase:
    """Opencode's side: its tables, in a file that stays open with a write-ahead log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.executescript(SCHEMA)
        self.connection.execute("INSERT INTO project VALUES ('p', '/home/u/repo', NULL)")
        self._parts = 0

    def conversation(
        self,
        id: str,
        *,
        at: int,
        parent: str | None = None,
        directory: str = FOLDER,
        agent: str = "build",
        title: str = "A title",
    ) -> None:
        self.connection.execute(
            "INSERT INTO session (id, project_id, parent_id, directory, title, version, agent,"
            " time_created, time_updated) VALUES (?, 'p', ?, ?, ?, '1.18.33', ?, ?, ?)",
            (id, parent, directory, title, agent, at, at),
        )

    def prompt(
        self,
        id: str,
        conversation: str,
        *,
        at: int,
        agent: str = "build",
        parts: Iterable[dict[str, Any]] = ({"type": "text", "text": "Mend it."},),
    ) -> None:
        self._message(id, conversation, at, {"role": "user", "agent": agent})
        for part in parts:
            self.part(id, conversation, part)

    def turn(
        self,
        id: str,
        conversation: str,
        *,
        at: int,
        until: int | None,
        prompt: str = "msg_p",
        model: tuple[str, str] = ("acme", "big"),
        tokens: tuple[int, int, int] | None = (100, 7, 20),
        cost: float = 0.25,
        counts_in_row: bool = True,
        **more: Any,
    ) -> None:
        """An answer; `tokens` are plain input, cached input and output, `None` for none at all."""
        plain, cached, output = (0, 0, 0) if tokens is None else tokens
        cost = 0 if tokens is None else cost
        time: dict[str, int] = {"created": at}
        if until is not None:
            time["completed"] = until
        data = {
            "role": "assistant",
            "parentID": prompt,
            "agent": "build",
            "providerID": model[0],
            "modelID": model[1],
            "cost": cost,
            "tokens": {
                "input": plain,
                "output": output,
                "reasoning": 0,
                "cache": {"read": cached, "write": 0},
            },
            "time": time,
            **more,
        }
        self._message(id, conversation, at, data)
        if tokens is not None:
            self.part(id, conversation, {"type": "step-finish", "cost": cost})
        if counts_in_row:
            self.connection.execute(
                "UPDATE session SET cost = cost + ?, tokens_input = tokens_input + ?,"
                " tokens_cache_read = tokens_cache_read + ?, tokens_output = tokens_output + ?"
                " WHERE id = ?",
                (cost, plain, cached, output, conversation),
            )

    def part(self, message: str, conversation: str, data: dict[str, Any]) -> None:
        self._parts += 1
        self.connection.execute(
            "INSERT INTO part VALUES (?, ?, ?, 0, 0, ?)",
            (f"prt_{self._parts:05}", message, conversation, json.dumps(data)),
        )

    def close(self) -> None:
        self.connection.close()

    def _message(self, id: str, conversation: str, at: int, data: dict[str, Any]) -> None:
        self.connection.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?)",
            (id, conversation, at, at, json.dumps(data)),
        )
