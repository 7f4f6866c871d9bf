-- A cookie that a slow answer may still bring to the browser after the device got another one.
-- Its hash.
ALTER TABLE devices ADD COLUMN lost TEXT;
