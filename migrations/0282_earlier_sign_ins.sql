-- When the account was signed in there before, to which a sign-in falls back whose answer was lost.
ALTER TABLE device_accounts ADD COLUMN entered_before BIGINT;
