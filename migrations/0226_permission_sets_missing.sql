CREATE INDEX permission_sets_missing ON permission_sets (checked_at) WHERE document IS NULL;
