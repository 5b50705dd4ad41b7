//! Table `server_secrets`: keys the server made for itself, the same for all its instances.

use crate::{Result, Tx};

sql!(PUT, "INSERT INTO server_secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
sql!(BY_NAME, "SELECT value FROM server_secrets WHERE name = $1");

/// The secret called `name`; `fresh` becomes it when there is none yet.
///
/// # Errors
/// The driver's.
pub async fn get_or_put(tx: &mut Tx, name: &str, fresh: &[u8]) -> Result<Vec<u8>> {
    execute!(tx, PUT, name, fresh)?;
    let row: Option<(Vec<u8>,)> = fetch_optional!(tx, BY_NAME, name)?;
    row.map(|(value,)| value).ok_or_else(|| crate::Error::Inconsistent {
        table: "server_secrets",
        key: name.to_owned(),
        what: "just written and not there",
    })
}
