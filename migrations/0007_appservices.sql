-- How far each application service has been told what happens, and the link that makes the first administrator.
-- What each table means stands in the module of homeserver/storage that names it.

CREATE TABLE appservice_cursors (
    appservice_id TEXT PRIMARY KEY NOT NULL,
    pos           BIGINT NOT NULL,
    until         BIGINT,
    txn           BIGINT NOT NULL,
    lease_owner   TEXT,
    lease_until   BIGINT NOT NULL
);

CREATE TABLE welcome (
    nid     BIGINT PRIMARY KEY NOT NULL,
    token   TEXT NOT NULL,
    used_at BIGINT
);
