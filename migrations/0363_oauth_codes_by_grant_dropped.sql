-- `oauth_codes_of_grants` replaces it, which a new code does not enter.
DROP INDEX IF EXISTS oauth_codes_by_grant;
