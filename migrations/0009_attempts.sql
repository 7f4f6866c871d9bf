-- Jobs that take a few rows at a time take those first whose last attempt is the longest ago: rows that fail again
-- and again keep no others waiting.

-- When a deletion was last attempted; 0 before the first attempt.
ALTER TABLE accounts ADD COLUMN delete_tried_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX accounts_by_deletion ON accounts (delete_after) WHERE delete_after IS NOT NULL;

-- When the job that keeps idle links alive last tried this one; 0 before the first attempt.
ALTER TABLE links ADD COLUMN kept_alive_at BIGINT NOT NULL DEFAULT 0;
