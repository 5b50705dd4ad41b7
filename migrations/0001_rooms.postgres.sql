-- Lists travel as one JSON text on both databases.
CREATE FUNCTION json_each(list text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 20
    AS 'SELECT json_array_elements_text(list::json)';

-- A position is given inside COMMIT by a deferred trigger: whoever takes the counter row holds it for the
-- commit alone, a rollback gives the number back, so positions are gapless and in commit order.
CREATE VIEW next_position AS SELECT NULL::bigint AS next;

CREATE FUNCTION take_position() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE taken bigint;
BEGIN
    UPDATE stream SET pos = pos + 1 WHERE name = 'events' RETURNING pos INTO taken;
    -- The session remembers what its last transaction took; the writer reads it after the commit.
    IF coalesce(current_setting('voicechat.transaction', true), '') <> pg_current_xact_id()::text THEN
        PERFORM set_config('voicechat.transaction', pg_current_xact_id()::text, false);
        PERFORM set_config('voicechat.first', taken::text, false);
    END IF;
    PERFORM set_config('voicechat.last', taken::text, false);
    RETURN taken;
END $$;

CREATE TABLE timeline (
    event_nid  BIGINT PRIMARY KEY NOT NULL,
    pos        BIGINT UNIQUE,
    room_nid   BIGINT NOT NULL,
    flags      BIGINT NOT NULL,
    thread_nid BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    txn        TEXT
);
CREATE INDEX timeline_by_room ON timeline (room_nid, pos);
CREATE UNIQUE INDEX timeline_by_txn ON timeline (txn) WHERE txn IS NOT NULL;

CREATE FUNCTION timeline_position() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE taken bigint;
BEGIN
    taken := take_position();
    UPDATE timeline SET pos = taken WHERE event_nid = NEW.event_nid;
    IF NEW.flags & 1 = 1 THEN
        UPDATE state_changes SET pos = taken WHERE cause_nid = NEW.event_nid;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER timeline_position AFTER INSERT ON timeline
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION timeline_position();
