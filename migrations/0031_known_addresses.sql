-- signin: the addresses from which an account was signed in to lately. They have an allowance of their own when
-- somebody guesses the account's password from elsewhere.
CREATE TABLE IF NOT EXISTS known_addresses (
    did      TEXT NOT NULL,
    address  TEXT NOT NULL,                            -- keyed hash of the network
    seen_at  BIGINT NOT NULL,                          -- to the day
    PRIMARY KEY (did, address)
);
