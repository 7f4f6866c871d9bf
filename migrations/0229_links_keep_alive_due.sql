-- When the job that keeps idle links alive looks at this one next.
ALTER TABLE links ADD COLUMN keep_alive_due BIGINT NOT NULL DEFAULT 0;
