-- The Genkan processes that serve from this database. A row goes at a clean stop, and is ignored when it is stale.
CREATE TABLE replicas (
    id          TEXT NOT NULL PRIMARY KEY,
    -- Machine and process, for people.
    name        TEXT NOT NULL,
    started_at  BIGINT NOT NULL,
    -- The last heartbeat, by the replica's clock.
    seen_at     BIGINT NOT NULL
);

-- Which changes of the fleet each replica has in memory. Commands that change the fleet wait for these rows.
CREATE TABLE replica_reads (
    replica_id  TEXT NOT NULL,
    change_id   TEXT NOT NULL,
    read_at     BIGINT NOT NULL,
    PRIMARY KEY (replica_id, change_id)
);
