//! Asking other servers for their media, as a stream.

use std::time::Duration;

use futures_util::{StreamExt as _, future::BoxFuture};
use ruma::{ServerName, api::federation::authenticated_media::get_content::v1 as download};

use super::client::{Client, Streamed, failure};
use crate::{
    Error, Result,
    media::remote::{Answer, RemoteMedia},
};

impl RemoteMedia for Client {
    fn download<'a>(
        &'a self,
        server: &'a ServerName,
        media_id: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            let mut request = download::Request::new(media_id.to_owned());
            request.timeout_ms = timeout;
            match self.stream_signed(server, request, timeout).await {
                Ok(streamed) => Ok(answer(streamed)),
                // A server that does not know the endpoint says so, in whatever words; older ones only know the older endpoint.
                Err(Error::Remote { status: Some(400 | 404), matrix, .. })
                    if matrix.as_ref().is_none_or(|(code, _)| code == "M_UNRECOGNIZED") =>
                {
                    let mut path =
                        url::Url::parse("https://server/_matrix/media/v3/download").map_err(Error::internal)?;
                    path.path_segments_mut()
                        .map_err(|()| Error::internal("an https address has segments"))?
                        .extend([server.as_str(), media_id]);
                    path.set_query(Some("allow_remote=false"));
                    let path = &path[url::Position::BeforePath..];
                    Ok(answer(self.stream_open(server, path, timeout).await?))
                }
                Err(error) => Err(error),
            }
        })
    }

    fn at<'a>(&'a self, server: &'a ServerName, url: &'a str, timeout: Duration) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            let url = url::Url::parse(url).map_err(|error| failure(server, format!("it points nowhere: {error}")))?;
            Ok(answer(self.stream_at(server, url, timeout).await?))
        })
    }
}

fn answer(streamed: Streamed) -> Answer {
    let header = |name| streamed.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    Answer {
        content_type: header(http::header::CONTENT_TYPE).map(str::to_owned),
        content_disposition: header(http::header::CONTENT_DISPOSITION).map(str::to_owned),
        body: streamed.body.boxed(),
    }
}
