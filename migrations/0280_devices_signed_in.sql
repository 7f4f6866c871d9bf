-- When an account last signed in on the device. It is kept for a while after the sign-in ended.
ALTER TABLE devices ADD COLUMN signed_in_at BIGINT;
