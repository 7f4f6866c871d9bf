CREATE INDEX oauth_codes_unredeemed ON oauth_codes (expires_at) WHERE grant_id IS NULL AND link IS NOT NULL;
