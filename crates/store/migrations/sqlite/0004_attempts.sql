-- Runs that are attempts of tasks, and nodes that take tasks.
ALTER TABLE runs ADD COLUMN task BLOB;
ALTER TABLE runs ADD COLUMN attempt INTEGER;

ALTER TABLE nodes ADD COLUMN slots INTEGER NOT NULL DEFAULT 0;
