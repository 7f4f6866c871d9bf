CREATE INDEX accounts_by_slot ON accounts (host_id, SUBSTR(did, 9, 1));
