CREATE INDEX permission_sets_unused ON permission_sets (checked_at) WHERE used_at IS NULL AND document IS NOT NULL;
