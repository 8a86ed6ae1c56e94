-- A session beside the agent's own count, as it was compared at its end.
CREATE TABLE reconciliations (
    session_id TEXT NOT NULL PRIMARY KEY,
    document   TEXT NOT NULL -- JSON: figures, differences with their reasons, bypasses
) STRICT, WITHOUT ROWID;
