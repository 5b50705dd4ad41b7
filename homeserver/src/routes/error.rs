//! The one table from our errors to the specification's statuses and error codes.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ruma::api::error::FromHttpRequestError;
use serde_json::{Map, Value, json};
use services::error::{Code, Error};

/// An error as a client sees it: status, error code, words, and what else the body holds.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Map<String, Value>,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// With this status and error code, in these words.
    pub fn new(status: StatusCode, code: &str, words: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("errcode".into(), code.into());
        body.insert("error".into(), words.into().into());
        Self { status, body, retry_after_s: None }
    }

    /// With this status and a body that is not a plain error (user-interactive authentication).
    #[must_use]
    pub fn with_body(status: StatusCode, body: Map<String, Value>) -> Self {
        Self { status, body, retry_after_s: None }
    }

    /// Add a field to the body.
    #[must_use]
    pub fn and(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body.insert(field.into(), value.into());
        self
    }

    /// The error code, for errors inside an answer.
    #[must_use]
    pub fn code(&self) -> &str {
        self.body.get("errcode").and_then(Value::as_str).unwrap_or("M_UNKNOWN")
    }

    /// The words, for errors inside an answer.
    #[must_use]
    pub fn words(&self) -> &str {
        self.body.get("error").and_then(Value::as_str).unwrap_or_default()
    }

    /// `M_FORBIDDEN`, 403.
    pub fn forbidden(words: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", words)
    }

    /// `M_NOT_FOUND`, 404.
    pub fn not_found(words: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", words)
    }

    /// `M_INVALID_PARAM`, 400.
    pub fn invalid_param(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", words)
    }

    /// `M_UNRECOGNIZED`, with 404 or 405.
    #[must_use]
    pub fn unrecognized(status: StatusCode) -> Self {
        Self::new(status, "M_UNRECOGNIZED", "Unrecognized request")
    }

    /// `M_TOO_LARGE`, 413.
    #[must_use]
    pub fn too_large(bytes_max: usize) -> Self {
        let words = format!("the request is larger than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", words)
    }

    /// Why a body did not arrive: too large, too slow (`M_UNKNOWN`, 408), or broken off.
    #[must_use]
    pub fn bad_body(error: &axum::Error, bytes_max: usize) -> Self {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                return Self::too_large(bytes_max);
            }
            if error.is::<tower_http::timeout::TimeoutError>() {
                return Self::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "the body came too slowly");
            }
            cause = error.source();
        }
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", "the body broke off")
    }

    /// `M_UNKNOWN`, 500; the cause goes to the log, not to the client.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Internal server error")
    }

    /// A stage, login or identifier we do not know: `M_UNKNOWN`, 400, as the specification has it for logins.
    #[must_use]
    pub fn unknown_kind(words: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", words)
    }

    /// A body of our own endpoints that could not be read.
    #[must_use]
    pub fn bad_json(error: &serde_json::Error) -> Self {
        let code = if error.is_data() { "M_BAD_JSON" } else { "M_NOT_JSON" };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }

    /// A request that ruma could not read: `M_NOT_JSON` when the body is no JSON, `M_BAD_JSON` when it has the wrong shape,
    /// `M_INVALID_PARAM` when the fault is in path or query, `M_MISSING_PARAM` when something is missing.
    #[must_use]
    pub fn bad_request(error: &FromHttpRequestError, body: &[u8]) -> Self {
        let words = error.to_string();
        // Skipping over a text does not look at its bytes.
        if std::str::from_utf8(body).is_err() || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() {
            return Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", "the body is not JSON");
        }
        let is_in_body =
            matches!(error, FromHttpRequestError::Deserialization(ruma::api::error::DeserializationError::Json(_)));
        let code = if is_in_body && words.contains("missing field") {
            "M_MISSING_PARAM"
        } else if is_in_body {
            "M_BAD_JSON"
        } else {
            "M_INVALID_PARAM"
        };
        Self::new(StatusCode::BAD_REQUEST, code, words)
    }
}

/// No access token at all.
#[must_use]
pub fn missing_token() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "an access token is needed")
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let words = error.to_string();
        match error {
            Error::NotFound(_) => Self::not_found(words),
            Error::Refused(_) | Error::Forbidden(_) => Self::forbidden(words),
            Error::Invalid(_) => Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", words),
            Error::InvalidParam(_) => Self::invalid_param(words),
            Error::MissingParam(_) => Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", words),
            Error::Specific(code, _) => {
                let (status, name) = code_name(code);
                let error = Self::new(status, name, words.clone());
                match code {
                    Code::WrongRoomKeysVersion => error.and("current_version", words),
                    Code::IncompatibleRoomVersion => error.and("room_version", words),
                    Code::UserLocked => error.and("soft_logout", true),
                    _ => error,
                }
            }
            Error::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", words),
            Error::Limited { retry_after } => {
                let ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                let mut error =
                    Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", words).and("retry_after_ms", ms);
                error.retry_after_s = Some(ms.div_ceil(1000));
                error
            }
            Error::UnknownToken { soft_logout } => {
                Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", words).and("soft_logout", soft_logout)
            }
            Error::Remote { status, matrix: Some((code, words)), .. } => {
                let status = status
                    .and_then(|s| StatusCode::from_u16(s).ok())
                    .filter(|s| s.is_client_error() && *s != StatusCode::UNAUTHORIZED)
                    .unwrap_or(StatusCode::BAD_GATEWAY);
                Self::new(status, &code, words)
            }
            Error::Remote { .. } => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", words),
            Error::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", words),
            Error::Storage(_) | Error::Internal(_) => Self::internal(words),
        }
    }
}

fn code_name(code: Code) -> (StatusCode, &'static str) {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    match code {
        Code::Unauthorized => (StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"),
        Code::UnsupportedRoomVersion => (BAD, "M_UNSUPPORTED_ROOM_VERSION"),
        Code::IncompatibleRoomVersion => (BAD, "M_INCOMPATIBLE_ROOM_VERSION"),
        Code::InvalidRoomState => (BAD, "M_INVALID_ROOM_STATE"),
        Code::BadState => (BAD, "M_BAD_STATE"),
        Code::BadAlias => (BAD, "M_BAD_ALIAS"),
        Code::AliasInUse => (StatusCode::CONFLICT, "M_UNKNOWN"),
        Code::RoomInUse => (BAD, "M_ROOM_IN_USE"),
        Code::UserInUse => (BAD, "M_USER_IN_USE"),
        Code::InvalidUsername => (BAD, "M_INVALID_USERNAME"),
        Code::Exclusive => (BAD, "M_EXCLUSIVE"),
        Code::UserDeactivated => (StatusCode::FORBIDDEN, "M_USER_DEACTIVATED"),
        Code::UserLocked => (StatusCode::UNAUTHORIZED, "M_USER_LOCKED"),
        Code::UserSuspended => (StatusCode::FORBIDDEN, "M_USER_SUSPENDED"),
        Code::WeakPassword => (BAD, "M_WEAK_PASSWORD"),
        Code::UnableToAuthoriseJoin => (BAD, "M_UNABLE_TO_AUTHORISE_JOIN"),
        Code::UnableToGrantJoin => (BAD, "M_UNABLE_TO_GRANT_JOIN"),
        Code::CannotLeaveServerNoticeRoom => (StatusCode::FORBIDDEN, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"),
        Code::WrongRoomKeysVersion => (StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION"),
        Code::InvalidSignature => (BAD, "M_INVALID_SIGNATURE"),
        Code::DuplicateAnnotation => (BAD, "M_DUPLICATE_ANNOTATION"),
        Code::NotYetUploaded => (StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED"),
        Code::CannotThumbnail => (BAD, "M_UNKNOWN"),
        Code::CannotOverwriteMedia => (StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA"),
        Code::KeyTooLarge => (BAD, "M_KEY_TOO_LARGE"),
        Code::ProfileTooLarge => (BAD, "M_PROFILE_TOO_LARGE"),
        Code::GuestAccessForbidden => (StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN"),
        Code::NotJson => (BAD, "M_NOT_JSON"),
        Code::Unrecognized => (StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
        Code::ManagedByServer => (StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON"),
        Code::UnknownPos => (BAD, "M_UNKNOWN_POS"),
        Code::UnknownDevice => (BAD, "M_UNKNOWN_DEVICE"),
        Code::AppserviceLoginUnsupported => (BAD, "M_APPSERVICE_LOGIN_UNSUPPORTED"),
        Code::Unknown => (BAD, "M_UNKNOWN"),
        Code::UrlNotSet => (BAD, "M_URL_NOT_SET"),
        Code::ConnectionFailed => (StatusCode::BAD_GATEWAY, "M_CONNECTION_FAILED"),
        Code::ConnectionTimeout => (StatusCode::GATEWAY_TIMEOUT, "M_CONNECTION_TIMEOUT"),
        Code::BadStatus => (StatusCode::BAD_GATEWAY, "M_BAD_STATUS"),
        Code::ThreepidNotFound => (BAD, "M_THREEPID_NOT_FOUND"),
        Code::ThreepidDenied => (StatusCode::FORBIDDEN, "M_THREEPID_DENIED"),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!(self.body))).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
