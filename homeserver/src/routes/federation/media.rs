//! `/_matrix/federation/v1/media/…`: our own files for other servers.

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ruma::api::federation::authenticated_media::{
    get_content::v1 as get_content, get_content_thumbnail::v1 as get_content_thumbnail,
};
use services::{
    Services,
    media::{Asker, File},
};

use crate::routes::{
    call::{Endpoints, Reply, Streamed},
    error::ApiError,
    media::{content_type, disposition, wanted},
};

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    const HERE: &str = "homeserver::routes::federation::media::get";
    endpoints
        .streamed::<get_content::Request, _, _>(get_download, HERE)
        .streamed::<get_content_thumbnail::Request, _, _>(get_thumbnail, HERE)
}

/// `GET /download/{mediaId}`: a file of ours.
///
/// Spec: Server-Server API, "Content repository".
async fn get_download(services: Services, call: Streamed<get_content::Request>) -> Reply<Response> {
    let request = call.request;
    let us = services.media.server_name();
    let file = services.media.file(Asker::Server, us, &request.media_id, request.timeout_ms).await?;
    respond(&services, file).await
}

/// `GET /thumbnail/{mediaId}`: a small picture of ours.
///
/// Spec: Server-Server API, "Content repository".
async fn get_thumbnail(services: Services, call: Streamed<get_content_thumbnail::Request>) -> Reply<Response> {
    let request = call.request;
    let us = services.media.server_name();
    let wanted = wanted(request.width, request.height, request.method.as_ref(), request.animated)?;
    let file = services.media.thumbnail(Asker::Server, us, &request.media_id, wanted, request.timeout_ms).await?;
    respond(&services, file).await
}

/// A file as `multipart/mixed`: a JSON object that says nothing yet, then the file as it is read.
async fn respond(services: &Services, file: File) -> Result<Response, ApiError> {
    // Content cannot know it: it names the bytes themselves.
    let boundary = format!("{:.40}", file.tag());
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: {}\r\n\
         Content-Disposition: {}\r\n\r\n",
        content_type(&file),
        disposition(&file, None),
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let len = head.len() as u64 + file.len() + tail.len() as u64;
    let pieces = services.media.read(&file, 0..file.len()).await?;
    let body = stream::iter([Ok(Bytes::from(head))]).chain(pieces).chain(stream::iter([Ok(Bytes::from(tail))]));
    let headers = [
        (header::CONTENT_TYPE, format!("multipart/mixed; boundary={boundary}")),
        (header::CONTENT_LENGTH, len.to_string()),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(body)).into_response())
}
