CREATE INDEX links_by_client_key ON links (client_key) WHERE state <> 'dead';
