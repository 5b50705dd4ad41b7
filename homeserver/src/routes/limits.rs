//! How much a client or a server may send at once.

use std::time::Duration;

/// Body of a client's request other than an upload: room for the largest key upload and account data.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Body of a server's request: 50 events and 100 EDUs of 64 KiB.
pub const FEDERATION_BODY_BYTES_MAX: usize = 16 << 20;
/// All headers of a request together.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Until the head of a request has arrived.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the body of a request has arrived and was answered; uploads and long polls have their own.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(180);
/// Until an upload or a download has begun to be answered.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
/// Longest pause within the body of a request.
pub const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 20_000;
