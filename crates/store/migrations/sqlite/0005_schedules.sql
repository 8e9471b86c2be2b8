-- Schedules of the work pool, and parts of it that stand still.
CREATE TABLE schedules (
    id         BLOB PRIMARY KEY NOT NULL,
    party      BLOB NOT NULL,
    name       TEXT NOT NULL,
    token      BLOB,
    user       BLOB,
    caller     TEXT NOT NULL,
    cron       TEXT NOT NULL,
    zone       TEXT NOT NULL,
    missed     TEXT NOT NULL,
    spec       TEXT NOT NULL,
    priority   INTEGER NOT NULL,
    is_on      INTEGER NOT NULL,
    next_at    INTEGER,
    last_at    INTEGER,
    created_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX schedules_name ON schedules (party, name);
CREATE INDEX schedules_next ON schedules (next_at, id) WHERE is_on = 1 AND next_at IS NOT NULL;

CREATE TABLE pauses (
    part       TEXT PRIMARY KEY NOT NULL,
    by         TEXT NOT NULL,
    since      INTEGER NOT NULL,
    message    TEXT,
    drained_at INTEGER
) STRICT, WITHOUT ROWID;
