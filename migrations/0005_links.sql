-- links: sessions of accounts elsewhere, held for apps; and how they are begun and ended.

-- Sign-ins that wait for a browser to come back from another server. Each is used once.
CREATE TABLE link_logins (
    state       TEXT NOT NULL PRIMARY KEY,             -- hash of the `state` on its way
    sealed      TEXT NOT NULL,                         -- DPoP key and PKCE verifier
    server      TEXT NOT NULL,                         -- issuer and endpoints, JSON
    did         TEXT,                                  -- who is expected, if that is known
    client_id   TEXT NOT NULL,
    client_key  TEXT,                                  -- which of our keys spoke
    request     TEXT,                                  -- the authorization request that waits; none for the account pages
    back        TEXT NOT NULL,                         -- the page that goes on
    device      TEXT NOT NULL,
    browser     TEXT NOT NULL,                         -- hash of the browser's cookie
    expires_at  BIGINT NOT NULL
);
CREATE INDEX link_logins_by_expiry ON link_logins (expires_at);

-- One session at another server. A link's id is its grant's.
CREATE TABLE links (
    id              TEXT NOT NULL PRIMARY KEY,
    did             TEXT NOT NULL,
    handle          TEXT,                              -- as it was confirmed at the sign-in
    pds             TEXT NOT NULL,                     -- origin, verified at the sign-in and at each refresh
    server          TEXT NOT NULL,                     -- issuer and endpoints, JSON
    client_id       TEXT NOT NULL,
    client_key      TEXT,
    scope           TEXT NOT NULL,                     -- as granted
    state           TEXT NOT NULL CHECK (state IN ('waiting', 'live', 'ending', 'dead')),
    sealed          TEXT,                              -- tokens and DPoP key of this version; erased at the end
    version         BIGINT NOT NULL,
    issued_at       BIGINT NOT NULL,                   -- of the access token
    expires_at      BIGINT,                            -- of the access token, if its server said so
    lease           TEXT,                              -- who refreshes, or revokes
    lease_until     BIGINT NOT NULL,
    sending_since   BIGINT,                            -- the refresh token left the house, and no answer was written down
    unanswered      BIGINT NOT NULL,                   -- how often that happened to this version
    request         TEXT,                              -- of its login
    device          TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    used_at         BIGINT NOT NULL,
    ended_at        BIGINT,
    reason          TEXT,                              -- why it ended
    revoke_at       BIGINT,                            -- when its server is told next
    revoke_attempts BIGINT NOT NULL
);
CREATE INDEX links_by_did ON links (did);
CREATE INDEX links_by_request ON links (request);
CREATE INDEX links_by_state ON links (state, id);
CREATE INDEX links_by_issue ON links (state, issued_at);
CREATE INDEX links_by_end ON links (ended_at);
CREATE INDEX links_by_revoke ON links (revoke_at);

-- Sets of scopes beyond our stable client document: each has a document of its own, by the hash of its scope.
CREATE TABLE link_clients (
    hash     TEXT NOT NULL PRIMARY KEY,
    scope    TEXT NOT NULL,
    used_at  BIGINT NOT NULL
);

-- Linked people who signed in to look after their sessions.
CREATE TABLE link_visits (
    device      TEXT NOT NULL,
    did         TEXT NOT NULL,
    handle      TEXT,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (device, did)
);
CREATE INDEX link_visits_by_expiry ON link_visits (expires_at);

-- One more kind of change to be heard of.
CREATE TABLE changes_of_all_kinds (
    id       TEXT NOT NULL PRIMARY KEY,
    at       BIGINT NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN ('account', 'session', 'grant', 'link', 'fleet')),
    subject  TEXT NOT NULL
);
INSERT INTO changes_of_all_kinds (id, at, kind, subject) SELECT id, at, kind, subject FROM changes;
DROP TABLE changes;
ALTER TABLE changes_of_all_kinds RENAME TO changes;
CREATE INDEX changes_by_time ON changes (at);
