CREATE INDEX oauth_grants_ended_by_client ON oauth_grants (client_id) WHERE ended_at IS NOT NULL;
