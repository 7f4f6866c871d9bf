-- oauth: clients, authorization requests, codes, grants, and what must not be used twice.

-- What is known of clients. The documents are their own words; `standing` is the operator's.
CREATE TABLE oauth_clients (
    client_id   TEXT NOT NULL PRIMARY KEY,
    standing    TEXT NOT NULL CHECK (standing IN ('known', 'trusted', 'blocked')),
    document    TEXT,                                  -- the last good metadata document, JSON
    fetched_at  BIGINT,
    key_set     TEXT,                                  -- the last good key set at its jwks_uri, JSON
    keys_at     BIGINT,
    created_at  BIGINT NOT NULL
);

-- Pushed authorization requests, from the push until they are decided and a little longer.
CREATE TABLE oauth_requests (
    id          TEXT NOT NULL PRIMARY KEY,             -- the `req-…` of the request URI
    client_id   TEXT NOT NULL,
    pushed      TEXT NOT NULL,                         -- what the client asked for, and how it proved itself, JSON
    device      TEXT,                                  -- the browser that opened it first
    expires_at  BIGINT NOT NULL,
    decided_at  BIGINT
);
CREATE INDEX oauth_requests_by_expiry ON oauth_requests (expires_at);

-- A code stays as long as its grant, so that its second use is known for what it is.
CREATE TABLE oauth_codes (
    hash        TEXT NOT NULL PRIMARY KEY,
    client_id   TEXT NOT NULL,
    pushed      TEXT NOT NULL,                         -- of its request
    scope       TEXT NOT NULL,                         -- what was approved
    did         TEXT NOT NULL,
    device      TEXT NOT NULL,
    expires_at  BIGINT NOT NULL,
    used_at     BIGINT,
    grant_id    TEXT
);
CREATE INDEX oauth_codes_by_expiry ON oauth_codes (expires_at);
CREATE INDEX oauth_codes_by_grant ON oauth_codes (grant_id);

-- Refresh tokens are not stored: each is derived from a sealed key, the grant and a generation.
CREATE TABLE oauth_grants (
    id           TEXT NOT NULL PRIMARY KEY,
    did          TEXT NOT NULL,
    client_id    TEXT NOT NULL,
    scope        TEXT NOT NULL,                        -- as approved, permission sets not expanded
    dpop_key     TEXT NOT NULL,                        -- thumbprint of the key that its tokens are bound to
    client_auth  TEXT NOT NULL,                        -- how the client proves itself, JSON
    device       TEXT NOT NULL,                        -- the browser it was given in
    refreshable  TEXT NOT NULL CHECK (refreshable IN ('yes', 'no')),
    generation   BIGINT NOT NULL,                      -- of the refresh token that is good
    rotated_at   BIGINT NOT NULL,                      -- when its predecessor was used
    rotated_before_at BIGINT NOT NULL,                 -- when that one's predecessor was
    idle_until   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    ended_at     BIGINT
);
CREATE INDEX oauth_grants_by_did ON oauth_grants (did);
CREATE INDEX oauth_grants_by_client ON oauth_grants (client_id);
CREATE INDEX oauth_grants_by_idle ON oauth_grants (idle_until);

-- What an account ever granted to a client, so that it is not asked for again as if it were new.
CREATE TABLE oauth_consents (
    did         TEXT NOT NULL,
    client_id   TEXT NOT NULL,
    scope       TEXT NOT NULL,
    updated_at  BIGINT NOT NULL,
    PRIMARY KEY (did, client_id)
);

-- Hashes of proofs, client assertions and code challenges that were used. The unique key decides who was first.
CREATE TABLE oauth_seen (
    hash        TEXT NOT NULL PRIMARY KEY,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX oauth_seen_by_expiry ON oauth_seen (expires_at);

-- Scopes too long for a token, by their content: a reference never changes its meaning.
CREATE TABLE oauth_scopes (
    id       TEXT NOT NULL PRIMARY KEY,
    scope    TEXT NOT NULL,
    used_at  BIGINT NOT NULL
);

-- Permission sets as last resolved and verified.
CREATE TABLE permission_sets (
    nsid         TEXT NOT NULL PRIMARY KEY,
    document     TEXT,                                 -- the last good one, JSON; NULL while there never was one
    verified_at  BIGINT,
    checked_at   BIGINT NOT NULL,                      -- the last attempt, good or not
    problem      TEXT                                  -- why that attempt failed
);
