-- takedowns: what an account's host is still to be told, one row from the takedown or restoration until the host
-- has accepted it
CREATE TABLE IF NOT EXISTS takedowns (
    did          TEXT NOT NULL PRIMARY KEY,
    wish         TEXT NOT NULL CHECK (wish IN ('taken down', 'restored')),
    attempts     BIGINT NOT NULL,
    last_error   TEXT,
    lease        TEXT,
    lease_until  BIGINT NOT NULL,
    created_at   BIGINT NOT NULL
);
