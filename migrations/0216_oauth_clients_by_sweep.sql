CREATE INDEX oauth_clients_by_sweep ON oauth_clients (sweep_at);
