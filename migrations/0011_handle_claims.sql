-- Who holds which handle while a transaction decides about it. The unique key makes others wait for that transaction,
-- which also removes the row.
CREATE TABLE IF NOT EXISTS handle_claims (
    handle  TEXT NOT NULL PRIMARY KEY,
    did     TEXT NOT NULL
);
