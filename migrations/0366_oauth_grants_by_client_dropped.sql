-- `oauth_grants_live_by_client` and `oauth_grants_ended_by_client` replace it. A new grant enters one
-- index less.
DROP INDEX IF EXISTS oauth_grants_by_client;
