CREATE INDEX renames_by_lease ON renames (lease_until);
