-- `oauth_codes_without_grant` serves the sweep.
DROP INDEX IF EXISTS oauth_codes_by_expiry;
