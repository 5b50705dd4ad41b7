-- SQLite has one writer, so a position is simply the next number, and a trigger keeps the counter.
CREATE VIEW next_position AS SELECT pos + 1 AS next FROM stream WHERE name = 'events';

CREATE TABLE timeline (
    pos        INTEGER PRIMARY KEY NOT NULL,
    room_nid   BIGINT NOT NULL,
    event_nid  BIGINT NOT NULL,
    flags      BIGINT NOT NULL,
    thread_nid BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    txn        TEXT
);
CREATE INDEX timeline_by_room ON timeline (room_nid, pos);
CREATE UNIQUE INDEX timeline_by_event ON timeline (event_nid);
CREATE UNIQUE INDEX timeline_by_txn ON timeline (txn) WHERE txn IS NOT NULL;

CREATE TRIGGER timeline_position AFTER INSERT ON timeline BEGIN
    UPDATE stream SET pos = NEW.pos WHERE name = 'events';
    UPDATE state_changes SET pos = NEW.pos WHERE NEW.flags & 1 = 1 AND cause_nid = NEW.event_nid;
END;
