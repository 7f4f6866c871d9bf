-- signin: browsers and who is signed in to them. Of the cookies there are hashes only.
CREATE TABLE devices (
    id          TEXT NOT NULL PRIMARY KEY,             -- SHA-256 of the cookie that stays
    session     TEXT NOT NULL,                         -- SHA-256 of the cookie that rotates
    previous    TEXT,                                  -- of the one before it
    rotated_at  BIGINT NOT NULL,
    address     TEXT NOT NULL,                         -- as last seen, for its owner to recognise it
    user_agent  TEXT NOT NULL,
    seen_at     BIGINT NOT NULL,                       -- to the minute
    created_at  BIGINT NOT NULL
);
CREATE INDEX devices_by_seen ON devices (seen_at);

CREATE TABLE device_accounts (
    device      TEXT NOT NULL,
    did         TEXT NOT NULL,
    request     TEXT NOT NULL,                         -- '': remembered; else the one authorization request it is good for
    entered_at  BIGINT NOT NULL,                       -- when the password was typed
    PRIMARY KEY (device, did, request)
);
CREATE INDEX device_accounts_by_did ON device_accounts (did);
