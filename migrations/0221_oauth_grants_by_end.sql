CREATE INDEX oauth_grants_by_end ON oauth_grants (ended_at) WHERE ended_at IS NOT NULL;
