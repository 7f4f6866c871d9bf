CREATE INDEX devices_by_sweep ON devices (sweep_at);
