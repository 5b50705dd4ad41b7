//! Requests of any shape: for each endpoint a path, a query and a body that are right, nearly right, or anything at all.

#![allow(dead_code, unreachable_pub, reason = "shared by the tests of clients and of other servers")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names, ids and words that mean something in the room the requests are about.
#[derive(Debug, Clone)]
pub struct Known {
    /// The caller.
    pub user_id: String,
    /// Somebody else.
    pub other_user_id: String,
    /// A room the caller is in.
    pub room_id: String,
    /// An event of it.
    pub event_id: String,
    /// The caller's device.
    pub device_id: String,
    /// The id of a file.
    pub media_id: String,
    /// The server's name.
    pub server_name: String,
    /// The events that an event of the caller's names as its witnesses.
    pub witnesses: Vec<String>,
}

/// A request that was made up: ready to be sent.
#[derive(Clone)]
pub struct Made {
    /// Path and query, escaped.
    pub path: String,
    /// The body, if there is one.
    pub body: Option<Vec<u8>>,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = self.body.as_deref().map(String::from_utf8_lossy);
        write!(f, "{} {}", self.path, body.as_deref().unwrap_or("(no body)"))
    }
}

/// How a request differs from a right one, before it is known whom it is about.
#[derive(Debug, Clone)]
pub struct Recipe {
    arguments: Vec<Option<String>>,
    query: Vec<(String, Text)>,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    None,
    Any(Value),
    Changed(Vec<(prop::sample::Index, Change)>),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone)]
enum Change {
    Replace(Value),
    Remove,
    Add(String, Value),
}

/// A word, or the name of something known.
#[derive(Debug, Clone)]
enum Text {
    Said(String),
    Known(&'static str),
}

/// Names of fields that some endpoint reads.
const FIELDS: [&str; 40] = [
    "type",
    "content",
    "state_key",
    "user_id",
    "room_id",
    "event_id",
    "membership",
    "reason",
    "auth",
    "session",
    "password",
    "device_id",
    "device_keys",
    "one_time_keys",
    "signatures",
    "keys",
    "limit",
    "filter",
    "from",
    "to",
    "ts",
    "thread_id",
    "creation_content",
    "initial_state",
    "power_level_content_override",
    "invite",
    "preset",
    "room_version",
    "visibility",
    "m.relates_to",
    "rel_type",
    "m.mentions",
    "displayname",
    "avatar_url",
    "m.new_content",
    "body",
    "msgtype",
    "unsigned",
    "redacts",
    "order",
];
/// Names of parameters that some endpoint reads. Not those that make it wait.
const PARAMETERS: [&str; 22] = [
    "from",
    "to",
    "since",
    "dir",
    "limit",
    "filter",
    "ts",
    "kind",
    "org.matrix.msc3202.device_id",
    "user_id",
    "access_token",
    "full_state",
    "set_presence",
    "via",
    "width",
    "height",
    "method",
    "recurse",
    "max_depth",
    "only",
    "membership",
    "at",
];

/// Places in lists as our tokens write them, at the ends of numbers.
const TOKENS: [&str; 12] = [
    "h18446744073709551615_1_0",
    "h1_18446744073709551615_1",
    "h0_0_0",
    "d9223372036854775807_1",
    "u-9223372036854775808_-9223372036854775808",
    "r18446744073709551615",
    "m9223372036854775807",
    "m-1",
    "s9223372036854775807_18446744073709551615_18446744073709551615",
    "s0",
    "t9223372036854775807_9223372036854775807",
    "t0_0",
];

/// Texts nobody means well with.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => ".{0,12}",
        1 => prop::sample::select(&[
            "", "\u{0}", "a\u{0}b", "/", "..", "../../etc/passwd", "%00", "'; DROP TABLE events; --", "@", "!", "$", "#", "@a", ":",
            "@a:", "@:b", "@a:b:c", "$x:example.org", "!x:example.org", "#x:example.org", "*", "?", "\u{202e}\u{feff}", "-1", "1e9",
            "9223372036854775807", "9223372036854775808", "true", "null", "{}", "[]", "s1", "s99999999999999999", "t1_1", "t_", "b", "f",
            "m.room.message", "m.room.member", "m.room.create", "m.room.power_levels", "m.room.encrypted", "m.room.redaction",
            "m.fully_read", "m.push_rules", "m.read", "m.read.private", "m.thread", "m.replace", "ban", "join", "1", "11", "12",
        ][..]).prop_map(str::to_owned),
        1 => (250_usize..400).prop_map(|length| "a".repeat(length)),
        1 => (250_usize..400).prop_map(|length| format!("@{}:example.org", "é".repeat(length / 2))),
    ]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3_i64..200).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(&[(1_i64 << 53) - 1, 1 << 53, -(1 << 53), i64::MIN, i64::MAX][..]).prop_map(Value::from),
    ]
}

/// Any JSON.
pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from),
        prop::sample::select(&["{user}", "{other}", "{room}", "{event}", "{device}"][..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let key = prop_oneof![prop::sample::select(&FIELDS[..]).prop_map(str::to_owned), text()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn body() -> impl Strategy<Value = Body> {
    let change = prop_oneof![
        4 => any_json().prop_map(Change::Replace),
        1 => Just(Change::Remove),
        1 => (prop::sample::select(&FIELDS[..]), any_json()).prop_map(|(key, value)| Change::Add(key.to_owned(), value)),
    ];
    prop_oneof![
        1 => any_json().prop_map(Body::Any),
        2 => prop::collection::btree_map(prop::sample::select(&FIELDS[..]), any_json(), 0..6)
            .prop_map(|map| Body::Any(Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))),
        6 => prop::collection::vec((any::<prop::sample::Index>(), change), 0..3).prop_map(Body::Changed),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Body::Bytes),
    ]
}

/// Any request to an endpoint with so many arguments in its path.
pub fn recipe(arguments: usize, has_body: bool) -> impl Strategy<Value = Recipe> {
    let argument = prop_oneof![3 => Just(None), 1 => text().prop_map(Some)];
    let value = prop_oneof![
        2 => text().prop_map(Text::Said),
        1 => prop::sample::select(&["{user}", "{other}", "{room}", "{event}", "{device}", "b", "f", "10"][..]).prop_map(Text::Known),
        1 => any_json().prop_map(|value| Text::Said(value.to_string())),
        1 => prop::sample::select(&TOKENS[..]).prop_map(|token| Text::Said(token.to_owned())),
    ];
    let query = prop::collection::vec((prop::sample::select(&PARAMETERS[..]).prop_map(str::to_owned), value), 0..4);
    let body = if has_body { body().boxed() } else { Just(Body::None).boxed() };
    (prop::collection::vec(argument, arguments), query, body).prop_map(|(arguments, query, body)| Recipe {
        arguments,
        query,
        body,
    })
}

impl Recipe {
    /// The request to `path`, in which placeholders stand, with `usual` for its body.
    pub fn make(&self, path: &str, usual: Value, known: &Known) -> Made {
        let mut wished = self.arguments.iter();
        let segments = path.split('/').map(|segment| {
            let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
                return segment.to_owned();
            };
            let given = wished.next().cloned().flatten();
            escape(&given.unwrap_or_else(|| argument(name, known)))
        });
        let mut path = segments.collect::<Vec<_>>().join("/");
        for (at, (name, value)) in self.query.iter().enumerate() {
            let value = match value {
                Text::Said(text) => text.clone(),
                Text::Known(name) => known.insert(name),
            };
            path.push(if at == 0 { '?' } else { '&' });
            path.push_str(&format!("{}={}", escape(name), escape(&value)));
        }
        let body = match &self.body {
            Body::None => None,
            Body::Any(value) => Some(known.fill(value.clone()).to_string().into_bytes()),
            Body::Bytes(bytes) => Some(bytes.clone()),
            Body::Changed(changes) => {
                let mut body = usual;
                for (at, change) in changes {
                    let count = count(&body);
                    apply(&mut body, at.index(count), change);
                }
                Some(known.fill(body).to_string().into_bytes())
            }
        };
        Made { path, body }
    }
}

impl Known {
    fn insert(&self, word: &str) -> String {
        match word {
            "{user}" => self.user_id.clone(),
            "{other}" => self.other_user_id.clone(),
            "{room}" => self.room_id.clone(),
            "{event}" => self.event_id.clone(),
            "{device}" => self.device_id.clone(),
            "{server}" => self.server_name.clone(),
            "{media}" => self.media_id.clone(),
            other => other.to_owned(),
        }
    }

    /// Put the names of what is known where they are meant.
    pub fn fill(&self, value: Value) -> Value {
        match value {
            Value::String(word) if word == "{witnesses}" => json!(self.witnesses),
            Value::String(word) => Value::String(self.insert(&word)),
            Value::Array(items) => items.into_iter().map(|item| self.fill(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(key, value)| (self.insert(&key), self.fill(value)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            other => other,
        }
    }
}

/// How many values there are in a value, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Change the value at a place, counted in depth. Returns how many places were passed.
fn apply(value: &mut Value, at: usize, change: &Change) -> usize {
    if at == 0 {
        match (change, &mut *value) {
            (Change::Replace(new), _) => *value = new.clone(),
            (Change::Add(key, new), Value::Object(fields)) => drop(fields.insert(key.clone(), new.clone())),
            (Change::Add(_, new), _) => *value = new.clone(),
            (Change::Remove, _) => *value = Value::Null,
        }
        return 1;
    }
    let mut passed = 1;
    let mut gone = None;
    match value {
        Value::Array(items) => {
            for item in items {
                let here = count(item);
                if at < passed + here {
                    return apply(item, at - passed, change);
                }
                passed += here;
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields.iter_mut() {
                let here = count(item);
                if at < passed + here {
                    if at == passed && matches!(change, Change::Remove) {
                        gone = Some(key.clone());
                        break;
                    }
                    return apply(item, at - passed, change);
                }
                passed += here;
            }
            if let Some(key) = gone {
                fields.remove(&key);
            }
        }
        _ => {}
    }
    passed
}

/// What a placeholder of this name usually stands for.
fn argument(name: &str, known: &Known) -> String {
    match name {
        "user_id" => known.user_id.clone(),
        "room_id" | "room_id_or_alias" => known.room_id.clone(),
        "event_id" | "thread_root" => known.event_id.clone(),
        "device_id" => known.device_id.clone(),
        "server_name" => known.server_name.clone(),
        "media_id" => known.media_id.clone(),
        "room_alias" => format!("#room:{}", known.server_name),
        "event_type" => "m.room.message".to_owned(),
        "rel_type" => "m.thread".to_owned(),
        "receipt_type" => "m.read".to_owned(),
        "kind" => "override".to_owned(),
        "rule_id" => ".m.rule.master".to_owned(),
        "field" => "displayname".to_owned(),
        "tag" => "m.favourite".to_owned(),
        "version" => "1".to_owned(),
        "auth_type" => "m.login.recaptcha".to_owned(),
        "query_type" => "profile".to_owned(),
        "state_key" => String::new(),
        other => other.to_owned(),
    }
}

/// A text as it may stand in a path or a query.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' | b':' | b'!' | b'$' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// A body that a client might send to this endpoint, with `{user}` and the like where names stand.
pub fn usual_client_body(path: &str) -> Value {
    let message = json!({ "msgtype": "m.text", "body": "hello", "m.mentions": { "user_ids": ["{other}"], "room": true },
        "m.relates_to": { "rel_type": "m.thread", "event_id": "{event}", "m.in_reply_to": { "event_id": "{event}" } } });
    let password = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "{user}" },
        "password": "correct horse", "session": "x" });
    let signed = json!({ "user_id": "{user}", "device_id": "{device}", "algorithms": ["m.olm.v1"],
        "keys": { "ed25519:AAAA": "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1" }, "signatures": { "{user}": { "ed25519:AAAA": "x" } } });
    let session = json!({ "first_message_index": 1, "forwarded_count": 0, "is_verified": true,
        "session_data": { "ephemeral": "a", "ciphertext": "b", "mac": "c" } });
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty() && !word.starts_with('{')).skip(3).collect();
    match &words[..] {
        ["createRoom"] => json!({
            "name": "n", "topic": "t", "preset": "public_chat", "visibility": "private", "room_version": "11", "is_direct": true,
            "room_alias_name": "name", "creation_content": { "m.federate": true, "type": "m.space", "additional_creators": ["{other}"],
                "predecessor": { "room_id": "{room}", "event_id": "{event}" } },
            "initial_state": [{ "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }],
            "invite": ["{other}"], "invite_3pid": [],
            "power_level_content_override": { "users": { "{user}": 100 }, "events": { "m.room.name": 50 }, "ban": 50 },
        }),
        ["rooms", "state"] => {
            json!({ "name": "n", "membership": "join", "users": { "{user}": 100 }, "join_rule": "public",
            "alias": "#room:example.org", "via": ["example.org"] })
        }
        ["rooms", "send"] | ["rooms", "redact"] => message,
        ["rooms", "invite" | "kick" | "ban" | "unban"] => json!({ "user_id": "{other}", "reason": "r" }),
        ["rooms", "join" | "leave"] | ["join" | "knock"] => json!({ "reason": "r", "third_party_signed": {
            "sender": "{user}", "mxid": "{user}", "token": "t", "signatures": { "example.org": { "ed25519:0": "x" } } } }),
        ["rooms", "typing"] => json!({ "typing": true, "timeout": 1000 }),
        ["rooms", "receipt"] => json!({ "thread_id": "main" }),
        ["rooms", "read_markers"] => {
            json!({ "m.fully_read": "{event}", "m.read": "{event}", "m.read.private": "{event}" })
        }
        ["rooms", "upgrade"] => json!({ "new_version": "12", "additional_creators": ["{other}"] }),
        ["rooms" | "users", "report"] => json!({ "reason": "r", "score": -100 }),
        ["rooms", "aliases"] | ["directory", "room"] => json!({ "room_id": "{room}" }),
        ["directory", "list", ..] => json!({ "visibility": "public" }),
        ["publicRooms"] => {
            json!({ "limit": 10, "since": "x", "filter": { "generic_search_term": "a", "room_types": [null, "m.space"] },
            "include_all_networks": false })
        }
        ["user", "filter"] => {
            json!({ "event_fields": ["type"], "event_format": "client", "presence": { "types": ["m.*"] },
            "room": { "rooms": ["{room}"], "not_rooms": [], "include_leave": true, "timeline": { "limit": 10, "lazy_load_members": true,
                "senders": ["{user}"], "types": ["m.room.*"], "contains_url": true }, "state": { "not_types": ["*"] } } })
        }
        ["user", "account_data"] | ["user", "rooms", "account_data"] => {
            json!({ "event_id": "{event}", "ignored_users": { "{other}": {} },
            "global": { "override": [] }, "{user}": ["{room}"] })
        }
        ["user", "rooms", "tags"] => json!({ "order": 0.5 }),
        ["keys", "upload"] => json!({ "device_keys": signed, "one_time_keys": { "signed_curve25519:AAAA": signed },
            "fallback_keys": { "signed_curve25519:AAAB": { "key": "x", "fallback": true, "signatures": {} } } }),
        ["keys", "query"] => json!({ "device_keys": { "{user}": [], "{other}": ["{device}"] }, "timeout": 0 }),
        ["keys", "claim"] => {
            json!({ "one_time_keys": { "{user}": { "{device}": "signed_curve25519" } }, "timeout": 0 })
        }
        ["keys", "device_signing", "upload"] => {
            let key = |usage: &str| {
                json!({ "user_id": "{user}", "usage": [usage], "signatures": {},
                "keys": { "ed25519:YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1": "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1" } })
            };
            json!({ "master_key": key("master"), "self_signing_key": key("self_signing"),
                "user_signing_key": key("user_signing"), "auth": password })
        }
        ["keys", "signatures", "upload"] => json!({ "{user}": { "{device}": signed } }),
        ["room_keys", "version"] => json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
            "auth_data": { "public_key": "x", "signatures": {} }, "version": "1" }),
        ["room_keys", "keys"] => match path.matches('{').count() {
            0 => json!({ "rooms": { "{room}": { "sessions": { "s": session } } } }),
            1 => json!({ "sessions": { "s": session } }),
            _ => session,
        },
        ["sendToDevice"] => {
            json!({ "messages": { "{other}": { "*": { "a": 1 } }, "{user}": { "{device}": { "b": 2 } } } })
        }
        ["dehydrated_device", ..] => {
            json!({ "device_id": "d", "device_data": { "algorithm": "a" }, "device_keys": signed,
            "initial_device_display_name": "n", "next_batch": "1" })
        }
        ["login"] => json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "{user}" },
            "password": "correct horse", "device_id": "D", "initial_device_display_name": "n", "refresh_token": true, "token": "t" }),
        ["register"] => json!({ "username": "carol", "password": "correct horse", "auth": { "type": "m.login.dummy" },
            "device_id": "D", "inhibit_login": false, "initial_device_display_name": "n", "refresh_token": true }),
        ["refresh"] => json!({ "refresh_token": "x" }),
        ["account", "password"] => {
            json!({ "new_password": "correct horse", "logout_devices": false, "auth": password })
        }
        ["account", "deactivate"] => json!({ "erase": true, "auth": password, "id_server": "example.org" }),
        ["account", "3pid", ..] | ["register" | "account", .., "requestToken"] => {
            json!({ "client_secret": "s", "email": "a@b.example",
            "country": "GB", "phone_number": "1", "send_attempt": 1, "sid": "1", "medium": "email", "address": "a@b.example",
            "id_server": "example.org", "id_access_token": "t", "auth": password })
        }
        ["delete_devices"] => json!({ "devices": ["A"], "auth": password }),
        ["devices"] => json!({ "display_name": "n", "auth": password }),
        ["pushers", "set"] => {
            json!({ "pushkey": "k", "kind": "http", "app_id": "a", "app_display_name": "n", "device_display_name": "d",
            "profile_tag": "t", "lang": "en", "data": { "url": "https://push.example/_matrix/push/v1/notify", "format": "event_id_only" },
            "append": true })
        }
        ["pushrules", .., "actions"] => json!({ "actions": ["notify", { "set_tweak": "sound", "value": "default" }] }),
        ["pushrules", .., "enabled"] => json!({ "enabled": true }),
        ["pushrules", ..] => {
            json!({ "actions": ["notify", { "set_tweak": "highlight", "value": true }], "pattern": "a*",
            "conditions": [{ "kind": "event_match", "key": "content.body", "pattern": "*" }, { "kind": "room_member_count", "is": ">2" },
                { "kind": "event_property_is", "key": "a\\.b", "value": 1 }] })
        }
        ["presence", ..] => json!({ "presence": "online", "status_msg": "s" }),
        ["profile"] => {
            json!({ "displayname": "n", "avatar_url": "mxc://example.org/{media}", "m.tz": "Europe/London" })
        }
        ["search"] => {
            json!({ "search_categories": { "room_events": { "search_term": "hello", "keys": ["content.body"], "order_by": "recent",
            "filter": { "limit": 10, "rooms": ["{room}"] }, "event_context": { "before_limit": 1, "after_limit": 1, "include_profile": true },
            "include_state": true, "groupings": { "group_by": [{ "key": "room_id" }] } } } })
        }
        ["user_directory", "search"] => json!({ "search_term": "a", "limit": 10 }),
        ["sync"] => {
            json!({ "lists": { "a": { "ranges": [[0, 10]], "sort": ["by_recency"], "required_state": [["*", "*"]], "timeline_limit": 10,
            "filters": { "is_dm": false } } }, "room_subscriptions": { "{room}": { "required_state": [], "timeline_limit": 5 } },
            "extensions": { "to_device": { "enabled": true, "since": "1" }, "e2ee": { "enabled": true } } })
        }
        ["admin", ..] => json!({ "locked": false, "suspended": false }),
        _ => json!({}),
    }
}

/// A body that another server might send to this endpoint.
pub fn usual_server_body(path: &str) -> Value {
    let event = json!({ "type": "m.room.member", "room_id": "{room}", "sender": "{user}", "state_key": "{user}", "depth": 9,
        "origin_server_ts": 1_700_000_000_000_i64, "prev_events": ["{event}"], "auth_events": "{witnesses}", "origin": "{server}",
        "content": { "membership": "join", "join_authorised_via_users_server": "{other}" }, "hashes": {}, "signatures": {} });
    let mut message = event.clone();
    message["type"] = "m.room.message".into();
    message["content"] = json!({ "msgtype": "m.text", "body": "hello", "m.mentions": { "user_ids": ["{other}"] },
        "m.relates_to": { "rel_type": "m.thread", "event_id": "{event}" } });
    message.as_object_mut().expect("an event is an object").remove("state_key");
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty() && !word.starts_with('{')).skip(3).collect();
    match &words[..] {
        ["send"] => json!({ "origin": "{server}", "origin_server_ts": 1, "pdus": [message, event], "edus": [
            { "edu_type": "m.typing", "content": { "room_id": "{room}", "user_id": "{user}", "typing": true } },
            { "edu_type": "m.presence", "content": { "push": [{ "user_id": "{user}", "presence": "online", "last_active_ago": 1 }] } },
            { "edu_type": "m.receipt", "content": { "{room}": { "m.read": { "{user}": { "data": { "ts": 1, "thread_id": "main" }, "event_ids": ["{event}"] } } } } },
            { "edu_type": "m.direct_to_device", "content": { "sender": "{user}", "type": "m.x", "message_id": "1", "messages": { "{other}": { "*": {} } } } },
            { "edu_type": "m.device_list_update", "content": { "user_id": "{user}", "device_id": "D", "stream_id": 1, "prev_id": [],
                "keys": { "user_id": "{user}", "device_id": "D", "algorithms": [], "keys": {}, "signatures": {} } } },
            { "edu_type": "m.signing_key_update", "content": { "user_id": "{user}", "master_key": { "user_id": "{user}", "usage": ["master"], "keys": {} } } },
        ] }),
        ["send_join" | "send_leave" | "send_knock"] => event,
        ["invite"] => {
            json!({ "event": event, "room_version": "11", "invite_room_state": [event], "via": ["{server}"] })
        }
        ["get_missing_events"] => {
            json!({ "earliest_events": ["{event}"], "latest_events": ["{event}"], "limit": 10, "min_depth": 0 })
        }
        ["user", "keys", "query"] => json!({ "device_keys": { "{other}": [] } }),
        ["user", "keys", "claim"] => json!({ "one_time_keys": { "{other}": { "D": "signed_curve25519" } } }),
        ["publicRooms"] => json!({ "limit": 10, "since": "x", "filter": { "generic_search_term": "a" } }),
        ["query"] => json!({ "server_keys": { "{server}": { "ed25519:1": { "minimum_valid_until_ts": 1 } } } }),
        _ => json!({}),
    }
}
