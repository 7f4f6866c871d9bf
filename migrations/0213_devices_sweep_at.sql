-- When the sweep looks at a browser, or at a client, next.
ALTER TABLE devices ADD COLUMN sweep_at BIGINT NOT NULL DEFAULT 0;
