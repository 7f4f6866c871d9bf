-- mail: written with its cause, handed over by a chore ---------------------------------------------------------
CREATE TABLE outbox (
    id          TEXT NOT NULL PRIMARY KEY,             -- of the Message-ID too
    did         TEXT NOT NULL,                         -- whom it is for
    kind        TEXT NOT NULL,                         -- what it is about; one code of a kind waits per account
    sealed      TEXT NOT NULL,                         -- address and text: they hold codes; '' once given up
    state       TEXT NOT NULL CHECK (state IN ('waiting', 'given_up')),
    attempts    BIGINT NOT NULL,
    last_error  TEXT,
    due_at      BIGINT NOT NULL,                       -- next attempt; moved ahead by whoever takes it, as a lease
    expires_at  BIGINT NOT NULL,                       -- not worth sending afterwards
    created_at  BIGINT NOT NULL
);
CREATE INDEX outbox_by_due ON outbox (state, due_at);
CREATE INDEX outbox_by_account ON outbox (did, kind);

-- codes sent by mail: one per account and purpose --------------------------------------------------------------
CREATE TABLE email_tokens (
    did         TEXT NOT NULL,
    purpose     TEXT NOT NULL CHECK (purpose IN ('confirm_email', 'update_email', 'reset_password', 'delete_account', 'plc_operation')),
    hash        TEXT NOT NULL,                         -- keyed, with a key that is not in the database in the open
    tries       BIGINT NOT NULL,                       -- attempts to use it
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (did, purpose)
);
CREATE INDEX email_tokens_by_hash ON email_tokens (hash);
CREATE INDEX email_tokens_by_expiry ON email_tokens (expires_at);
