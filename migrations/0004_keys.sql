-- Public keys of devices and users, key backups, messages from device to device, filters.
-- What each table means stands in the module of homeserver/storage that names it.

-- Local devices, and those of other servers' users who share a room with ours; display_name is filled for the latter alone.
CREATE TABLE device_keys (
    user_nid     BIGINT NOT NULL,
    device_id    TEXT NOT NULL,
    body         TEXT NOT NULL,
    display_name TEXT,
    PRIMARY KEY (user_nid, device_id)
) /*clustered*/;
CREATE TABLE remote_device_lists (
    user_nid  BIGINT PRIMARY KEY NOT NULL,
    stream_id BIGINT,
    is_stale  BOOLEAN NOT NULL,
    ver       BIGINT NOT NULL
);

CREATE TABLE one_time_keys (
    nid         BIGINT PRIMARY KEY NOT NULL,
    user_nid    BIGINT NOT NULL,
    device_id   TEXT NOT NULL,
    algorithm   TEXT NOT NULL,
    key_id      TEXT NOT NULL,
    seq         BIGINT NOT NULL,
    body        TEXT NOT NULL,
    claimed_day BIGINT
);
CREATE UNIQUE INDEX one_time_keys_by_id ON one_time_keys (user_nid, device_id, algorithm, key_id);
CREATE INDEX one_time_keys_in_order ON one_time_keys (user_nid, device_id, algorithm, seq, nid) WHERE claimed_day IS NULL;
CREATE INDEX one_time_keys_claimed ON one_time_keys (claimed_day) WHERE claimed_day IS NOT NULL;
CREATE TABLE fallback_keys (
    user_nid  BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id    TEXT NOT NULL,
    body      TEXT NOT NULL,
    is_used   BOOLEAN NOT NULL,
    PRIMARY KEY (user_nid, device_id, algorithm)
) /*clustered*/;

CREATE TABLE cross_signing_keys (
    user_nid   BIGINT NOT NULL,
    usage      TEXT NOT NULL,
    public_key TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (user_nid, usage)
) /*clustered*/;
-- target is a device id or a public cross-signing key of the user.
CREATE TABLE key_signatures (
    user_nid   BIGINT NOT NULL,
    target     TEXT NOT NULL,
    signer_nid BIGINT NOT NULL,
    key_id     TEXT NOT NULL,
    signature  TEXT NOT NULL,
    PRIMARY KEY (user_nid, target, signer_nid, key_id)
) /*clustered*/;

CREATE TABLE key_backup_versions (
    user_nid   BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    algorithm  TEXT NOT NULL,
    auth_data  TEXT NOT NULL,
    etag       BIGINT NOT NULL,
    count      BIGINT NOT NULL,
    is_deleted BOOLEAN NOT NULL,
    PRIMARY KEY (user_nid, version)
) /*clustered*/;
CREATE TABLE key_backups (
    user_nid            BIGINT NOT NULL,
    version             BIGINT NOT NULL,
    room_id             TEXT NOT NULL,
    session_id          TEXT NOT NULL,
    first_message_index BIGINT NOT NULL,
    forwarded_count     BIGINT NOT NULL,
    is_verified         BOOLEAN NOT NULL,
    body                TEXT NOT NULL,
    PRIMARY KEY (user_nid, version, room_id, session_id)
) /*clustered*/;

CREATE TABLE dehydrated_devices (
    user_nid  BIGINT PRIMARY KEY NOT NULL,
    device_id TEXT NOT NULL,
    body      TEXT NOT NULL
);

-- Which device changed ('' when the user's own keys did), and who alone may see it (0: everybody who shares a room).
ALTER TABLE device_changes ADD COLUMN device_id TEXT NOT NULL DEFAULT '';
ALTER TABLE device_changes ADD COLUMN viewer_nid BIGINT NOT NULL DEFAULT 0;
CREATE INDEX device_changes_of_user ON device_changes (user_nid, pos);
DROP INDEX device_changes_by_user;

-- Messages received before, so that a repeated request delivers nothing twice; swept by day.
CREATE TABLE to_device_seen (
    origin     TEXT NOT NULL,
    message_id TEXT NOT NULL,
    day        BIGINT NOT NULL,
    PRIMARY KEY (origin, message_id)
) /*clustered*/;
CREATE INDEX to_device_seen_by_day ON to_device_seen (day);
-- Messages to devices of other servers' users that wait for delivery, in order of position.
CREATE TABLE to_device_outbound (
    nid        BIGINT PRIMARY KEY NOT NULL,
    server_nid BIGINT NOT NULL,
    body       TEXT NOT NULL,
    pos        BIGINT
);
CREATE INDEX to_device_outbound_by_server ON to_device_outbound (server_nid, pos);

CREATE TABLE filters (
    user_nid  BIGINT NOT NULL,
    filter_id TEXT NOT NULL,
    body      TEXT NOT NULL,
    PRIMARY KEY (user_nid, filter_id)
) /*clustered*/;
