CREATE INDEX oauth_grants_live_by_age ON oauth_grants (created_at) WHERE ended_at IS NULL;
