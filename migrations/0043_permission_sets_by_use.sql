CREATE INDEX permission_sets_by_use ON permission_sets (used_at);
