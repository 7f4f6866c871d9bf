CREATE INDEX signups_by_age ON signups (created_at);
