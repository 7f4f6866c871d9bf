-- One text for SQLite and PostgreSQL: columns are TEXT or BIGINT, times are milliseconds since the Unix epoch,
-- what may be missing is NULL. A random id, a DID or a name leads every key; no foreign key crosses accounts.

-- fleet: the PDS hosts ---------------------------------------------------------------------------------------
CREATE TABLE hosts (
    id                     TEXT NOT NULL PRIMARY KEY,  -- the operator's short name
    url                    TEXT NOT NULL UNIQUE,       -- public origin, exactly as in the DID documents
    did                    TEXT UNIQUE,                -- its service DID; NULL while it is only prepared
    state                  TEXT NOT NULL CHECK (state IN ('prepared', 'enabled', 'draining', 'retired')),
    weight                 BIGINT NOT NULL,
    capacity               BIGINT,                     -- accounts it may hold
    region                 TEXT NOT NULL,
    sign_ups_per_hour      BIGINT,                     -- relays limit new hosts
    admin_password_sealed  TEXT,
    signing_key            TEXT NOT NULL,              -- keys.id of the key that signs its tokens now
    version                TEXT,
    blob_limit             BIGINT,                     -- bytes
    added_at               BIGINT NOT NULL,
    updated_at             BIGINT NOT NULL
);

-- The last word of the background probe, so that the command line sees what the server saw.
CREATE TABLE host_probes (
    host_id     TEXT NOT NULL PRIMARY KEY,
    health      TEXT NOT NULL CHECK (health IN ('up', 'down')),
    since       BIGINT NOT NULL,
    checked_at  BIGINT NOT NULL,
    latency_ms  BIGINT,
    reason      TEXT
);

-- keys: private halves are sealed ----------------------------------------------------------------------------
CREATE TABLE keys (
    id          TEXT NOT NULL PRIMARY KEY,
    purpose     TEXT NOT NULL CHECK (purpose IN ('host_signing', 'plc_rotation', 'internal')),
    subject     TEXT NOT NULL,                         -- the host it signs for; '' otherwise
    public      TEXT NOT NULL,                         -- did:key; '' for symmetric keys
    sealed      TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('current', 'previous', 'retired')),
    created_at  BIGINT NOT NULL
);
CREATE UNIQUE INDEX keys_one_current ON keys (purpose, subject) WHERE state = 'current';

-- accounts ---------------------------------------------------------------------------------------------------
CREATE TABLE accounts (
    did                 TEXT NOT NULL PRIMARY KEY,
    handle              TEXT NOT NULL UNIQUE,          -- lower case
    next_handle         TEXT UNIQUE,                   -- being changed to; see renames
    email               TEXT,                          -- as typed
    email_key           TEXT UNIQUE,                   -- lower case, for uniqueness and look-up
    email_confirmed_at  BIGINT,
    password_hash       TEXT NOT NULL,
    host_id             TEXT NOT NULL,
    host_key            TEXT NOT NULL,                 -- did:key that the host signs with for this account
    state               TEXT NOT NULL CHECK (state IN ('creating', 'open')),
    deactivated_at      BIGINT,
    delete_after        BIGINT,
    taken_down_at       BIGINT,
    takedown_ref        TEXT,
    invites_disabled_at BIGINT,
    created_at          BIGINT NOT NULL
);
CREATE INDEX accounts_by_host ON accounts (host_id);

CREATE TABLE app_passwords (
    did         TEXT NOT NULL,
    name        TEXT NOT NULL,
    hash        TEXT NOT NULL,                         -- SHA-256 of DID and password; the password has 80 random bits
    privilege   TEXT NOT NULL CHECK (privilege IN ('plain', 'privileged')),
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (did, name)
);
CREATE UNIQUE INDEX app_passwords_by_hash ON app_passwords (did, hash);

CREATE TABLE invite_codes (
    code         TEXT NOT NULL PRIMARY KEY,
    uses         BIGINT NOT NULL,
    left_over    BIGINT NOT NULL CHECK (left_over >= 0),
    for_account  TEXT NOT NULL,                        -- DID it was made for, or 'admin'
    created_by   TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    disabled_at  BIGINT
);
CREATE INDEX invite_codes_by_account ON invite_codes (for_account);

CREATE TABLE invite_uses (
    code     TEXT NOT NULL,
    did      TEXT NOT NULL,
    used_at  BIGINT NOT NULL,
    PRIMARY KEY (code, did)
);
CREATE INDEX invite_uses_by_account ON invite_uses (did);

-- sessions ---------------------------------------------------------------------------------------------------
CREATE TABLE sessions (
    id            TEXT NOT NULL PRIMARY KEY,
    did           TEXT NOT NULL,
    scope         TEXT NOT NULL CHECK (scope IN ('com.atproto.access', 'com.atproto.appPass', 'com.atproto.appPassPrivileged')),
    app_password  TEXT,                                -- the name of the one it was opened with
    opened_at     BIGINT NOT NULL,
    touched_at    BIGINT NOT NULL,                     -- last refresh; written first, so that it locks the row
    expires_at    BIGINT NOT NULL,                     -- of its newest refresh token
    ended_at      BIGINT
);
CREATE INDEX sessions_by_did ON sessions (did);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- A refresh token is a signed JWT; here is only which ones of a session are still good.
CREATE TABLE refresh_tokens (
    session_id  TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,                       -- moved up to the end of the grace at first use
    used_at     BIGINT,
    PRIMARY KEY (session_id, generation)
);

-- signup: the createAccount saga, one row from intent to end -------------------------------------------------
CREATE TABLE signups (
    did          TEXT NOT NULL PRIMARY KEY,
    host_id      TEXT NOT NULL,
    host_key     TEXT NOT NULL,
    operation    TEXT NOT NULL,                        -- the signed genesis operation, JSON
    invite_code  TEXT,
    step         TEXT NOT NULL CHECK (step IN ('recorded', 'undoing')),
    attempts     BIGINT NOT NULL,
    last_error   TEXT,
    lease        TEXT,                                 -- who works on it
    lease_until  BIGINT NOT NULL,
    created_at   BIGINT NOT NULL
);
CREATE INDEX signups_by_lease ON signups (lease_until);

-- renames: handle changes, one row from intent to end --------------------------------------------------------
CREATE TABLE renames (
    did          TEXT NOT NULL PRIMARY KEY,
    handle       TEXT NOT NULL,
    step         TEXT NOT NULL CHECK (step IN ('recorded', 'published')),
    attempts     BIGINT NOT NULL,
    last_error   TEXT,
    lease        TEXT,
    lease_until  BIGINT NOT NULL,
    created_at   BIGINT NOT NULL
);

-- ground -----------------------------------------------------------------------------------------------------
CREATE TABLE rate_counters (
    bucket        TEXT NOT NULL,
    window_start  BIGINT NOT NULL,
    count         BIGINT NOT NULL,
    PRIMARY KEY (bucket, window_start)
);
CREATE INDEX rate_counters_by_window ON rate_counters (window_start);

CREATE TABLE audit (
    id       TEXT NOT NULL PRIMARY KEY,
    at       BIGINT NOT NULL,
    actor    TEXT NOT NULL,                            -- a DID, 'operator', 'host:<id>' or 'genkan'
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    detail   TEXT NOT NULL
);
CREATE INDEX audit_by_subject ON audit (subject, at);

-- What other processes must hear of within seconds: revocations, account and fleet changes.
CREATE TABLE changes (
    id       TEXT NOT NULL PRIMARY KEY,
    at       BIGINT NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN ('account', 'session', 'grant', 'fleet')),
    subject  TEXT NOT NULL
);
CREATE INDEX changes_by_time ON changes (at);
