CREATE INDEX invite_codes_by_age ON invite_codes (created_at);
