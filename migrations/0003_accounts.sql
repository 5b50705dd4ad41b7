-- Accounts of this server's own users, what proves who they are, and their profiles.
-- Tokens are kept as SHA-256 in hexadecimal: whoever reads the database cannot use them.

CREATE TABLE accounts (
    user_nid       BIGINT PRIMARY KEY NOT NULL,
    password       TEXT,
    created_ms     BIGINT NOT NULL,
    deactivated_ms BIGINT,
    is_erased      BOOLEAN NOT NULL,
    is_admin       BOOLEAN NOT NULL,
    is_locked      BOOLEAN NOT NULL,
    is_suspended   BOOLEAN NOT NULL,
    is_guest       BOOLEAN NOT NULL,
    appservice     TEXT
);

CREATE TABLE devices (
    user_nid        BIGINT NOT NULL,
    device_id       TEXT NOT NULL,
    display_name    TEXT,
    created_ms      BIGINT NOT NULL,
    last_seen_ms    BIGINT,
    last_seen_ip    TEXT,
    last_seen_agent TEXT,
    PRIMARY KEY (user_nid, device_id)
) /*clustered*/;

CREATE TABLE tokens (
    hash       TEXT PRIMARY KEY NOT NULL,
    user_nid   BIGINT NOT NULL,
    device_id  TEXT,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    replaces   TEXT
) /*clustered*/;
CREATE INDEX tokens_by_device ON tokens (user_nid, device_id);
CREATE INDEX tokens_by_expiry ON tokens (expires_ms);

CREATE TABLE refresh_tokens (
    hash        TEXT PRIMARY KEY NOT NULL,
    family      TEXT NOT NULL,
    parent      TEXT,
    user_nid    BIGINT NOT NULL,
    device_id   TEXT NOT NULL,
    access_hash TEXT NOT NULL,
    is_retired  BOOLEAN NOT NULL,
    expires_ms  BIGINT NOT NULL
) /*clustered*/;
CREATE INDEX refresh_tokens_by_device ON refresh_tokens (user_nid, device_id);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_by_parent ON refresh_tokens (parent);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_ms);

-- Good for one use within a short time: `login` (m.login.token), `openid`, `nonce` (shared-secret registration).
CREATE TABLE short_tokens (
    kind       TEXT NOT NULL,
    hash       TEXT NOT NULL,
    user_nid   BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    PRIMARY KEY (kind, hash)
) /*clustered*/;
CREATE INDEX short_tokens_by_expiry ON short_tokens (expires_ms);
CREATE INDEX short_tokens_by_user ON short_tokens (user_nid);

CREATE TABLE registration_tokens (
    token        TEXT PRIMARY KEY NOT NULL,
    uses_allowed BIGINT,
    pending      BIGINT NOT NULL,
    completed    BIGINT NOT NULL,
    expires_ms   BIGINT
);

CREATE TABLE uia_sessions (
    id                 TEXT PRIMARY KEY NOT NULL,
    operation          TEXT NOT NULL,
    completed          TEXT NOT NULL,
    registration_token TEXT,
    expires_ms         BIGINT NOT NULL
);
CREATE INDEX uia_sessions_by_expiry ON uia_sessions (expires_ms);

CREATE TABLE profile_fields (
    user_nid BIGINT NOT NULL,
    field    TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (user_nid, field)
) /*clustered*/;

-- Keys the server made for itself, the same for all its instances.
CREATE TABLE server_secrets (name TEXT PRIMARY KEY NOT NULL, value BYTEA NOT NULL);
