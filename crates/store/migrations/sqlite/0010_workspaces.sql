-- Named trees with members, and what belongs to them.
CREATE TABLE workspaces (
    id           BLOB PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    mode         TEXT NOT NULL,
    head         INTEGER NOT NULL,
    tree         BLOB NOT NULL,
    exclude      TEXT NOT NULL,
    ignore_files INTEGER NOT NULL,
    vcs          INTEGER NOT NULL,
    links        INTEGER NOT NULL,
    bytes_max    INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    -- All three, or none when nobody holds the lock.
    lock_holder  TEXT,
    lock_ttl_ms  INTEGER,
    lock_until   INTEGER,
    owner        TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    removed_at   INTEGER
) STRICT;

CREATE UNIQUE INDEX workspaces_name ON workspaces (name) WHERE removed_at IS NULL;
CREATE INDEX workspaces_removed ON workspaces (removed_at, id) WHERE removed_at IS NOT NULL;

-- A member that was detached has no row.
CREATE TABLE members (
    id               BLOB PRIMARY KEY NOT NULL,
    workspace        BLOB NOT NULL,
    node             BLOB NOT NULL,
    path             TEXT NOT NULL,
    role             TEXT NOT NULL,
    marker           BLOB,
    dev              INTEGER,
    ino              INTEGER,
    intent           INTEGER NOT NULL,
    observed_tree    BLOB,
    observed_at      INTEGER,
    news             INTEGER NOT NULL,
    received         BLOB,
    merged           BLOB,
    agreed           BLOB,
    begun_revision   INTEGER,
    begun_tree       BLOB,
    reached          INTEGER NOT NULL,
    settled_revision INTEGER,
    settled_tree     BLOB,
    halt             TEXT,
    accepted         TEXT,
    unavailable      TEXT,
    repair           INTEGER NOT NULL,
    conflicts        INTEGER NOT NULL,
    drift_since      INTEGER
) STRICT;

CREATE UNIQUE INDEX members_path ON members (node, path);
CREATE INDEX members_workspace ON members (workspace, id);

CREATE TABLE revisions (
    workspace BLOB NOT NULL,
    n         INTEGER NOT NULL,
    tree      BLOB NOT NULL,
    parent    INTEGER,
    kind      TEXT NOT NULL,
    member    BLOB,
    by        TEXT NOT NULL,
    at        INTEGER NOT NULL,
    files     INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    note      TEXT NOT NULL,
    PRIMARY KEY (workspace, n)
) STRICT, WITHOUT ROWID;

-- Paths that two sides had changed.
CREATE TABLE conflicts (
    workspace BLOB NOT NULL,
    revision  INTEGER NOT NULL,
    member    BLOB NOT NULL,
    path      TEXT NOT NULL,
    copy      TEXT,
    hub       BLOB,
    node      BLOB,
    at        INTEGER NOT NULL,
    PRIMARY KEY (workspace, revision, member, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX conflicts_member ON conflicts (member);

CREATE TABLE skills (
    name       TEXT NOT NULL,
    n          INTEGER NOT NULL,
    tree       BLOB NOT NULL,
    content    BLOB NOT NULL,
    by         TEXT NOT NULL,
    source     BLOB,
    at         INTEGER NOT NULL,
    removed_at INTEGER,
    PRIMARY KEY (name, n)
) STRICT, WITHOUT ROWID;
