-- Ids are the sixteen bytes of a UUID, hashes thirty-two bytes, times milliseconds since 1970,
-- lists and maps JSON. Unsigned numbers keep their bits.
-- Order by id is order by age: ids are UUIDs of version 7.

CREATE TABLE numbers (
    name  TEXT PRIMARY KEY NOT NULL,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO numbers (name, value) VALUES ('generation', 1), ('events_trimmed', 0), ('reopened', 0);

CREATE TABLE nodes (
    id           BLOB PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    labels       TEXT NOT NULL,
    os           TEXT NOT NULL,
    arch         TEXT NOT NULL,
    hostname     TEXT NOT NULL,
    version      TEXT NOT NULL,
    sandbox      TEXT NOT NULL,
    cpus         INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    tools        TEXT NOT NULL,
    key_hash     BLOB NOT NULL,
    epoch        INTEGER NOT NULL,
    joined_at    INTEGER NOT NULL,
    last_seen_at INTEGER,
    quarantined  INTEGER NOT NULL,
    removed_at   INTEGER
) STRICT;

CREATE UNIQUE INDEX nodes_live_name ON nodes (name) WHERE removed_at IS NULL;

CREATE TABLE invites (
    id          BLOB PRIMARY KEY NOT NULL,
    secret_hash BLOB NOT NULL,
    labels      TEXT NOT NULL,
    profile     TEXT NOT NULL,
    created_by  TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    used_by     BLOB,
    used_at     INTEGER,
    revoked_at  INTEGER
) STRICT;

CREATE TABLE tokens (
    id          BLOB PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    role        TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER
) STRICT;

CREATE UNIQUE INDEX tokens_live_name ON tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE policies (
    node           BLOB PRIMARY KEY NOT NULL,
    revision       INTEGER NOT NULL,
    profile        TEXT NOT NULL,
    mode           TEXT NOT NULL,
    allow          TEXT NOT NULL,
    deny           TEXT NOT NULL,
    env            TEXT NOT NULL,
    timeout_ms_max INTEGER NOT NULL,
    changed_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE runs (
    id              BLOB PRIMARY KEY NOT NULL,
    node            BLOB NOT NULL,
    argv            TEXT NOT NULL,
    cwd             TEXT,
    env             TEXT NOT NULL,
    timeout_ms      INTEGER,
    stdin           INTEGER NOT NULL,
    state           TEXT NOT NULL,
    caller          TEXT NOT NULL,
    policy_revision INTEGER NOT NULL,
    idempotency_key TEXT,
    traceparent     TEXT,
    accepted_at     INTEGER NOT NULL,
    started_at      INTEGER,
    ended_at        INTEGER,
    code            INTEGER,
    signal          INTEGER,
    duration_ms     INTEGER,
    stdout_bytes    INTEGER NOT NULL,
    stderr_bytes    INTEGER NOT NULL,
    cancelled_by    TEXT,
    diagnostic      TEXT
) STRICT;

CREATE UNIQUE INDEX runs_key ON runs (caller, node, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_state ON runs (state, id);
CREATE INDEX runs_node_state ON runs (node, state, id);
CREATE INDEX runs_ended ON runs (ended_at, id) WHERE ended_at IS NOT NULL;

CREATE TABLE events (
    seq     INTEGER PRIMARY KEY NOT NULL,
    kind    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    node    BLOB,
    run     BLOB,
    actor   TEXT,
    subject TEXT,
    detail  TEXT
) STRICT;

CREATE TABLE audit (
    seq             INTEGER PRIMARY KEY NOT NULL,
    at              INTEGER NOT NULL,
    actor           TEXT NOT NULL,
    action          TEXT NOT NULL,
    outcome         TEXT NOT NULL,
    reason          TEXT,
    node            BLOB,
    run             BLOB,
    policy_revision INTEGER,
    argv            TEXT NOT NULL,
    detail          TEXT,
    hash            BLOB NOT NULL
) STRICT;

CREATE INDEX audit_node ON audit (node, seq) WHERE node IS NOT NULL;
CREATE INDEX audit_actor ON audit (actor, seq);
