//! The service with everything around it, and WebSocket clients that speak its protocol.

use std::{net::SocketAddr, path::Path};

use appservice_voice::{Running, Settings, start};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    homeserver::{AS_TOKEN, Homeserver, SERVER_NAME, user_id},
    talker::PATIENCE,
};

pub(crate) const ROOM: &str = "!room:example.org";
pub(crate) const HS_TOKEN: &str = "hs-secret";

/// The service with everything around it.
pub(crate) struct Service {
    pub(crate) running: Running,
    pub(crate) homeserver: Homeserver,
    pub(crate) address: SocketAddr,
    pub(crate) data: tempfile::TempDir,
}

pub(crate) async fn serve(homeserver: &Homeserver, data: &Path) -> (Running, SocketAddr) {
    serve_with(settings(homeserver, data)).await
}

pub(crate) fn settings(homeserver: &Homeserver, data: &Path) -> Settings {
    let mut settings = Settings {
        homeserver_url: homeserver.url.clone(),
        server_name: SERVER_NAME.to_owned(),
        as_token: AS_TOKEN.to_owned(),
        hs_token: HS_TOKEN.to_owned(),
        data_dir: data.to_owned(),
        ..Settings::default()
    };
    settings.media.bind = [127, 0, 0, 1].into();
    settings.media.first = 0;
    settings.media.shards = 2;
    settings
}

pub(crate) async fn serve_with(settings: Settings) -> (Running, SocketAddr) {
    let running = start(settings).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = running.router();
    let router = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (running, address)
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::beside(Homeserver::start().await).await
    }

    pub(crate) async fn beside(homeserver: Homeserver) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (running, address) = serve(&homeserver, data.path()).await;
        Self { running, homeserver, address, data }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// A client that said who it is.
    pub(crate) async fn client(&self, name: &str) -> Client {
        let mut client = self.connect().await;
        let welcome = client.call("hello", json!({"access_token": format!("token-{name}")})).await.unwrap();
        assert_eq!(welcome["user_id"], user_id(name));
        client
    }

    /// A client that is in the room, and its participant id.
    pub(crate) async fn joins(&self, name: &str) -> (Client, String) {
        let mut client = self.client(name).await;
        let joined = client.call("join", json!({"room_id": ROOM})).await.unwrap();
        let id = joined["participant_id"].as_str().unwrap().to_owned();
        (client, id)
    }

    /// The homeserver pushes a transaction; returns the status.
    pub(crate) async fn push(&self, transaction: &str, token: &str, body: Value) -> u16 {
        let url = format!("http://{}/_matrix/app/v1/transactions/{transaction}", self.address);
        let mut request = reqwest::Client::builder().build().unwrap().put(url).body(body.to_string());
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    }

    pub(crate) async fn push_event(&self, transaction: &str, mut event: Value) {
        event["room_id"] = ROOM.into();
        assert_eq!(self.push(transaction, HS_TOKEN, json!({"events": [event]})).await, 200);
    }
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) serial: i64,
    pub(crate) news: Vec<Value>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut request = format!("ws://{address}/_voicechat/v1/ws").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "jsonrpc2.voicechat.v1".parse().unwrap());
        let (socket, answer) = connect_async(request).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "jsonrpc2.voicechat.v1");
        Self { socket, serial: 0, news: Vec::new() }
    }

    pub(crate) async fn send(&mut self, message: impl Into<String>) {
        self.socket.send(Message::text(message.into())).await.unwrap();
    }

    /// The next message of the server, or the code it closed with.
    pub(crate) async fn receive(&mut self) -> Result<Value, u16> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("the server says something");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    /// The next answer; news that come before it are kept.
    pub(crate) async fn answer(&mut self) -> Value {
        loop {
            let message = self.receive().await.expect("an answer before the end");
            if message.get("method").is_none() {
                return message;
            }
            self.news.push(message);
        }
    }

    /// Call a method: its result, or the error's code.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value, i64> {
        self.serial += 1;
        let request =
            json!({"jsonrpc": "2.0", "id": self.serial, "method": format!("voice.{method}"), "params": params});
        self.send(request.to_string()).await;
        let answer = self.answer().await;
        assert_eq!(answer["id"], self.serial);
        match answer.get("error") {
            Some(error) => Err(error["code"].as_i64().unwrap()),
            None => Ok(answer["result"].clone()),
        }
    }

    /// The parameters of the next news of this kind; others are passed over.
    pub(crate) async fn told(&mut self, method: &str) -> Value {
        let wanted = format!("voice.{method}");
        loop {
            let news = if self.news.is_empty() {
                self.receive().await.expect("news before the end")
            } else {
                self.news.remove(0)
            };
            if news["method"] == wanted {
                return news["params"].clone();
            }
        }
    }

    pub(crate) async fn closed_with(&mut self) -> u16 {
        loop {
            if let Err(code) = self.receive().await {
                return code;
            }
        }
    }
}
