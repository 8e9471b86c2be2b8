-- Operations that change files. One without an end is on its way to its node, or under way there.
CREATE TABLE file_ops (
    id              BLOB PRIMARY KEY NOT NULL,
    node            BLOB NOT NULL,
    verb            TEXT NOT NULL,
    path            TEXT NOT NULL,
    source          TEXT,
    digest          BLOB NOT NULL,
    caller          TEXT NOT NULL,
    token           BLOB,
    key             TEXT,
    task            BLOB,
    attempt         INTEGER,
    policy_revision INTEGER NOT NULL,
    accepted_at     INTEGER NOT NULL,
    ended_at        INTEGER,
    -- accepted | written | done | refused; each of the columns below belongs to one of them.
    state           TEXT NOT NULL,
    etag            BLOB,
    bytes           INTEGER,
    created         INTEGER,
    removed         INTEGER,
    made            INTEGER,
    refusal         TEXT
) STRICT;

CREATE UNIQUE INDEX file_ops_key ON file_ops (caller, node, key) WHERE key IS NOT NULL;
CREATE INDEX file_ops_open ON file_ops (node, id) WHERE ended_at IS NULL;
CREATE INDEX file_ops_ended ON file_ops (ended_at, id) WHERE ended_at IS NOT NULL;
