-- Each inserted or moved row takes the next position.
CREATE TRIGGER receipts_position AFTER INSERT ON receipts BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
CREATE TRIGGER receipts_moved AFTER UPDATE OF pos ON receipts BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
CREATE TRIGGER account_data_position AFTER INSERT ON account_data BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
CREATE TRIGGER account_data_moved AFTER UPDATE OF pos ON account_data BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
CREATE TRIGGER to_device_position AFTER INSERT ON to_device BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
CREATE TRIGGER device_changes_position AFTER INSERT ON device_changes BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
CREATE TRIGGER invitations_position AFTER INSERT ON invitations BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
CREATE TRIGGER invitations_moved AFTER UPDATE OF pos ON invitations BEGIN UPDATE stream SET pos = NEW.pos WHERE name = 'events'; END;
