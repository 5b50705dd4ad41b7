-- Other servers: keys, what we know of reaching them, what waits to leave, what has come in and waits to be judged.
-- What each table means stands in the module of homeserver/storage that names it.

CREATE TABLE signing_keys (
    version    TEXT PRIMARY KEY NOT NULL,
    document   BYTEA NOT NULL,
    slot       BIGINT UNIQUE,
    expired_at BIGINT
);
CREATE TABLE server_keys (
    server      TEXT NOT NULL,
    key_id      TEXT NOT NULL,
    public      TEXT NOT NULL,
    valid_until BIGINT NOT NULL,
    expired_at  BIGINT,
    PRIMARY KEY (server, key_id)
) /*clustered*/;
CREATE TABLE server_key_answers (
    server      TEXT PRIMARY KEY NOT NULL,
    body        TEXT NOT NULL,
    fetched_at  BIGINT NOT NULL,
    valid_until BIGINT NOT NULL
);

CREATE TABLE destinations (
    server      TEXT PRIMARY KEY NOT NULL,
    retry_at    BIGINT NOT NULL,
    fails       BIGINT NOT NULL,
    last_ok     BIGINT NOT NULL,
    out_pos     BIGINT NOT NULL,
    device_pos  BIGINT NOT NULL
);
CREATE TABLE delivery_leases (
    share BIGINT PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,
    until BIGINT NOT NULL
);
CREATE TABLE destination_rooms (
    server   TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    pos      BIGINT NOT NULL,
    PRIMARY KEY (server, room_nid)
) /*clustered*/;

CREATE TABLE incoming_transactions (
    origin TEXT NOT NULL,
    txn    TEXT NOT NULL,
    at     BIGINT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (origin, txn)
) /*clustered*/;
CREATE INDEX incoming_transactions_by_time ON incoming_transactions (at);
CREATE TABLE incoming_events (
    room_id  TEXT NOT NULL,
    event_id TEXT NOT NULL,
    origin   TEXT NOT NULL,
    at       BIGINT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (room_id, event_id)
) /*clustered*/;
CREATE INDEX incoming_events_by_time ON incoming_events (room_id, at);
