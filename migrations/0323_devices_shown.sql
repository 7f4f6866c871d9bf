-- The hash of the cookie that a browser showed last. NULL: none since this column exists.
ALTER TABLE devices ADD COLUMN shown TEXT;
