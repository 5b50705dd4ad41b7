//! A hop on the way to Valkey that can be cut, as a network or a restart cuts it.

use std::sync::Arc;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Passes connections on to a server while it stands.
pub(crate) struct Hop {
    /// Where to connect to.
    pub(crate) url: String,
    stands: Arc<watch::Sender<bool>>,
}

impl Hop {
    /// A hop to the Valkey at `url` (`redis://HOST:PORT`).
    pub(crate) async fn to(url: &str) -> Self {
        let target = url.split_once("://").unwrap().1.trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("redis://{}", listener.local_addr().unwrap());
        let stands = Arc::new(watch::Sender::new(true));
        let seen = Arc::clone(&stands);
        tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let mut stands = seen.subscribe();
                if !*stands.borrow_and_update() {
                    continue;
                }
                let target = target.clone();
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        _ = stands.wait_for(|stands| !stands) => {}
                    }
                });
            }
        });
        Self { url: here, stands }
    }

    /// End all connections and refuse new ones.
    pub(crate) fn cut(&self) {
        self.stands.send_replace(false);
    }

    /// Pass connections on again.
    pub(crate) fn mend(&self) {
        self.stands.send_replace(true);
    }
}
