CREATE INDEX device_accounts_for_requests ON device_accounts (entered_at) WHERE request <> '';
