-- Counts the accounts of a slot without a look at the table. PostgreSQL reads an index alone only if it has each
-- column that the statement names, and `did` is one of them.
CREATE INDEX accounts_counted_by_slot ON accounts (host_id, SUBSTR(did, 9, 1), did);
