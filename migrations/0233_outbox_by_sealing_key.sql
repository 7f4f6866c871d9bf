CREATE INDEX outbox_by_sealing_key ON outbox (SUBSTR(sealed, 4, 8), id);
