-- What is counted changes with nearly every commit: it stands together, in one page, and lanes are
-- written once. `key` is a lane's number, a party, or a state.
CREATE TABLE pool_counts (
    of    TEXT NOT NULL,
    key   ANY NOT NULL,
    tasks INTEGER NOT NULL,
    open  INTEGER NOT NULL,
    PRIMARY KEY (of, key)
) STRICT, WITHOUT ROWID;

INSERT INTO pool_counts SELECT 'lane', id, tasks, open FROM lanes;
INSERT INTO pool_counts SELECT 'party', party, open, open FROM task_parties;
INSERT INTO pool_counts SELECT 'state', state, tasks, 0 FROM task_states WHERE tasks > 0;
DROP TABLE task_parties;
DROP TABLE task_states;
ALTER TABLE lanes DROP COLUMN tasks;
ALTER TABLE lanes DROP COLUMN open;
