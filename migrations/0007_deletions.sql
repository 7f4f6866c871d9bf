-- A deletion is recorded before the host is told, so that one that broke off is finished.
ALTER TABLE accounts ADD COLUMN deleting_at BIGINT;
CREATE INDEX accounts_deleting ON accounts (deleting_at) WHERE deleting_at IS NOT NULL;
