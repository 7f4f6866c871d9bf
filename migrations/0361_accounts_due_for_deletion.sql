-- Finds the accounts whose deletion is due without a look at those that wait for it. The job looks each minute, and
-- nothing else can write to SQLite meanwhile.
CREATE INDEX accounts_due_for_deletion ON accounts
    (host_id, delete_tried_at, delete_after, deactivated_at, deleting_at, did)
    WHERE deleting_at IS NOT NULL OR delete_after IS NOT NULL;
