-- People, what they may do where, locks, questions to people, policies as signed bytes, and what
-- nodes, runs and audit rows have to do with them. A subject, target or scope is one text: its kind, a colon, and what it names.

CREATE TABLE users (
    id         BLOB PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    password   TEXT,
    groups     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER
) STRICT;

CREATE UNIQUE INDEX users_live_name ON users (name) WHERE removed_at IS NULL;

CREATE TABLE grants (
    id         BLOB PRIMARY KEY NOT NULL,
    subject    TEXT NOT NULL,
    role       TEXT NOT NULL,
    selector   TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE INDEX grants_live ON grants (id) WHERE revoked_at IS NULL;

CREATE TABLE locks (
    id         BLOB PRIMARY KEY NOT NULL,
    target     TEXT NOT NULL,
    message    TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    lifted_at  INTEGER,
    lifted_by  TEXT
) STRICT;

CREATE INDEX locks_live ON locks (id) WHERE lifted_at IS NULL;

CREATE TABLE consents (
    id          BLOB PRIMARY KEY NOT NULL,
    run         BLOB NOT NULL,
    node        BLOB NOT NULL,
    caller      TEXT NOT NULL,
    token       BLOB NOT NULL,
    user        BLOB,
    argv        TEXT NOT NULL,
    cwd         TEXT,
    env         TEXT NOT NULL,
    timeout_ms  INTEGER,
    stdin       INTEGER NOT NULL,
    key         TEXT,
    traceparent TEXT,
    reason      TEXT NOT NULL,
    rule        TEXT NOT NULL,
    notes       TEXT NOT NULL,
    standing    TEXT NOT NULL,
    answered_by TEXT,
    note        TEXT,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    answered_at INTEGER
) STRICT;

CREATE INDEX consents_standing ON consents (standing, id);
CREATE INDEX consents_token ON consents (token, id);
CREATE INDEX consents_node ON consents (node, id);
CREATE INDEX consents_key ON consents (caller, node, key, id) WHERE key IS NOT NULL;
CREATE INDEX consents_answered ON consents (answered_at, id) WHERE answered_at IS NOT NULL;

CREATE TABLE consent_rules (
    id       BLOB PRIMARY KEY NOT NULL,
    node     BLOB NOT NULL,
    token    BLOB NOT NULL,
    pattern  TEXT NOT NULL,
    exact    INTEGER NOT NULL,
    cwd      TEXT,
    env      TEXT NOT NULL,
    stdin    INTEGER NOT NULL,
    until    INTEGER,
    made_by  TEXT NOT NULL,
    made_at  INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;

CREATE INDEX consent_rules_live ON consent_rules (id) WHERE ended_at IS NULL;

-- What was there was never signed: a node without a policy is STRICT.
DROP TABLE policies;

CREATE TABLE policy_revisions (
    node       BLOB NOT NULL,
    revision   INTEGER NOT NULL,
    document   BLOB NOT NULL,
    signature  BLOB NOT NULL,
    changed_by TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (node, revision)
) STRICT, WITHOUT ROWID;

CREATE TABLE profiles (
    name       TEXT PRIMARY KEY NOT NULL,
    document   TEXT NOT NULL,
    changed_by TEXT NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

ALTER TABLE tokens ADD COLUMN kind TEXT NOT NULL DEFAULT 'api';
ALTER TABLE tokens ADD COLUMN user BLOB;
ALTER TABLE tokens ADD COLUMN rights TEXT;
ALTER TABLE tokens ADD COLUMN nodes TEXT;
ALTER TABLE tokens ADD COLUMN tools TEXT;

ALTER TABLE nodes ADD COLUMN layers TEXT NOT NULL DEFAULT '[]';
ALTER TABLE nodes ADD COLUMN home TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN work TEXT NOT NULL DEFAULT '[]';
ALTER TABLE nodes ADD COLUMN owner BLOB;
ALTER TABLE nodes ADD COLUMN recovery_key BLOB;
ALTER TABLE nodes ADD COLUMN recoveries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN recoveries_left INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN recovered_key BLOB;
ALTER TABLE nodes ADD COLUMN audit_seq INTEGER;
ALTER TABLE nodes ADD COLUMN audit_hash BLOB;
ALTER TABLE nodes ADD COLUMN ceiling TEXT;

ALTER TABLE invites ADD COLUMN owner BLOB;
ALTER TABLE invites ADD COLUMN max_profile TEXT;

ALTER TABLE runs ADD COLUMN token BLOB;
ALTER TABLE runs ADD COLUMN user BLOB;
ALTER TABLE runs ADD COLUMN sandbox TEXT;
ALTER TABLE runs ADD COLUMN consent BLOB;

ALTER TABLE audit ADD COLUMN token BLOB;
ALTER TABLE audit ADD COLUMN policy_hash BLOB;
ALTER TABLE audit ADD COLUMN consent BLOB;
