-- Folders of nodes that follow skills.

CREATE TABLE skill_mounts (
    node       BLOB NOT NULL,
    path       TEXT NOT NULL,
    skill      TEXT NOT NULL,
    pin        INTEGER,
    reached    INTEGER,
    tree       BLOB,
    by         TEXT NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (node, path)
) STRICT, WITHOUT ROWID;
