-- What people report, and the words of messages for searching.

CREATE TABLE reports (
    id           TEXT PRIMARY KEY NOT NULL,
    received_ms  BIGINT NOT NULL,
    reporter_nid BIGINT NOT NULL,
    room_id      TEXT,
    event_id     TEXT,
    user_id      TEXT,
    reason       TEXT NOT NULL
) /*clustered*/;
CREATE INDEX reports_by_time ON reports (received_ms, id);

-- Filled from the stream by whoever searches, up to search_progress.
CREATE TABLE search_texts (
    room_nid  BIGINT NOT NULL,
    event_nid BIGINT NOT NULL,
    pos       BIGINT NOT NULL,
    part      TEXT NOT NULL,
    words     TEXT NOT NULL,
    PRIMARY KEY (room_nid, event_nid)
) /*clustered*/;
CREATE TABLE search_progress (name TEXT PRIMARY KEY NOT NULL, pos BIGINT NOT NULL);
INSERT INTO search_progress (name, pos) VALUES ('stream', 0);
