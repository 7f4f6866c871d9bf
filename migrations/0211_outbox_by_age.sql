CREATE INDEX outbox_by_age ON outbox (state, created_at);
