//! A listener of ours on loopback, and somebody who says bytes to it.

#![allow(dead_code, unreachable_pub, reason = "a module that each test file uses a part of")]

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use homeserver::serve::{self, Listener, Settings, Stopping};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::fixture::TestServer;

/// Patience of the listeners here: what is slower is cut off.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// A listener.
pub struct Listening {
    pub listener: Listener,
    pub stopping: Stopping,
}

impl Listening {
    pub fn with(router: Router, settings: &Settings) -> Self {
        let stopping = Stopping::default();
        let socket = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { listener: serve::serve(socket, None, router, settings, &stopping).unwrap(), stopping }
    }

    pub async fn homeserver() -> Self {
        Self::of(&TestServer::start().await)
    }

    /// In front of a server.
    pub fn of(server: &TestServer) -> Self {
        let settings = Settings { header_timeout: PATIENCE, body_pause_max: PATIENCE, ..Settings::default() };
        Self::with(homeserver::app(server.services.clone()), &settings)
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.address).await.unwrap()
    }

    /// Send bytes as they are, and read until the connection ends.
    pub async fn say(&self, bytes: &[u8]) -> String {
        let mut connection = self.connect().await;
        // A server that has heard enough may close while we still talk.
        let _ = connection.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn post(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        parts(&self.say(&[head.as_bytes(), body].concat()).await)
    }
}

/// Status and JSON body of an answer.
pub fn parts(answer: &str) -> (u16, Value) {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}
