//! `/_matrix/client/v1/media/…`: files for those who show an access token.

use axum::response::Response;
use ruma::api::client::authenticated_media::{
    get_content::v1 as get_content, get_content_as_filename::v1 as get_content_as_filename,
    get_content_thumbnail::v1 as get_content_thumbnail, get_media_config::v1 as get_media_config,
    get_media_preview::v1 as get_media_preview,
};
use services::{Services, media::Asker};

use crate::routes::{
    call::{Call, Endpoints, Reply, Streamed},
    media::{no_previews, respond, wanted},
};

pub(super) fn endpoints(endpoints: Endpoints) -> Endpoints {
    const HERE: &str = "homeserver::routes::client::media::get";
    endpoints
        .endpoint(get_config)
        .streamed::<get_content::Request, _, _>(get_download, HERE)
        .streamed::<get_content_as_filename::Request, _, _>(get_download_as, HERE)
        .raw::<get_media_preview::Request, _, _>(get_preview_url, HERE)
        .streamed::<get_content_thumbnail::Request, _, _>(get_thumbnail, HERE)
}

/// `GET /config`: how large an upload may be.
///
/// Spec: Client-Server API, "Content repository".
pub async fn get_config(services: Services, _: Call<get_media_config::Request>) -> Reply<get_media_config::Response> {
    Ok(get_media_config::Response::new(ruma::UInt::new_saturating(services.media.upload_bytes_max())))
}

/// `GET /download/{serverName}/{mediaId}`: a file.
async fn get_download(services: Services, call: Streamed<get_content::Request>) -> Reply<Response> {
    let request = call.request;
    let file = services.media.file(Asker::User, &request.server_name, &request.media_id, request.timeout_ms).await?;
    respond(&services, file, None, &call.headers).await
}

/// `GET /download/{serverName}/{mediaId}/{fileName}`: a file under another name.
async fn get_download_as(services: Services, call: Streamed<get_content_as_filename::Request>) -> Reply<Response> {
    let request = call.request;
    let file = services.media.file(Asker::User, &request.server_name, &request.media_id, request.timeout_ms).await?;
    respond(&services, file, Some(request.filename), &call.headers).await
}

/// `GET /thumbnail/{serverName}/{mediaId}`: a small picture.
async fn get_thumbnail(services: Services, call: Streamed<get_content_thumbnail::Request>) -> Reply<Response> {
    let request = call.request;
    let wanted = wanted(request.width, request.height, request.method.as_ref(), request.animated)?;
    let (server, media_id) = (&request.server_name, &request.media_id);
    let file = services.media.thumbnail(Asker::User, server, media_id, wanted, request.timeout_ms).await?;
    respond(&services, file, None, &call.headers).await
}

/// `GET /preview_url`: what a link shows.
async fn get_preview_url(_: Services, _: Call<get_media_preview::Request>) -> Reply<Response> {
    Err(no_previews())
}
