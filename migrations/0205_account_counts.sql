-- How many accounts each host has, in parts: `slot` is the ninth character of their DIDs, so that sign-ups at the
-- same moment rarely write one row, and one part can be counted again in a short time.
CREATE TABLE IF NOT EXISTS account_counts (
    host_id     TEXT NOT NULL,
    slot        TEXT NOT NULL,
    accounts    BIGINT NOT NULL,
    -- When it was last compared with the accounts; 0 before the first time.
    checked_at  BIGINT NOT NULL,
    PRIMARY KEY (host_id, slot)
);
