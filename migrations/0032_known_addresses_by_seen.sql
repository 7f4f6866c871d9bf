-- For the sweep of addresses that are not known any more.
CREATE INDEX known_addresses_by_seen ON known_addresses (seen_at);
