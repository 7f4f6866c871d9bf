-- home_documents: the DID document of a home account as the PLC directory last had it. `text` is empty after a change
-- that Genkan knows of, until the directory is asked again.
CREATE TABLE IF NOT EXISTS home_documents (
    did               TEXT NOT NULL PRIMARY KEY,
    text              TEXT,
    checked_at        BIGINT NOT NULL,                 -- when the directory was asked, or told of the change
    may_change_until  BIGINT NOT NULL DEFAULT 0        -- until when a signed operation may reach the directory
);
