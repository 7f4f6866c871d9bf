CREATE INDEX accounts_by_age ON accounts (created_at, did);
