-- Each inserted row takes a position inside COMMIT; see 0001_rooms.postgres.sql.

CREATE FUNCTION to_device_outbound_position() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM to_device_outbound WHERE nid = NEW.nid AND pos IS NULL;
    IF FOUND THEN
        UPDATE to_device_outbound SET pos = take_position() WHERE nid = NEW.nid;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER to_device_outbound_position AFTER INSERT OR UPDATE ON to_device_outbound
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.pos IS NULL) EXECUTE FUNCTION to_device_outbound_position();
