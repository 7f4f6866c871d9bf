CREATE INDEX oauth_codes_unused_by_did ON oauth_codes (did) WHERE used_at IS NULL;
