-- Rooms: interned names, the event graph, state, and the stream every client reads.
-- What each table means stands in the module of homeserver/storage that names it.

CREATE TABLE counters (name TEXT PRIMARY KEY NOT NULL, value BIGINT NOT NULL);
CREATE TABLE stream (name TEXT PRIMARY KEY NOT NULL, pos BIGINT NOT NULL);
INSERT INTO stream (name, pos) VALUES ('events', 0);

CREATE TABLE servers (nid BIGINT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE);
CREATE TABLE users (
    nid        BIGINT PRIMARY KEY NOT NULL,
    user_id    TEXT NOT NULL UNIQUE,
    server_nid BIGINT NOT NULL,
    is_local   BOOLEAN NOT NULL
);
CREATE TABLE state_keys (
    nid       BIGINT PRIMARY KEY NOT NULL,
    kind      TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (kind, state_key)
);

CREATE TABLE rooms (
    nid        BIGINT PRIMARY KEY NOT NULL,
    room_id    TEXT NOT NULL UNIQUE,
    version    TEXT NOT NULL,
    head_ver   BIGINT NOT NULL,
    heads      TEXT NOT NULL,
    state_nid  BIGINT NOT NULL,
    depth      BIGINT NOT NULL,
    notify_seq BIGINT NOT NULL,
    is_partial BOOLEAN NOT NULL
);
CREATE TABLE room_facts (
    room_nid           BIGINT PRIMARY KEY NOT NULL,
    kind               TEXT,
    creator            TEXT,
    name               TEXT,
    topic              TEXT,
    avatar_url         TEXT,
    canonical_alias    TEXT,
    join_rule          TEXT,
    allowed_rooms      TEXT,
    guest_access       TEXT,
    history_visibility TEXT,
    encryption         TEXT,
    successor          TEXT,
    joined_count       BIGINT NOT NULL,
    invited_count      BIGINT NOT NULL,
    is_public          BOOLEAN NOT NULL
);
CREATE INDEX room_facts_public ON room_facts (joined_count) WHERE is_public;

CREATE TABLE events (
    nid             BIGINT PRIMARY KEY NOT NULL,
    event_id        TEXT NOT NULL UNIQUE,
    room_nid        BIGINT NOT NULL,
    depth           BIGINT NOT NULL,
    flags           BIGINT NOT NULL,
    visible         BOOLEAN NOT NULL,
    sender_nid      BIGINT NOT NULL,
    state_key_nid   BIGINT,
    ts              BIGINT NOT NULL,
    state_nid       BIGINT,
    state_after_nid BIGINT,
    auth            BYTEA NOT NULL,
    codec           BIGINT NOT NULL,
    body            BYTEA NOT NULL
);
CREATE INDEX events_by_depth ON events (room_nid, depth, nid) WHERE visible;
-- Events another event names as its predecessor and we do not have: where history can be asked for.
CREATE TABLE missing_events (
    room_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    child_nid BIGINT NOT NULL,
    depth    BIGINT NOT NULL,
    PRIMARY KEY (room_nid, event_id, child_nid)
) /*clustered*/;

CREATE TABLE states (
    nid        BIGINT PRIMARY KEY NOT NULL,
    room_nid   BIGINT NOT NULL,
    parent_nid BIGINT,
    layer      BYTEA NOT NULL
);
CREATE TABLE state_changes (
    cause_nid      BIGINT NOT NULL,
    room_nid       BIGINT NOT NULL,
    state_key_nid  BIGINT NOT NULL,
    event_nid      BIGINT,
    prev_event_nid BIGINT,
    pos            BIGINT,
    PRIMARY KEY (cause_nid, state_key_nid)
) /*clustered*/;
CREATE INDEX state_changes_by_room ON state_changes (room_nid, pos);
CREATE INDEX state_changes_by_key ON state_changes (state_key_nid, pos);

CREATE TABLE members (
    room_nid   BIGINT NOT NULL,
    user_nid   BIGINT NOT NULL,
    membership TEXT NOT NULL,
    event_nid  BIGINT NOT NULL,
    forgotten  BOOLEAN NOT NULL,
    PRIMARY KEY (room_nid, user_nid)
) /*clustered*/;
CREATE INDEX members_by_user ON members (user_nid, membership);

CREATE TABLE relations (
    parent_id  TEXT NOT NULL,
    child_nid  BIGINT NOT NULL,
    room_nid   BIGINT NOT NULL,
    rel_type   TEXT NOT NULL,
    kind       TEXT NOT NULL,
    sender_nid BIGINT NOT NULL,
    key        TEXT,
    PRIMARY KEY (parent_id, child_nid)
) /*clustered*/;
CREATE INDEX relations_by_child ON relations (child_nid);
CREATE TABLE threads (
    root_nid   BIGINT PRIMARY KEY NOT NULL,
    room_nid   BIGINT NOT NULL,
    last_nid   BIGINT NOT NULL,
    last_depth BIGINT NOT NULL,
    count      BIGINT NOT NULL,
    notify_seq BIGINT NOT NULL
);
CREATE INDEX threads_by_room ON threads (room_nid, last_depth, last_nid);

CREATE TABLE read_marks (
    user_nid   BIGINT NOT NULL,
    room_nid   BIGINT NOT NULL,
    thread_nid BIGINT NOT NULL,
    event_nid  BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    PRIMARY KEY (user_nid, room_nid, thread_nid)
) /*clustered*/;
CREATE TABLE push_items (
    user_nid   BIGINT NOT NULL,
    room_nid   BIGINT NOT NULL,
    event_nid  BIGINT NOT NULL,
    thread_nid BIGINT NOT NULL,
    notify     BIGINT NOT NULL,
    highlight  BOOLEAN NOT NULL,
    actions    TEXT NOT NULL,
    PRIMARY KEY (user_nid, room_nid, event_nid)
) /*clustered*/;

CREATE TABLE aliases (
    alias    TEXT PRIMARY KEY NOT NULL,
    room_id  TEXT NOT NULL,
    creator  TEXT NOT NULL
);
CREATE INDEX aliases_by_room ON aliases (room_id);
-- The state events of a room with what vouches for them: its auth graph.
CREATE INDEX events_state ON events (room_nid) WHERE state_key_nid IS NOT NULL;
