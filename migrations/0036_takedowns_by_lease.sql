-- The job takes rows whose lease is over.
CREATE INDEX takedowns_by_lease ON takedowns (lease_until);
