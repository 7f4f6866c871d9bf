CREATE INDEX oauth_scopes_by_use ON oauth_scopes (used_at);
