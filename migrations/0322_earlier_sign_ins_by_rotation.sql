-- The rotation that the sign-in before came with.
ALTER TABLE device_accounts ADD COLUMN entered_before_in BIGINT;
