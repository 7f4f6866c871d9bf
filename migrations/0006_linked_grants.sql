-- keys: P-256 pairs for tokens of our own audience, and for Genkan as an OAuth client of other servers. Private halves are sealed.
CREATE TABLE web_keys (
    id           TEXT NOT NULL PRIMARY KEY,            -- the `kid`
    purpose      TEXT NOT NULL CHECK (purpose IN ('tokens', 'client')),
    serial       BIGINT NOT NULL,                      -- 1, 2, … for each purpose: who is first decides
    public       TEXT NOT NULL,                        -- did:key
    sealed       TEXT NOT NULL,
    usable_from  BIGINT NOT NULL,                      -- published at once, signs from then on
    retired_at   BIGINT,                               -- neither published nor believed any more
    created_at   BIGINT NOT NULL,
    UNIQUE (purpose, serial)
);

-- oauth: grants of accounts that live elsewhere, and clients that get plain Bearer tokens.
ALTER TABLE oauth_grants ADD COLUMN place TEXT NOT NULL DEFAULT 'home';     -- or 'link': the link has the grant's id
ALTER TABLE oauth_codes ADD COLUMN link TEXT;                               -- the link that waits for the code's use
ALTER TABLE oauth_clients ADD COLUMN bearer TEXT NOT NULL DEFAULT 'no';     -- 'yes': the operator registered it for Bearer tokens
