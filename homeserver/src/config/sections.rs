//! Every key of the file. The documentation of a key is what `voicechat config --example` prints above it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    section::section,
    value::{Listen, Secret, Size, choice},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

section! {
    /// Who this server is.
    Server "server" {
        /// The part of every user id after the colon. It can never be changed once accounts exist.
        name: String = "localhost:8448".to_owned(),
        /// Where keys, the embedded database and uploaded files are kept.
        data_dir: PathBuf = PathBuf::from("data"),
        /// Where clients reach this server from outside, e.g. behind a proxy. Without it: http:// and the address it listens on.
        public_url: Option<String> = None => "\"https://matrix.example.org\"" plain,
        /// Where other servers reach this one, if that is neither the server name nor port 8448 of it (host:port).
        delegate: Option<String> = None => "\"matrix.example.org:443\"" plain,
        /// Matrix id of the person to ask for help, shown by clients.
        support_user: Option<String> = None => "\"@admin:example.org\"" plain,
        /// E-mail address of the person to ask for help.
        support_email: Option<String> = None => "\"admin@example.org\"" plain,
        /// Page with help for the people of this server.
        support_page: Option<String> = None => "\"https://example.org/help\"" plain,
    }
}

section! {
    /// Where it listens.
    Listeners "listen" {
        /// For clients and application services: HTTP without TLS; put a proxy with TLS before it on the internet.
        client: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8008)),
        /// For other servers: TLS of its own. "off" when a proxy does it or there is no federation.
        federation: Listen = Listen::On(SocketAddr::from(([0, 0, 0, 0], 8448))),
        /// Certificate chain of the federation listener, PEM. Without it a self-made one is kept in the data directory, which
        /// only servers that were told to trust it accept.
        tls_certificate: Option<PathBuf> = None => "\"/etc/voicechat/tls/fullchain.pem\"" plain,
        /// Private key of the certificate, PEM.
        tls_key: Option<PathBuf> = None => "\"/etc/voicechat/tls/privkey.pem\"" plain,
        /// Proxies whose X-Forwarded-For is believed: addresses or networks.
        trusted_proxies: Vec<String> = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
        /// Connections served at once by each listener; more are closed at once.
        connections_max: u32 = 20_000,
    }
}

section! {
    /// Where everything is stored.
    Database "database" {
        /// sqlite://PATH or postgres://USER:PASSWORD@HOST/NAME. Without it: SQLite in the data directory.
        url: Option<Secret> = None => "\"postgres://voicechat@localhost/voicechat\"" secret,
        /// Connections for reading on SQLite, connections in all on PostgreSQL.
        connections_max: u32 = 8,
        /// Whether SQLite waits for the disk before it acknowledges. False may lose the last second in a power cut.
        durable: bool = true,
    }
}

section! {
    /// Valkey or Redis, needed when several instances share one PostgreSQL.
    Valkey "valkey" {
        /// redis://[:PASSWORD@]HOST:PORT or rediss:// for TLS.
        url: Option<Secret> = None => "\"redis://127.0.0.1:6379\"" secret,
    }
}

choice! {
    /// How the log is written.
    LogFormat {
        /// For people.
        Text = "text",
        /// A JSON object a line.
        Json = "json",
    }
}

section! {
    /// What is written to standard error. Tokens, passwords and messages never are.
    Log "log" {
        /// error, warn, info, debug or trace; also for parts alone: "info,services::federation=debug".
        filter: String = "info".to_owned(),
        /// "text" or "json".
        format: LogFormat = LogFormat::Text,
    }
}

choice! {
    /// Who may register an account.
    RegistrationMode {
        /// Nobody; administrators make accounts.
        Closed = "closed",
        /// Whoever has a registration token.
        Token = "token",
        /// Everybody. On the internet this invites abuse.
        Open = "open",
    }
}

section! {
    /// Who may make an account.
    Registration "registration" {
        /// "closed", "token" (with a token from an administrator) or "open".
        mode: RegistrationMode = RegistrationMode::Closed,
        /// Secret of the Synapse-style registration API for tools (/_synapse/admin/v1/register). Without it that API is off.
        shared_secret: Option<Secret> = None => "\"a long random text\"" secret,
        /// Whether guests may look around without an account.
        guests: bool = false,
        /// Address of the terms people must accept. Without it there are none.
        terms_url: Option<String> = None => "\"https://example.org/terms\"" plain,
        /// Version of those terms; people see it.
        terms_version: String = "1".to_owned(),
    }
}

section! {
    /// Passwords and sessions.
    Accounts "accounts" {
        /// Memory for hashing a password, per login under way.
        password_memory: Size = Size(19 << 20),
        /// Passes over that memory.
        password_passes: u32 = 2,
        /// Lanes.
        password_lanes: u32 = 1,
        /// Fewest characters of a password.
        password_length_min: u32 = 8,
        /// Life of an access token of clients that can renew it.
        access_token_lifetime: Duration = 15 * MINUTE,
        /// Life of the token it is renewed with, counted from its last use.
        refresh_token_lifetime: Duration = 7 * DAY,
        /// Life of a token that proves an identity to a third party (OpenID).
        openid_token_lifetime: Duration = HOUR,
        /// Whether a device may log another one in with a short-lived token.
        login_tokens: bool = true,
    }
}

section! {
    /// How often one may ask: so many at once after a pause (burst), so many a minute in the long run.
    Limits "limits" {
        /// False switches every limit off: for tests only.
        enabled: bool = true,
        /// Logins and renewals from one address, at once.
        login_burst: u32 = 20,
        /// Logins and renewals from one address, a minute.
        login_per_minute: u32 = 30,
        /// Failed logins to one account, at once.
        login_failure_burst: u32 = 5,
        /// Failed logins to one account, a minute.
        login_failure_per_minute: u32 = 6,
        /// New accounts from one address, at once.
        registration_burst: u32 = 10,
        /// New accounts from one address, a minute.
        registration_per_minute: u32 = 6,
        /// Events a user sends, at once.
        message_burst: u32 = 60,
        /// Events a user sends, a minute.
        message_per_minute: u32 = 600,
        /// Rooms a user joins or makes, at once.
        join_burst: u32 = 30,
        /// Rooms a user joins or makes, a minute.
        join_per_minute: u32 = 30,
        /// Files a user uploads, at once.
        media_burst: u32 = 60,
        /// Files a user uploads, a minute.
        media_per_minute: u32 = 60,
        /// Other costly requests of a device, at once.
        request_burst: u32 = 300,
        /// Other costly requests of a device, a minute.
        request_per_minute: u32 = 1200,
    }
}

section! {
    /// Rooms.
    Rooms "rooms" {
        /// Room version of new rooms; "11" for clients that do not know "12" yet.
        default_version: String = "12".to_owned(),
    }
}

section! {
    /// Other servers.
    Federation "federation" {
        /// Whether this server talks to others at all.
        enabled: bool = true,
        /// Whether others may be at private or loopback addresses: for tests and closed networks.
        allow_private_addresses: bool = false,
        /// Certificates (PEM files) of authorities to trust besides the well-known ones.
        trusted_ca_files: Vec<PathBuf> = Vec::new(),
        /// Servers asked for the keys of servers that do not answer.
        notaries: Vec<String> = Vec::new(),
        /// Whether other servers are told what users call their devices.
        device_names: bool = false,
    }
}

section! {
    /// Uploaded files.
    Media "media" {
        /// Largest file.
        upload_max: Size = Size(50 << 20),
        /// Where files are kept. Without it: `media` in the data directory.
        dir: Option<PathBuf> = None => "\"/var/lib/voicechat/media\"" plain,
        /// Whether the old addresses without login still serve files uploaded from now on.
        unauthenticated: bool = false,
        /// How long copies of other servers' files are kept after their last use.
        remote_kept_for: Duration = 30 * DAY,
    }
}

section! {
    /// Who is online.
    Presence "presence" {
        /// Whether it is told at all.
        enabled: bool = true,
    }
}

section! {
    /// Bridges, bots and other application services.
    Appservices "appservices" {
        /// Registration files, YAML or JSON.
        registrations: Vec<PathBuf> = Vec::new(),
        /// How long an application service may take to answer.
        request_timeout: Duration = 30 * SECOND,
        /// Longest pause between two tries when one does not answer.
        retry_pause_max: Duration = 5 * MINUTE,
    }
}

section! {
    /// TURN servers for calls between two clients.
    Turn "turn" {
        /// Addresses, e.g. "turn:turn.example.org?transport=udp".
        uris: Vec<String> = Vec::new(),
        /// The secret shared with the TURN server (coturn: static-auth-secret).
        secret: Option<Secret> = None => "\"a long random text\"" secret,
        /// Life of the credentials given to clients.
        lifetime: Duration = 24 * HOUR,
    }
}

section! {
    /// Voice rooms.
    Voice "voice" {
        /// Whether `voicechat up` runs the voice service in the same process, and whether clients are told of one.
        enabled: bool = true,
        /// Where `voicechat voice` listens when it runs on its own.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8009)),
        /// Where the homeserver reaches a voice service that runs on its own; set it for both roles then.
        url: Option<String> = None => "\"http://voice:8009\"" plain,
        /// Where a voice service that runs on its own reaches the homeserver.
        homeserver_url: Option<String> = None => "\"http://homeserver:8008\"" plain,
        /// Where clients reach the voice service. Without it: the homeserver's public address.
        public_url: Option<String> = None => "\"https://voice.example.org\"" plain,
        /// LiveKit services (their JWT endpoints) that Element Call may use instead, told in /.well-known/matrix/client.
        livekit_urls: Vec<String> = Vec::new(),
        /// Token the voice service shows the homeserver. Without it one is made and kept in the data directory.
        as_token: Option<Secret> = None => "\"a long random text\"" secret,
        /// Token the homeserver shows the voice service. Without it one is made and kept in the data directory.
        hs_token: Option<Secret> = None => "\"another long random text\"" secret,
        /// Address on which media arrives (UDP).
        udp_bind: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        /// First UDP port.
        udp_port_first: u16 = 10_000,
        /// Last UDP port.
        udp_port_last: u16 = 10_100,
        /// Addresses at which clients reach those ports. Without any: the machine's own.
        udp_advertised: Vec<IpAddr> = Vec::new(),
    }
}
