//! JSON-RPC 2.0 envelopes: requests, responses and errors, one at a time or in batches.
//!
//! Source: <https://www.jsonrpc.org/specification>. Limits on size and depth belong to whoever reads the wire.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// The constant `"2.0"`; anything else does not deserialise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version;

const VERSION: &str = "2.0";

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(VERSION)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text == VERSION { Ok(Self) } else { Err(de::Error::custom("jsonrpc must be \"2.0\"")) }
    }
}

/// What ties a response to its request. Fractions are not ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    Number(i64),
    Text(String),
}

/// A request, or a notification when `id` is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub jsonrpc: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    pub method: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

/// The answer to one request. `id` is null when the request's id could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    pub jsonrpc: Version,
    pub id: Option<Id>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Either `result` or `error`, never both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Result(Value),
    Error(Error),
}

/// Why a request failed. Codes: [`crate::error`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Error {
    pub code: i64,
    /// For people; programs read `code`.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl Error {
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }
}

impl Response {
    #[must_use]
    pub fn result(id: Id, result: Value) -> Self {
        Self { jsonrpc: Version, id: Some(id), outcome: Outcome::Result(result) }
    }

    #[must_use]
    pub fn error(id: Option<Id>, error: Error) -> Self {
        Self { jsonrpc: Version, id, outcome: Outcome::Error(error) }
    }
}
