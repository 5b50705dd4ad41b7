-- Rooms that application services list for their networks, and notifications that a redaction took back.

CREATE TABLE network_rooms (
    instance TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    PRIMARY KEY (instance, room_nid)
) /*clustered*/;
CREATE INDEX network_rooms_by_room ON network_rooms (room_nid);

-- The place among its lane's notifications of each redacted event that notified by default.
CREATE TABLE retractions (
    room_nid   BIGINT NOT NULL,
    thread_nid BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    PRIMARY KEY (room_nid, thread_nid, seq)
) /*clustered*/;
