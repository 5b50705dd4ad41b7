-- Media: what a mxc:// URI names, the encrypted blobs behind, and thumbnails made of them.

CREATE TABLE media (
    server         TEXT NOT NULL,
    media_id       TEXT NOT NULL,
    user_nid       BIGINT,
    blob           TEXT,
    content_type   TEXT,
    filename       TEXT,
    bytes          BIGINT NOT NULL,
    created_ts     BIGINT NOT NULL,
    expires_ts     BIGINT,
    last_access_ts BIGINT NOT NULL,
    needs_token    BOOLEAN NOT NULL,
    quarantined    BOOLEAN NOT NULL,
    PRIMARY KEY (server, media_id)
) /*clustered*/;
CREATE INDEX media_by_blob ON media (blob);
CREATE INDEX media_by_user ON media (user_nid, created_ts);
CREATE INDEX media_by_access ON media (last_access_ts);

CREATE TABLE blobs (
    hash        TEXT PRIMARY KEY NOT NULL,
    location    TEXT NOT NULL,
    bytes       BIGINT NOT NULL,
    wrapped_key BYTEA NOT NULL,
    created_ts  BIGINT NOT NULL
);

CREATE TABLE thumbnails (
    blob         TEXT NOT NULL,
    width        BIGINT NOT NULL,
    height       BIGINT NOT NULL,
    method       TEXT NOT NULL,
    animated     BOOLEAN NOT NULL,
    thumb_blob   TEXT NOT NULL,
    content_type TEXT NOT NULL,
    PRIMARY KEY (blob, width, height, method, animated)
) /*clustered*/;
CREATE INDEX thumbnails_by_thumb ON thumbnails (thumb_blob);
