CREATE INDEX link_clients_by_use ON link_clients (used_at);
