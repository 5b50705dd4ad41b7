-- What changes for one user or one room outside the timeline; all share the one counter.

CREATE TABLE receipts (
    room_nid   BIGINT NOT NULL,
    user_nid   BIGINT NOT NULL,
    kind       TEXT NOT NULL,
    thread     TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    ts         BIGINT NOT NULL,
    pos        BIGINT,
    PRIMARY KEY (room_nid, user_nid, kind, thread)
) /*clustered*/;
CREATE INDEX receipts_by_pos ON receipts (room_nid, pos);

-- room_nid 0 is the user's global account data; kind is the event type.
CREATE TABLE account_data (
    user_nid BIGINT NOT NULL,
    room_nid BIGINT NOT NULL,
    kind     TEXT NOT NULL,
    body     TEXT NOT NULL,
    pos      BIGINT,
    PRIMARY KEY (user_nid, room_nid, kind)
) /*clustered*/;
CREATE INDEX account_data_by_pos ON account_data (user_nid, pos);

CREATE TABLE to_device (
    nid       BIGINT PRIMARY KEY NOT NULL,
    user_nid  BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    body      TEXT NOT NULL,
    pos       BIGINT
);
CREATE INDEX to_device_by_device ON to_device (user_nid, device_id, pos);

-- One row for each change of a user's devices or keys, never one for each room.
CREATE TABLE device_changes (
    nid      BIGINT PRIMARY KEY NOT NULL,
    user_nid BIGINT NOT NULL,
    pos      BIGINT
);
CREATE INDEX device_changes_by_pos ON device_changes (pos);
CREATE INDEX device_changes_by_user ON device_changes (user_nid);

-- Invitations and knocks of local users, with the stripped state they were made with.
CREATE TABLE invitations (
    user_nid   BIGINT NOT NULL,
    room_nid   BIGINT NOT NULL,
    room_id    TEXT NOT NULL,
    membership TEXT NOT NULL,
    sender     TEXT NOT NULL,
    event      TEXT NOT NULL,
    state      TEXT NOT NULL,
    pos        BIGINT,
    PRIMARY KEY (user_nid, room_nid)
) /*clustered*/;
CREATE INDEX invitations_by_pos ON invitations (user_nid, pos);

-- An instance that missed news asks by position alone.
CREATE INDEX receipts_by_pos_alone ON receipts (pos);
CREATE INDEX account_data_by_pos_alone ON account_data (pos);
CREATE INDEX to_device_by_pos_alone ON to_device (pos);
CREATE INDEX invitations_by_pos_alone ON invitations (pos);
