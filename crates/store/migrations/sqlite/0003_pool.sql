-- The work pool. What was submitted stands in task_specs and is written once; tasks holds what
-- changes, small, by id; lanes what many tasks have in common. Lists of ids are their bytes, one
-- after the other. Counts are kept with each commit.

INSERT INTO numbers (name, value) VALUES ('lanes_made', 0);

CREATE TABLE lanes (
    id       INTEGER PRIMARY KEY NOT NULL,
    token    BLOB,
    user     BLOB,
    kind     TEXT NOT NULL,
    priority INTEGER NOT NULL,
    selector TEXT NOT NULL,
    prefer   TEXT NOT NULL,
    excluded BLOB NOT NULL,
    tasks    INTEGER NOT NULL,
    open     INTEGER NOT NULL
) STRICT;

CREATE INDEX lanes_key ON lanes (user, token, kind, priority, selector, prefer, excluded);

CREATE TABLE task_parties (
    party BLOB PRIMARY KEY NOT NULL,
    open  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE task_states (
    state TEXT PRIMARY KEY NOT NULL,
    tasks INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Selector, preference and kind are the lane's, key and limit of the concurrency the task's.
CREATE TABLE task_specs (
    n                   INTEGER PRIMARY KEY NOT NULL,
    id                  BLOB NOT NULL,
    party               BLOB NOT NULL,
    caller              TEXT NOT NULL,
    idempotency_key     TEXT,
    traceparent         TEXT,
    schedule            BLOB,
    submitted_at        INTEGER NOT NULL,
    argv                TEXT,
    cwd                 TEXT,
    env                 TEXT,
    timeout_ms          INTEGER,
    stdin               INTEGER,
    attempts_max        INTEGER NOT NULL,
    backoff_initial_ms  INTEGER NOT NULL,
    backoff_factor      INTEGER NOT NULL,
    backoff_max_ms      INTEGER NOT NULL,
    backoff_jitter      INTEGER NOT NULL,
    start_within_ms     INTEGER,
    start_within_pauses INTEGER NOT NULL,
    lease_ms            INTEGER NOT NULL,
    after               BLOB,
    labels              TEXT,
    payload             BLOB
) STRICT;

CREATE UNIQUE INDEX task_specs_key ON task_specs (party, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_specs_party ON task_specs (party, id);
CREATE INDEX task_specs_schedule ON task_specs (schedule, id) WHERE schedule IS NOT NULL;

CREATE TABLE tasks (
    id           BLOB PRIMARY KEY NOT NULL,
    spec         INTEGER NOT NULL,
    key          TEXT,
    room         INTEGER,
    lane         INTEGER NOT NULL,
    state        TEXT NOT NULL,
    parked       INTEGER NOT NULL,
    attempt      INTEGER NOT NULL,
    tries        INTEGER NOT NULL,
    waits_for    INTEGER NOT NULL,
    due_at       INTEGER,
    ready_at     INTEGER,
    expires_at   INTEGER,
    node         BLOB,
    run          BLOB,
    token        BLOB,
    lease_ms     INTEGER,
    leased_at    INTEGER,
    ended_at     INTEGER,
    cancelled_by TEXT,
    code         INTEGER,
    signal       INTEGER,
    message      TEXT,
    steps        INTEGER NOT NULL,
    timeline     BLOB NOT NULL,
    output       BLOB
) STRICT, WITHOUT ROWID;

CREATE INDEX tasks_state ON tasks (state, id);
CREATE INDEX tasks_standing ON tasks (lane, ready_at, id) WHERE state = 'ready' AND parked = 0;
CREATE INDEX tasks_parked ON tasks (key, lane, room, ready_at, id) WHERE state = 'ready' AND parked = 1;
CREATE INDEX tasks_working ON tasks (key) WHERE state = 'leased' AND key IS NOT NULL;
CREATE INDEX tasks_due ON tasks (due_at, id) WHERE state = 'scheduled' AND waits_for = 0;
CREATE INDEX tasks_expiring ON tasks (expires_at, id) WHERE state = 'ready' AND expires_at IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (ended_at, id) WHERE ended_at IS NOT NULL;

-- Steps that have no place in tasks.timeline any more, in the same form.
CREATE TABLE task_steps (
    task     BLOB NOT NULL,
    n        INTEGER NOT NULL,
    timeline BLOB NOT NULL,
    PRIMARY KEY (task, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE task_evidence (
    task    BLOB NOT NULL,
    n       INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    node    BLOB,
    run     BLOB,
    token   BLOB,
    code    INTEGER,
    signal  INTEGER,
    message TEXT,
    output  BLOB NOT NULL,
    PRIMARY KEY (task, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE task_after (
    after BLOB NOT NULL,
    task  BLOB NOT NULL,
    PRIMARY KEY (after, task)
) STRICT, WITHOUT ROWID;
