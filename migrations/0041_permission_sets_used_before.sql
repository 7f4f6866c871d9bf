-- Grants may use any set that was resolved so far.
UPDATE permission_sets SET used_at = checked_at WHERE document IS NOT NULL;
