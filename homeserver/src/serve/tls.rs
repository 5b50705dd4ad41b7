//! The certificate of the federation listener: the operator's, or one made here.
//!
//! The self-made one names the server's host and is kept in `tls/` of the data directory; servers that were told to trust it
//! (tests, a closed network) accept it, others do not.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use ruma::ServerName;

/// Certificate chain and private key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Load a certificate.
///
/// # Errors
/// When a file cannot be read or does not hold what it should.
pub async fn load(files: &Files) -> anyhow::Result<RustlsConfig> {
    RustlsConfig::from_pem_file(&files.certificate, &files.key)
        .await
        .with_context(|| format!("TLS certificate {} with key {}", files.certificate.display(), files.key.display()))
}

/// The self-made certificate for `server_name`, made now if there is none.
///
/// # Errors
/// When the data directory cannot be written.
pub fn self_made(data_dir: &Path, server_name: &ServerName) -> anyhow::Result<Files> {
    let host = server_name.host().trim_matches(['[', ']']).to_owned();
    let folder = data_dir.join("tls");
    let name = host.replace(':', "_");
    let files = Files { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
    if files.certificate.exists() && files.key.exists() {
        return Ok(files);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let made = rcgen::generate_simple_self_signed(vec![host, "localhost".to_owned()])?;
    // The key first: a certificate without its key is never taken for complete.
    write_private(&files.key, made.signing_key.serialize_pem().as_bytes())?;
    write_private(&files.certificate, made.cert.pem().as_bytes())?;
    Ok(files)
}

/// Write a file that only we may read, whole or not at all.
///
/// # Errors
/// The file system's.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let draft = path.with_extension("draft");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
