//! Why a service could not do what was asked.

use std::time::Duration;

use ruma::OwnedServerName;

/// Each variant is something a caller may act on. Statuses and error codes are given in the routes, from this alone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named thing does not exist, or the caller may not know that it does.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The room's rules refuse the event.
    #[error("{0}")]
    Refused(#[from] room::auth::Refusal),
    /// The caller may not do this; the words are for people.
    #[error("{0}")]
    Forbidden(String),
    /// What was sent makes no sense; the words say what.
    #[error("{0}")]
    Invalid(String),
    /// A parameter that was sent makes no sense (`M_INVALID_PARAM`).
    #[error("{0}")]
    InvalidParam(String),
    /// A parameter is missing (`M_MISSING_PARAM`).
    #[error("{0} is missing")]
    MissingParam(&'static str),
    /// A state event refused for its own content (`M_BAD_STATE`, `M_UNSUPPORTED_ROOM_VERSION`, `M_USER_IN_USE`, …): code, words.
    #[error("{1}")]
    Specific(Code, String),
    /// Larger than a named limit allows.
    #[error("{0}")]
    TooLarge(String),
    /// Asked too often.
    #[error("too many requests; try again in {} ms", .retry_after.as_millis())]
    Limited {
        /// When asking again makes sense.
        retry_after: Duration,
    },
    /// The access token is not (or no longer) one.
    #[error("{}", if *.soft_logout { "the access token has expired" } else { "the access token is not known" })]
    UnknownToken {
        /// True when the session can be renewed.
        soft_logout: bool,
    },
    /// Another server failed us.
    #[error("{server}: {problem}")]
    Remote {
        /// The server.
        server: OwnedServerName,
        /// What went wrong, in words.
        problem: String,
        /// Its answer's status, if it answered.
        status: Option<u16>,
        /// Its error code and words, if it sent a Matrix error.
        matrix: Option<(String, String)>,
    },
    /// The server is stopping, or a worker it needs has gone.
    #[error("the server is stopping")]
    Stopping,
    /// Our own database failed; never the caller's fault, never shown to them.
    #[error("storage: {0}")]
    Storage(#[from] storage::Error),
    /// Something of ours that must not happen did; the words are for the log.
    #[error("internal: {0}")]
    Internal(String),
}

/// Error codes that no general variant of [`Error`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// `M_UNAUTHORIZED`: another server did not prove who it is.
    Unauthorized,
    /// `M_UNSUPPORTED_ROOM_VERSION`
    UnsupportedRoomVersion,
    /// `M_INCOMPATIBLE_ROOM_VERSION`
    IncompatibleRoomVersion,
    /// `M_INVALID_ROOM_STATE`
    InvalidRoomState,
    /// `M_BAD_STATE`
    BadState,
    /// `M_BAD_ALIAS`
    BadAlias,
    /// `M_ROOM_IN_USE`
    RoomInUse,
    /// `M_USER_IN_USE`
    UserInUse,
    /// `M_INVALID_USERNAME`
    InvalidUsername,
    /// `M_EXCLUSIVE`
    Exclusive,
    /// `M_USER_DEACTIVATED`
    UserDeactivated,
    /// `M_USER_LOCKED`
    UserLocked,
    /// `M_USER_SUSPENDED`
    UserSuspended,
    /// `M_WEAK_PASSWORD`
    WeakPassword,
    /// `M_UNABLE_TO_AUTHORISE_JOIN`
    UnableToAuthoriseJoin,
    /// `M_UNABLE_TO_GRANT_JOIN`
    UnableToGrantJoin,
    /// `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM`
    CannotLeaveServerNoticeRoom,
    /// `M_WRONG_ROOM_KEYS_VERSION`; the words are the current version.
    WrongRoomKeysVersion,
    /// `M_INVALID_SIGNATURE`
    InvalidSignature,
    /// `M_DUPLICATE_ANNOTATION`
    DuplicateAnnotation,
    /// `M_NOT_YET_UPLOADED`
    NotYetUploaded,
    /// `M_UNKNOWN`, 400: there is no picture to make a thumbnail of.
    CannotThumbnail,
    /// `M_CANNOT_OVERWRITE_MEDIA`
    CannotOverwriteMedia,
    /// `M_KEY_TOO_LARGE`
    KeyTooLarge,
    /// `M_PROFILE_TOO_LARGE`
    ProfileTooLarge,
    /// `M_GUEST_ACCESS_FORBIDDEN`
    GuestAccessForbidden,
    /// `M_NOT_JSON`
    NotJson,
    /// `M_UNRECOGNIZED`
    Unrecognized,
    /// `M_BAD_JSON` with 405: the server alone writes it.
    ManagedByServer,
    /// `M_UNKNOWN_POS`
    UnknownPos,
    /// `M_UNKNOWN_DEVICE`
    UnknownDevice,
    /// `M_APPSERVICE_LOGIN_UNSUPPORTED`
    AppserviceLoginUnsupported,
    /// `M_UNKNOWN` with 400: none of the others says what is wrong.
    Unknown,
    /// `M_URL_NOT_SET`
    UrlNotSet,
    /// `M_CONNECTION_FAILED`
    ConnectionFailed,
    /// `M_CONNECTION_TIMEOUT`
    ConnectionTimeout,
    /// `M_BAD_STATUS`
    BadStatus,
    /// `M_THREEPID_NOT_FOUND`
    ThreepidNotFound,
    /// `M_THREEPID_DENIED`
    ThreepidDenied,
}

/// What services return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// [`Error::Forbidden`] in these words.
    pub fn forbidden(words: impl Into<String>) -> Self {
        Self::Forbidden(words.into())
    }

    /// [`Error::Invalid`] in these words.
    pub fn invalid(words: impl Into<String>) -> Self {
        Self::Invalid(words.into())
    }

    /// [`Error::Internal`] in these words.
    pub fn internal(words: impl std::fmt::Display) -> Self {
        Self::Internal(words.to_string())
    }
}

impl From<room::event::Damaged> for Error {
    fn from(damaged: room::event::Damaged) -> Self {
        Self::internal(damaged)
    }
}

impl From<room::build::BuildError> for Error {
    fn from(error: room::build::BuildError) -> Self {
        use room::build::BuildError as B;
        match error {
            B::TooLarge { .. } | B::TooLong { .. } => Self::TooLarge(error.to_string()),
            B::Content(_) | B::NulByte { .. } | B::RoomMissing => Self::Invalid(error.to_string()),
            B::TooMany { .. } | B::Sign(_) | B::Damaged(_) => Self::internal(error),
        }
    }
}
