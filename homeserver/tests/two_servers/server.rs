//! A whole server of ours on a TLS listener of loopback, with its own database in memory, and an authority all of them trust.

use std::{net::SocketAddr, sync::Arc};

use axum_server::{Handle, tls_rustls::RustlsConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ruma::{OwnedServerName, ServerName};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use services::{
    Context, Services, Settings,
    accounts::registration::Access,
    clock::{Clock, Randomness},
    context::Ground,
    federation::signing,
    notify::Notify,
    outgoing,
};
use storage::{Store, numbers::Numbers};

/// Issues the certificates of one test.
pub(crate) struct Authority {
    issuer: Option<Issuer<'static, KeyPair>>,
    pem: String,
    /// Certificate and key that exist already, for a test with servers that are not ours.
    ready: Option<(String, String)>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Some(Issuer::new(params, key)), pem, ready: None }
    }

    /// The authority `ca.crt` of a folder, with `server.crt` and `server.key` in its name.
    pub(crate) fn of_files(folder: &std::path::Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        Self { issuer: None, pem: read("ca.crt"), ready: Some((read("server.crt"), read("server.key"))) }
    }

    fn issue(&self, host: &str) -> (String, String) {
        if let Some(ready) = &self.ready {
            return ready.clone();
        }
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, self.issuer.as_ref().unwrap()).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A server that is not ours and answers as `app` does. Returns its name.
    pub(crate) fn impostor(&self, app: axum::Router) -> OwnedServerName {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let name = format!("localhost:{}", listener.local_addr().unwrap().port());
        let serving = axum_server::from_tcp_rustls(listener, self.tls("localhost")).unwrap();
        tokio::spawn(serving.serve(app.into_make_service()));
        name.try_into().unwrap()
    }

    fn tls(&self, host: &str) -> RustlsConfig {
        let (certificate, key) = self.issue(host);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        RustlsConfig::from_config(Arc::new(config))
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) name: OwnedServerName,
    pub(crate) services: Services,
    pub(crate) cx: Context,
    address: SocketAddr,
    handle: std::sync::Mutex<Handle<SocketAddr>>,
    tls: RustlsConfig,
    /// Where its media would be.
    folder: tempfile::TempDir,
}

impl Server {
    /// Named after the port it listens on.
    pub(crate) async fn start(authority: &Authority) -> Self {
        Self::start_with(authority, |_| {}).await
    }

    /// The same, with other settings.
    pub(crate) async fn start_with(authority: &Authority, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = listener_on_a_port_nobody_is_given();
        let address = listener.local_addr().unwrap();
        let name: OwnedServerName = format!("localhost:{}", address.port()).try_into().unwrap();
        let cx = context(&name).await;
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(authority, &folder);
        change(&mut settings);
        let services = Services::start(cx.clone(), settings).await.unwrap();
        let (handle, tls) = (std::sync::Mutex::default(), authority.tls("localhost"));
        let server = Self { name, services, cx, address, handle, tls, folder };
        server.listen(listener);
        server
    }

    fn listen(&self, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let handle = Handle::new();
        *self.handle.lock().unwrap() = handle.clone();
        let app = homeserver::app(self.services.clone());
        let serving = axum_server::from_tcp_rustls(listener, self.tls.clone()).unwrap().handle(handle);
        tokio::spawn(serving.serve(app.into_make_service()));
    }

    /// The same server started anew on the same database and port.
    pub(crate) async fn restarted(self, authority: &Authority) -> Self {
        self.vanish();
        let cx = context_on(&self.name, self.cx.store.clone()).await;
        let services = Services::start(cx.clone(), settings(authority, &self.folder)).await.unwrap();
        let server = Self { services, cx, ..self };
        server.return_again();
        server
    }

    /// Stop listening; what runs inside goes on.
    pub(crate) fn vanish(&self) {
        self.handle.lock().unwrap().shutdown();
    }

    /// Listen again, at the same place.
    pub(crate) fn return_again(&self) {
        self.listen(std::net::TcpListener::bind(self.address).unwrap());
    }
}

/// A server that listens again must find its port free, so it is not of those that the system gives to whoever asks for any.
fn listener_on_a_port_nobody_is_given() -> std::net::TcpListener {
    let ports = 20_000_u16..32_000;
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let first = u16::try_from(random % u64::try_from(ports.len()).unwrap()).unwrap();
    let mut tried = (0..).map(|n| ports.start + (first + n * 7) % (ports.end - ports.start));
    tried.find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok()).unwrap()
}

fn settings(authority: &Authority, folder: &tempfile::TempDir) -> Settings {
    let mut settings = Settings::default();
    settings.federation.outgoing = outgoing::Settings {
        allow_private_addresses: true,
        trusted_authorities: vec![authority.pem.clone().into_bytes()],
    };
    settings.media.folder = folder.path().join("media");
    settings.media.key_file = folder.path().join("media.key");
    settings.limits.is_off = true;
    settings.accounts.password.memory_kib = 64;
    settings.accounts.password.passes = 1;
    settings.accounts.registration.access = Access::Open;
    settings
}

async fn context(name: &ServerName) -> Context {
    context_on(name, Store::connect(&storage::Settings::new("sqlite::memory:")).await.unwrap()).await
}

async fn context_on(name: &ServerName, store: Store) -> Context {
    let randomness = Randomness::system();
    let signing_key = signing::load_or_create(&store, &randomness).await.unwrap();
    Context::new(Ground {
        server_name: name.to_owned(),
        numbers: Numbers::new(store.clone(), name),
        clock: Clock::system(),
        randomness,
        signing_key,
        notify: Notify::start(store.clone()).await.unwrap(),
        store,
    })
}
