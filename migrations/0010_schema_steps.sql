-- The steps of the schema from this one on. Those before are in `_sqlx_migrations`, the table that binaries look at
-- which know no step after 9.
CREATE TABLE IF NOT EXISTS schema_steps (
    version        BIGINT NOT NULL PRIMARY KEY,
    name           TEXT NOT NULL,
    checksum       TEXT NOT NULL,                       -- SHA-256 of the step's text
    oldest_binary  BIGINT NOT NULL,                     -- the last step that a binary must know to run on this one
    applied_at     BIGINT NOT NULL
);
