-- An idempotency key is its submitter's: a token's, or, with no token, a person's sessions'. Before, all
-- that one person had submitted shared its keys.
ALTER TABLE task_specs ADD COLUMN key_token BLOB NOT NULL DEFAULT x'';
DROP INDEX task_specs_key;
CREATE UNIQUE INDEX task_specs_key ON task_specs (party, key_token, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
