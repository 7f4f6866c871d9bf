CREATE INDEX accounts_to_delete ON accounts (host_id, delete_tried_at) WHERE deleting_at IS NOT NULL OR delete_after IS NOT NULL;
