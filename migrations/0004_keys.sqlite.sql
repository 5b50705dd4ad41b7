-- Each inserted row takes the next position.
CREATE TRIGGER to_device_outbound_position AFTER INSERT ON to_device_outbound BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
