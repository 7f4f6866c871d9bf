-- The rotation that a sign-in came with.
ALTER TABLE device_accounts ADD COLUMN entered_in BIGINT NOT NULL DEFAULT 0;
