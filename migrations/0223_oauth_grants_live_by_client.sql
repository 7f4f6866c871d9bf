CREATE INDEX oauth_grants_live_by_client ON oauth_grants (client_id, created_at) WHERE ended_at IS NULL;
