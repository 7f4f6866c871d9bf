CREATE INDEX oauth_clients_by_standing ON oauth_clients (standing, client_id);
