//! Every example of `spec/examples` is understood, and written back exactly as it stands.

use std::{fs, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use voice_protocol::{
    events::{self, CallMember, VoiceConfig},
    json_rpc::{Outcome, Request, Response},
    methods::{self, Call},
    notifications::Notice,
};

fn examples(kind: &str) -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("spec/examples exists")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.strip_prefix(kind)?.strip_suffix(".json")?.to_owned();
            let text = fs::read_to_string(&path).ok()?;
            let example = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            Some((name, example))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn round_trip<T: DeserializeOwned + Serialize>(name: &str, example: &Value) -> T {
    let read: T = serde_json::from_value(example.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(&serde_json::to_value(&read).unwrap(), example, "{name} is written as it was read");
    read
}

#[test]
fn every_request_is_a_method_we_know() {
    let examples = examples("request.");

    for (name, example) in &examples {
        let request: Request = round_trip(name, example);
        Call::read(&request.method, request.params).unwrap_or_else(|e| panic!("{name}: {}", e.message));
    }

    assert_eq!(examples.len(), 15);
}

#[test]
fn every_result_is_the_result_of_its_method() {
    let examples = examples("result.");

    for (name, example) in &examples {
        let response: Response = round_trip(name, example);
        let Outcome::Result(result) = response.outcome else { panic!("{name} is an error") };
        match name.as_str() {
            "hello" => drop(round_trip::<methods::Welcome>(name, &result)),
            "join" => drop(round_trip::<methods::Joined>(name, &result)),
            "offer" => drop(round_trip::<methods::Answered>(name, &result)),
            "mute" => drop(round_trip::<methods::Muted>(name, &result)),
            "ping" => drop(round_trip::<methods::Pong>(name, &result)),
            "stats" => drop(round_trip::<methods::MediaStats>(name, &result)),
            other => panic!("no type for the result {other}"),
        }
    }

    assert_eq!(examples.len(), 6);
}

#[test]
fn every_notification_and_error_reads_and_writes_the_same() {
    let notifications = examples("notification.");
    for (name, example) in &notifications {
        round_trip::<Notice>(name, example);
    }
    let errors = examples("error.");
    for (name, example) in &errors {
        let response: Response = round_trip(name, example);
        assert!(matches!(response.outcome, Outcome::Error(_)), "{name}");
    }

    assert_eq!((notifications.len(), errors.len()), (8, 2));
}

#[test]
fn the_call_membership_is_the_one_other_clients_write() {
    let example = &examples("event.call_member")[0].1;

    let built = CallMember::new("@alice:example.org", "ALICEPHONE", 1_795_000_000_000, "https://voice.example.org");

    assert_eq!(serde_json::to_value(built).unwrap(), example["content"]);
    assert_eq!(events::call_member_state_key("@alice:example.org", "ALICEPHONE"), example["state_key"]);
    assert!(events::is_in_call(&example["content"]));
    assert!(!events::is_in_call(&json!({})));
}

#[test]
fn the_default_configuration_is_the_documented_one() {
    let example = &examples("event.config")[0].1;

    assert_eq!(serde_json::to_value(VoiceConfig::default()).unwrap(), example["content"]);
    assert_eq!(VoiceConfig::from_content(&json!({})), VoiceConfig::default());
}

#[test]
fn configuration_out_of_bounds_comes_to_the_nearest_bound() {
    let low = json!({"bitrate": 1, "frame_ms": -5, "user_limit": 0, "jitter": {"min": 0, "max": 1}});
    let high = json!({"bitrate": 10_000_000, "frame_ms": 100, "user_limit": 5000, "jitter": {"min": 900, "max": 900}});
    let odd = json!({"bitrate": "loud", "frame_ms": 39, "jitter": {"min": 100, "max": 50}});

    let as_json = |content: &Value| serde_json::to_value(VoiceConfig::from_content(content)).unwrap();

    assert_eq!(
        as_json(&low),
        json!({"bitrate": 24000, "frame_ms": 10, "user_limit": 1, "jitter": {"min": 20, "max": 20}})
    );
    assert_eq!(
        as_json(&high),
        json!({"bitrate": 96000, "frame_ms": 60, "user_limit": 100, "jitter": {"min": 200, "max": 200}})
    );
    assert_eq!(
        as_json(&odd),
        json!({"bitrate": 64000, "frame_ms": 20, "user_limit": 50, "jitter": {"min": 100, "max": 100}})
    );
}

#[test]
fn a_token_never_shows_in_debug_output() {
    let hello = Call::read("voice.hello", json!({"access_token": "syt_secret"})).unwrap();

    assert!(!format!("{hello:?}").contains("syt_secret"));
}
