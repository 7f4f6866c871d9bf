-- When a grant last used the set, to the day. NULL: it was only requested.
ALTER TABLE permission_sets ADD COLUMN used_at BIGINT;
