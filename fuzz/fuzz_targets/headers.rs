//! Any bytes where servers and clients write short texts: the signature of a request, names, keys, content disposition.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ruma::{
    EventId, RoomAliasId, RoomId, RoomOrAliasId, ServerName, ServerSigningKeyId, UserId,
    api::federation::authentication::XMatrix, http_headers::ContentDisposition,
};

fuzz_target!(|data: &[u8]| {
    if let Ok(disposition) = ContentDisposition::try_from(data) {
        // Control characters of a file's name are left out, so nobody writes a header of his own.
        let written = disposition.to_string();
        assert!(http::HeaderValue::from_str(&written).is_ok(), "{written:?} may stand in a header");
        let read = ContentDisposition::try_from(written.as_bytes()).expect("what was written can be read");
        assert_eq!(read.to_string(), written);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(proof) = XMatrix::parse(text) {
        let again = XMatrix::parse(proof.to_string()).expect("what was written can be read");
        assert_eq!((&again.origin, &again.key), (&proof.origin, &proof.key));
        assert_eq!((again.destination, again.sig), (proof.destination, proof.sig));
    }
    if let Ok(user) = <&UserId>::try_from(text) {
        let _ = (user.localpart(), user.server_name().host(), user.is_historical(), user.matrix_to_uri());
    }
    if let Ok(server) = <&ServerName>::try_from(text) {
        let _ = (server.host(), server.port(), server.is_ip_literal());
    }
    if let Ok(room) = <&RoomOrAliasId>::try_from(text) {
        let _ = (room.server_name(), room.is_room_id());
    }
    if let Ok(room) = <&RoomId>::try_from(text) {
        let _ = (room.server_name(), room::event::create_event_id(room));
    }
    if let Ok(event) = <&EventId>::try_from(text) {
        let _ = (event.server_name(), room::event::room_id_of_create(event));
    }
    if let Ok(alias) = <&RoomAliasId>::try_from(text) {
        let _ = (alias.alias(), alias.server_name());
    }
    if let Ok(key) = <&ServerSigningKeyId>::try_from(text) {
        let _ = (key.algorithm(), key.key_name());
    }
});
