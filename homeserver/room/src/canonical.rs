//! Reading bytes from strangers as canonical JSON.
//!
//! Stricter than `serde_json::Value`: a key given twice, a fraction, an exponent, minus zero, an
//! integer beyond 2^53 - 1 and nesting deeper than [`NESTING_MAX`] are refused, because two
//! servers would read them differently (or one would fall over) and then disagree on a hash.
//!
//! Source: <https://spec.matrix.org/v1.19/appendices/#canonical-json>.

use std::{collections::btree_map::Entry, fmt};

use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How many arrays and objects may stand inside each other, the event itself included.
///
/// Below the parser's own bound (127), so that everything we accept can be parsed again.
pub const NESTING_MAX: usize = 100;

/// The bytes are not an object in canonical JSON.
#[derive(Debug, thiserror::Error)]
#[error("not canonical JSON: {0}")]
pub struct NotCanonical(#[from] serde_json::Error);

/// Reads one JSON object. Never panics, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<CanonicalJsonObject, NotCanonical> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Nested { levels_left: NESTING_MAX }.deserialize(&mut reader)?;
    reader.end()?;
    match value {
        CanonicalJsonValue::Object(object) => Ok(object),
        _ => Err(NotCanonical(serde_json::Error::custom("expected an object"))),
    }
}

/// Writes an object as canonical JSON: keys sorted, no white space.
pub fn write(object: &CanonicalJsonObject) -> String {
    serde_json::to_string(object).expect("strings, integers and objects always serialise")
}

/// Reads a value that may hold `levels_left` more levels of arrays and objects.
struct Nested {
    levels_left: usize,
}

impl Nested {
    fn below<E: serde::de::Error>(&self) -> Result<usize, E> {
        self.levels_left
            .checked_sub(1)
            .ok_or_else(|| E::custom(format_args!("nested deeper than {NESTING_MAX} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = CanonicalJsonValue;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = CanonicalJsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("canonical JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Int::try_from(value).map(CanonicalJsonValue::Integer).map_err(|_| E::custom(TOO_LARGE))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Int::try_from(value).map(CanonicalJsonValue::Integer).map_err(|_| E::custom(TOO_LARGE))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(E::custom("a number is not a plain integer"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let levels_left = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(Nested { levels_left })? {
            items.push(item);
        }
        Ok(CanonicalJsonValue::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let levels_left = self.below()?;
        let mut object = CanonicalJsonObject::new();
        while let Some(key) = map.next_key::<String>()? {
            match object.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(map.next_value_seed(Nested { levels_left })?);
                }
                Entry::Occupied(_) => return Err(A::Error::custom("a key is given twice")),
            }
        }
        Ok(CanonicalJsonValue::Object(object))
    }
}

const TOO_LARGE: &str = "an integer is beyond 2^53 - 1";

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the specification's appendix, as (given, canonical).
    const EXAMPLES: &[(&str, &str)] = &[
        ("{}", "{}"),
        (r#"{"one": 1, "two": "Two"}"#, r#"{"one":1,"two":"Two"}"#),
        (r#"{"b": "2", "a": "1"}"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile":
               {"display_name": "John Doe", "three_pids": [{"medium": "email", "address":
               "john.doe@example.org"}, {"medium": "msisdn", "address": "123456789"}]}}}"#,
            r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
        ),
        (r#"{"a": "日本語"}"#, r#"{"a":"日本語"}"#),
        (r#"{"本": 2, "日": 1}"#, r#"{"日":1,"本":2}"#),
        (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
        (r#"{"a": null}"#, r#"{"a":null}"#),
        (r#"{"a": -5, "b": 9007199254740991}"#, r#"{"a":-5,"b":9007199254740991}"#),
    ];

    #[test]
    fn the_examples_of_the_specification_become_canonical() {
        for (given, canonical) in EXAMPLES {
            assert_eq!(write(&parse(given.as_bytes()).unwrap()), *canonical);
        }
    }

    #[test]
    fn what_servers_could_read_differently_is_refused() {
        let cases: &[&[u8]] = &[
            br#"{"a":1,"a":2}"#,
            br#"{"x":{"a":1,"a":1}}"#,
            br#"{"a":1.5}"#,
            br#"{"a":1.0}"#,
            br#"{"a":1e3}"#,
            br#"{"a":-0}"#,
            br#"{"a":9007199254740992}"#,
            br#"{"a":-9007199254740992}"#,
            br#"{"a":123456789012345678901234567890}"#,
            br#"{"a":NaN}"#,
            br#"{"a":"\ud800"}"#,
            b"{\"a\":\"\xff\"}",
            b"[]",
            b"\"{}\"",
            b"{} {}",
            b"{",
            b"",
        ];
        for bytes in cases {
            assert!(parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn nesting_is_allowed_up_to_the_bound_and_no_further() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(parse(nested(NESTING_MAX).as_bytes()).is_ok());
        assert!(parse(nested(NESTING_MAX + 1).as_bytes()).is_err());
        assert!(parse(nested(1_000_000).as_bytes()).is_err());
    }
}
