//! What several fuzz targets share: a signing key, public keys of every server, and the questions an event must answer.

use std::{collections::BTreeMap, sync::LazyLock};

use room::{
    Pdu,
    auth::{Powers, facts},
    canonical,
    event::{RoomIdShown, Unsigned, Unverified, stripped},
    redact, relation,
    versions::{self, Rules},
};
use ruma::{
    CanonicalJsonObject, OwnedServerName,
    events::{AnyStrippedStateEvent, AnyTimelineEvent},
    serde::{
        Raw,
        base64::{Base64, Standard},
    },
    signatures::{Ed25519KeyPair, PublicKeyMap, hash_and_sign_event},
};

/// The seed of the signing key in the specification's cryptographic test vectors.
const SPEC_KEY_SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
/// What stands before the seed in a PKCS #8 document of an Ed25519 key.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The key every server here signs with.
pub static KEY: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let seed = Base64::<Standard>::parse(SPEC_KEY_SEED).unwrap();
    Ed25519KeyPair::from_der(&[&PKCS8_PREFIX[..], seed.as_bytes()].concat(), "1".to_owned()).unwrap()
});

/// The public keys of these servers.
pub fn public_keys<'a>(servers: impl IntoIterator<Item = &'a OwnedServerName>) -> PublicKeyMap {
    let key = Base64::new(KEY.public_key().to_vec());
    let keys = BTreeMap::from([("ed25519:1".to_owned(), key)]);
    servers.into_iter().map(|server| (server.to_string(), keys.clone())).collect()
}

/// The rules of one of the versions we understand.
pub fn rules(choice: u8) -> &'static Rules {
    let version = &versions::UNDERSTOOD[usize::from(choice) % versions::UNDERSTOOD.len()];
    versions::rules(version).unwrap()
}

/// The event that every server it concerns has signed, if it can be signed.
pub fn signed(event: &Unverified, mut object: CanonicalJsonObject, rules: &'static Rules) -> Option<Pdu> {
    let servers: Vec<OwnedServerName> = event.required_servers().keys().cloned().collect();
    object.remove("unsigned");
    object.remove("event_id");
    for server in &servers {
        hash_and_sign_event(server.as_str(), &*KEY, &mut object, &rules.redaction).ok()?;
    }
    // Hashes and signatures may have made it too large.
    let unverified = Pdu::from_remote(canonical::write(&object).as_bytes(), rules).ok()?;
    let event_id = unverified.event_id().to_owned();
    let keys = public_keys(unverified.required_servers().keys());
    let pdu = unverified.verify(&keys).expect("what was signed so verifies");
    assert_eq!(pdu.event_id, event_id);
    assert_eq!(canonical::parse(pdu.json.as_bytes()).unwrap(), object, "nothing of a signed event is lost");
    Some(pdu)
}

/// Everything the server asks of a single event.
pub fn examine(event: &Pdu, rules: &'static Rules) {
    let once = redact::redacted(event, rules).expect("a verified event can be redacted");
    let twice = redact::redacted(&once, rules).expect("a redacted event can be redacted");
    assert_eq!(once.json, twice.json, "redacting twice is redacting once");
    let again = Pdu::from_remote(once.json.as_bytes(), rules).expect("a redacted event is an event");
    assert_eq!(again.event_id(), event.event_id, "an event keeps its id when it is redacted");
    assert_eq!(again.room_id(), event.room_id);

    let stored = Pdu::from_stored(event.event_id.clone(), event.room_id.clone(), event.json.clone(), rules);
    assert_eq!(stored.expect("what was read can be read again").to_federation().get(), &*event.json);

    let shown: Raw<AnyTimelineEvent> = event.to_client(&Unsigned::default(), RoomIdShown::Yes);
    let _ = shown.deserialize();
    let stripped: Raw<AnyStrippedStateEvent> = stripped(event);
    let _ = stripped.deserialize();
    let _ = relation::relates_to(&event.content);
    assert!(!relation::is_valid_replacement(event, event), "no event replaces itself");

    let _ = (facts::membership(event), facts::join_rule(Some(event)), facts::allowed_rooms(event));
    let _ = (facts::history_visibility(Some(event)), facts::guests_allowed(Some(event)));
    let _ = facts::server_is_allowed(Some(event), event.sender.server_name());
    let _ = (facts::creators(event, rules), facts::room_version(event), facts::room_type(event));
    let _ = (facts::federates(event), facts::predecessor(event), facts::replacement(event), facts::pinned(event));
    let powers = Powers::new(event, Some(event), rules);
    let _ = (powers.of(&event.sender), powers.needed_to_send(&event.kind), powers.needed_to_set(&event.kind));
    let _ = powers.can_kick(&event.sender, &event.sender);
}
