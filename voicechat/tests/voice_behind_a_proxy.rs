//! The voice service on the listener it runs on, behind a proxy that says for whom it asks.

use std::net::SocketAddr;

use appservice_voice::{Running, Settings};
use homeserver::serve::{self, Listener, Network, Stopping, TrustedProxies};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// More connections than any one address may have waiting.
const MANY: usize = 1_000;

struct Voice {
    listener: Listener,
    running: Running,
    _data: tempfile::TempDir,
}

impl Voice {
    /// Beside a homeserver that is not there yet, as after a start.
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            as_token: "as".to_owned(),
            hs_token: "hs".to_owned(),
            data_dir: data.path().to_owned(),
            ..Settings::default()
        };
        settings.media.bind = [127, 0, 0, 1].into();
        settings.media.first = 0;
        settings.media.shards = 1;
        let running = appservice_voice::start(settings).await.unwrap();
        let proxies = TrustedProxies(vec![Network::parse("127.0.0.0/8").unwrap()]);
        let socket = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let settings = serve::Settings { trusted_proxies: proxies, ..serve::Settings::default() };
        let listener = serve::serve(socket, None, running.router(), &settings, &Stopping::default()).unwrap();
        Self { listener, running, _data: data }
    }

    /// Open a WebSocket for `client` and say nothing: the status, and the connection.
    async fn opened_for(&self, client: &str) -> (u16, TcpStream) {
        let mut connection = TcpStream::connect(self.listener.address).await.unwrap();
        let request = format!(
            "GET /_voicechat/v1/ws HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {client}\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: jsonrpc2.voicechat.v1\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut line = String::new();
        BufReader::new(&mut connection).read_line(&mut line).await.unwrap();
        (line.split(' ').nth(1).unwrap().parse().unwrap(), connection)
    }
}

#[tokio::test]
async fn whoever_opens_many_sockets_and_says_nothing_keeps_nobody_at_another_address_out() {
    let voice = Voice::start().await;
    let mut silent = Vec::new();
    let mut status = 101;
    while status == 101 && silent.len() < MANY {
        let (answered, connection) = voice.opened_for("203.0.113.7").await;
        status = answered;
        silent.push(connection);
    }

    let (others_status, _other) = voice.opened_for("203.0.113.8").await;

    assert_eq!((status, others_status), (429, 101), "after {} connections", silent.len());
    voice.running.stop().await;
}
