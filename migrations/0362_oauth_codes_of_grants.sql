CREATE INDEX oauth_codes_of_grants ON oauth_codes (grant_id) WHERE grant_id IS NOT NULL;
