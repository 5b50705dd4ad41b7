//! `/_matrix/media/…`: uploads, and the older endpoints that ask for no access token.
//!
//! What is uploaded after those were frozen is not given out by them; [`super::client::media`] is where clients go now. Also here: how
//! a file becomes a response, for all three interfaces.

#![expect(deprecated, reason = "the older endpoints are deprecated in ruma too, and served until they are frozen")]

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use ruma::{
    api::client::media::{
        create_content::v3 as create_content, create_content_async::v3 as create_content_async,
        create_mxc_uri::v1 as create_mxc_uri, is_safe_inline_content_type,
    },
    http_headers::{ContentDisposition, ContentDispositionType},
    media::Method as RumaMethod,
};
use services::{
    Services,
    accounts::User,
    error::{Code, Error},
    limits::Action,
    media::{
        Asker, File, Label,
        thumbnails::{Method, Wanted},
    },
};

use super::{
    call::{Call, Endpoints, Reply, Streamed},
    error::ApiError,
};

/// The older endpoints.
mod legacy {
    pub(super) use ruma::api::client::media::{
        get_content::v3 as get_content, get_content_as_filename::v3 as get_content_as_filename,
        get_content_thumbnail::v3 as get_content_thumbnail, get_media_config::v3 as get_media_config,
        get_media_preview::v3 as get_media_preview,
    };
    pub(super) type Content = get_content::Request;
    pub(super) type ContentAsFilename = get_content_as_filename::Request;
    pub(super) type Thumbnail = get_content_thumbnail::Request;
    pub(super) type Config = get_media_config::Request;
    pub(super) type Preview = get_media_preview::Request;
}

/// Nothing in a file may run: the specification's recommendation.
const CONTENT_SECURITY_POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                                       style-src 'unsafe-inline'; object-src 'self';";
/// A URI never changes what it names.
const CACHE_SECONDS: u32 = 30 * 24 * 3600;

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    endpoints
        .streamed::<create_content::Request, _, _>(post_upload, "homeserver::routes::media::post_upload")
        .streamed::<create_content_async::Request, _, _>(put_upload, "homeserver::routes::media::put_upload")
        .endpoint(post_create)
        .streamed::<legacy::Content, _, _>(get_download, "homeserver::routes::media::get_download")
        .streamed::<legacy::ContentAsFilename, _, _>(get_download_as, "homeserver::routes::media::get_download_as")
        .streamed::<legacy::Thumbnail, _, _>(get_thumbnail, "homeserver::routes::media::get_thumbnail")
        .endpoint(get_config)
        .raw::<legacy::Preview, _, _>(get_preview_url, "homeserver::routes::media::get_preview_url")
}

/// `POST /upload`: keep a file.
///
/// Spec: Client-Server API, "Content repository".
async fn post_upload(services: Services, call: Streamed<create_content::Request>) -> Reply<Response> {
    let content = upload(&services, &call.caller, &call.headers, call.body).await?;
    let label = Label { content_type: call.request.content_type, filename: call.request.filename };
    let content_uri = services.media.upload(&call.caller, label, content).await?;
    Ok(axum::Json(serde_json::json!({ "content_uri": content_uri })).into_response())
}

/// `PUT /upload/{serverName}/{mediaId}`: keep a file under a URI announced before.
///
/// Spec: Client-Server API, "Content repository".
async fn put_upload(services: Services, call: Streamed<create_content_async::Request>) -> Reply<Response> {
    let Streamed { request, caller, headers, body } = call;
    let content = upload(&services, &caller, &headers, body).await?;
    let label = Label { content_type: request.content_type, filename: request.filename };
    services.media.fill(&caller, &request.server_name, &request.media_id, label, content).await?;
    Ok(axum::Json(serde_json::json!({})).into_response())
}

/// `POST /create`: announce an upload.
///
/// Spec: Client-Server API, "Content repository".
pub async fn post_create(services: Services, call: Call<create_mxc_uri::Request>) -> Reply<create_mxc_uri::Response> {
    services.limits.take_for(Action::Media, &call.caller).await?;
    let (content_uri, expires_ms) = services.media.create(&call.caller).await?;
    let mut response = create_mxc_uri::Response::new(content_uri);
    response.unused_expires_at = Some(ruma::MilliSecondsSinceUnixEpoch(ruma::UInt::new_saturating(expires_ms)));
    Ok(response)
}

async fn get_download(services: Services, call: Streamed<legacy::Content>) -> Reply<Response> {
    let request = call.request;
    let asker = Asker::Anybody { allow_remote: request.allow_remote };
    let file = services.media.file(asker, &request.server_name, &request.media_id, request.timeout_ms).await?;
    respond(&services, file, None, &call.headers).await
}

async fn get_download_as(services: Services, call: Streamed<legacy::ContentAsFilename>) -> Reply<Response> {
    let request = call.request;
    let asker = Asker::Anybody { allow_remote: request.allow_remote };
    let file = services.media.file(asker, &request.server_name, &request.media_id, request.timeout_ms).await?;
    respond(&services, file, Some(request.filename), &call.headers).await
}

async fn get_thumbnail(services: Services, call: Streamed<legacy::Thumbnail>) -> Reply<Response> {
    let request = call.request;
    let asker = Asker::Anybody { allow_remote: request.allow_remote };
    let wanted = wanted(request.width, request.height, request.method.as_ref(), request.animated)?;
    let (server, media_id) = (&request.server_name, &request.media_id);
    let file = services.media.thumbnail(asker, server, media_id, wanted, request.timeout_ms).await?;
    respond(&services, file, None, &call.headers).await
}

/// `GET /config`: how large an upload may be.
async fn get_config(services: Services, _: Call<legacy::Config>) -> Reply<legacy::get_media_config::Response> {
    Ok(legacy::get_media_config::Response::new(ruma::UInt::new_saturating(services.media.upload_bytes_max())))
}

async fn get_preview_url(_: Services, _: Call<legacy::Preview>) -> Reply<Response> {
    Err(no_previews())
}

/// Links are not previewed by this server.
#[must_use]
pub fn no_previews() -> ApiError {
    ApiError::not_found("this server makes no previews of links")
}

/// The body of an upload, once the caller may upload and what the client says of its length fits.
async fn upload(
    services: &Services,
    caller: &User,
    headers: &HeaderMap,
    body: Body,
) -> Result<BoxStream<'static, services::Result<Bytes>>, ApiError> {
    services.limits.take_for(Action::Media, caller).await?;
    let bytes_max = services.media.upload_bytes_max();
    let len = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if len.is_some_and(|len| len > bytes_max) {
        return Err(Error::TooLarge(format!("an upload has at most {bytes_max} bytes")).into());
    }
    let pieces = body.into_data_stream();
    let broken = |_| Error::Specific(Code::Unknown, "the upload broke off, or came too slowly".to_owned());
    Ok(pieces.map(move |piece| piece.map_err(broken)).boxed())
}

/// What a request for a thumbnail wants.
///
/// # Errors
/// `M_INVALID_PARAM` for a method there is not, or sides of nothing.
pub fn wanted(
    width: ruma::UInt,
    height: ruma::UInt,
    method: Option<&RumaMethod>,
    animated: Option<bool>,
) -> Result<Wanted, ApiError> {
    let method = match method {
        None | Some(RumaMethod::Scale) => Method::Scale,
        Some(RumaMethod::Crop) => Method::Crop,
        Some(_) => return Err(ApiError::invalid_param("method is crop or scale")),
    };
    let pixels = |side: ruma::UInt| u32::try_from(u64::from(side)).unwrap_or(u32::MAX);
    let (width, height) = (pixels(width), pixels(height));
    if width == 0 || height == 0 {
        return Err(ApiError::invalid_param("a thumbnail has a width and a height"));
    }
    Ok(Wanted { width, height, method, animated: animated.unwrap_or(false) })
}

/// The name a file is given out under: shown in the window only when its type is harmless there.
#[must_use]
pub fn disposition(file: &File, filename: Option<String>) -> ContentDisposition {
    let essence = file.content_type.as_deref().and_then(|kind| kind.split(';').next()).unwrap_or_default();
    let kind = if is_safe_inline_content_type(&essence.trim().to_ascii_lowercase()) {
        ContentDispositionType::Inline
    } else {
        ContentDispositionType::Attachment
    };
    ContentDisposition::new(kind).with_filename(filename.or_else(|| file.filename.clone()))
}

/// The type a file is given out with.
#[must_use]
pub fn content_type(file: &File) -> &str {
    file.content_type.as_deref().unwrap_or("application/octet-stream")
}

/// A file as a response: the whole, the range that is asked for, or that the client has it already.
///
/// # Errors
/// As [`services::media::Media::read`].
pub async fn respond(
    services: &Services,
    file: File,
    filename: Option<String>,
    asked: &HeaderMap,
) -> Result<Response, ApiError> {
    let tag = format!("\"{}\"", file.tag());
    let scope = if file.is_public { "public" } else { "private" };
    let mut headers = HeaderMap::new();
    let mut put = |name: header::HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    put(header::ETAG, tag.clone());
    put(header::CACHE_CONTROL, format!("{scope}, max-age={CACHE_SECONDS}, immutable"));
    put(header::ACCEPT_RANGES, "bytes".to_owned());
    put(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY.to_owned());
    put(header::HeaderName::from_static("cross-origin-resource-policy"), "cross-origin".to_owned());
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned());
    put(header::CONTENT_TYPE, content_type(&file).to_owned());
    put(header::CONTENT_DISPOSITION, disposition(&file, filename).to_string());
    let said = |name: header::HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    if said(header::IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    // A range of another version of the file would be of no use.
    let is_same = said(header::IF_RANGE).is_none_or(|known| known == tag);
    let len = file.len();
    let (status, range) = match said(header::RANGE).filter(|_| is_same).map(|range| ranges(range, len)) {
        None | Some(Ranged::Whole) => (StatusCode::OK, 0..len),
        Some(Ranged::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Ranged::Outside) => {
            let outside = [(header::CONTENT_RANGE, format!("bytes */{len}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, outside).into_response());
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::try_from(format!("bytes {}-{}/{len}", range.start, range.end - 1))
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    let pieces = services.media.read(&file, range).await?;
    // The head is sent by then: all that is left to say of a damaged file is to break off.
    let pieces = pieces.inspect(|piece| {
        if let Err(error) = piece {
            tracing::error!(%error, "a file cannot be given out");
        }
    });
    Ok((status, headers, Body::from_stream(pieces)).into_response())
}

/// What a `Range` header asks of a file.
#[derive(Debug, PartialEq, Eq)]
enum Ranged {
    /// All of it: the header says nothing we serve in parts.
    Whole,
    Part(std::ops::Range<u64>),
    /// Nothing that is there.
    Outside,
}

/// One range is served; several, or other units, get the whole.
fn ranges(header: &str, len: u64) -> Ranged {
    let Some((from, to)) = header.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Ranged::Whole;
    };
    let (start, end) = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(start), Ok(last)) if last < start => return Ranged::Whole,
        (Ok(start), Ok(last)) => (start, last.saturating_add(1).min(len)),
        (Ok(start), Err(_)) if to.is_empty() => (start, len),
        (Err(_), Ok(suffix)) if from.is_empty() => (len.saturating_sub(suffix), len),
        _ => return Ranged::Whole,
    };
    if start < end { Ranged::Part(start..end) } else { Ranged::Outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_nonsense_gets_the_whole() {
        for (header, expected) in [
            ("bytes=0-3", Ranged::Part(0..4)),
            ("bytes=4-", Ranged::Part(4..10)),
            ("bytes=-3", Ranged::Part(7..10)),
            ("bytes=-300", Ranged::Part(0..10)),
            ("bytes=8-300", Ranged::Part(8..10)),
            ("bytes=10-", Ranged::Outside),
            ("bytes=-0", Ranged::Outside),
            ("bytes=3-2", Ranged::Whole),
            ("bytes=0-1,4-5", Ranged::Whole),
            ("lines=0-1", Ranged::Whole),
            ("bytes=", Ranged::Whole),
        ] {
            assert_eq!(ranges(header, 10), expected, "{header}");
        }
        assert_eq!(ranges("bytes=0-", 0), Ranged::Outside);
    }
}
