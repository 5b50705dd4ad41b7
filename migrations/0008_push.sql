-- Where notifications go. Rules stand in account_data, what is unread in read_marks and push_items.

CREATE TABLE pushers (
    user_nid         BIGINT NOT NULL,
    app_id           TEXT NOT NULL,
    pushkey          TEXT NOT NULL,
    body             TEXT NOT NULL,
    url              TEXT NOT NULL,
    device_id        TEXT,
    created_ts       BIGINT NOT NULL,
    done_pos         BIGINT NOT NULL,
    failing_since_ts BIGINT,
    retry_ts         BIGINT NOT NULL,
    failures         BIGINT NOT NULL,
    PRIMARY KEY (user_nid, app_id, pushkey)
) /*clustered*/;
CREATE INDEX pushers_by_key ON pushers (app_id, pushkey);
