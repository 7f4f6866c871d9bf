CREATE INDEX links_to_keep_alive ON links (keep_alive_due) WHERE state = 'live';
