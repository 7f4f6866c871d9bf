CREATE INDEX account_counts_by_check ON account_counts (checked_at);
