-- How often the cookie was rotated. A cookie carries the sign-ins up to its own rotation.
ALTER TABLE devices ADD COLUMN rotations BIGINT NOT NULL DEFAULT 0;
