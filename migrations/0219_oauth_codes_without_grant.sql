CREATE INDEX oauth_codes_without_grant ON oauth_codes (expires_at) WHERE grant_id IS NULL;
