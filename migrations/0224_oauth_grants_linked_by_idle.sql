CREATE INDEX oauth_grants_linked_by_idle ON oauth_grants (idle_until) WHERE ended_at IS NULL AND place = 'link';
