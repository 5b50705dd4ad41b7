-- Each inserted or moved row takes a position inside COMMIT; see 0001_rooms.postgres.sql.

CREATE FUNCTION receipts_position() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM receipts WHERE room_nid = NEW.room_nid AND user_nid = NEW.user_nid AND kind = NEW.kind AND thread = NEW.thread AND pos IS NULL;
    IF FOUND THEN
        UPDATE receipts SET pos = take_position() WHERE room_nid = NEW.room_nid AND user_nid = NEW.user_nid AND kind = NEW.kind AND thread = NEW.thread;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER receipts_position AFTER INSERT OR UPDATE ON receipts
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.pos IS NULL) EXECUTE FUNCTION receipts_position();

CREATE FUNCTION account_data_position() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM account_data WHERE user_nid = NEW.user_nid AND room_nid = NEW.room_nid AND kind = NEW.kind AND pos IS NULL;
    IF FOUND THEN
        UPDATE account_data SET pos = take_position() WHERE user_nid = NEW.user_nid AND room_nid = NEW.room_nid AND kind = NEW.kind;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER account_data_position AFTER INSERT OR UPDATE ON account_data
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.pos IS NULL) EXECUTE FUNCTION account_data_position();

CREATE FUNCTION to_device_position() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM to_device WHERE nid = NEW.nid AND pos IS NULL;
    IF FOUND THEN
        UPDATE to_device SET pos = take_position() WHERE nid = NEW.nid;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER to_device_position AFTER INSERT OR UPDATE ON to_device
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.pos IS NULL) EXECUTE FUNCTION to_device_position();

CREATE FUNCTION device_changes_position() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM device_changes WHERE nid = NEW.nid AND pos IS NULL;
    IF FOUND THEN
        UPDATE device_changes SET pos = take_position() WHERE nid = NEW.nid;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER device_changes_position AFTER INSERT OR UPDATE ON device_changes
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.pos IS NULL) EXECUTE FUNCTION device_changes_position();

CREATE FUNCTION invitations_position() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM invitations WHERE user_nid = NEW.user_nid AND room_nid = NEW.room_nid AND pos IS NULL;
    IF FOUND THEN
        UPDATE invitations SET pos = take_position() WHERE user_nid = NEW.user_nid AND room_nid = NEW.room_nid;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER invitations_position AFTER INSERT OR UPDATE ON invitations
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.pos IS NULL) EXECUTE FUNCTION invitations_position();
