-- Accounts that another process adds meanwhile are counted when the slot is checked for the first time.
INSERT INTO account_counts (host_id, slot, accounts, checked_at)
    SELECT host_id, SUBSTR(did, 9, 1), COUNT(*), 0 FROM accounts WHERE 1 = 1 GROUP BY host_id, SUBSTR(did, 9, 1)
    ON CONFLICT (host_id, slot) DO NOTHING;
