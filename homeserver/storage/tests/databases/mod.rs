//! Fresh databases of both kinds.
//!
//! PostgreSQL is at `TEST_POSTGRES_URL`; `./test` starts one. Without it tests fail rather than pass on one database.

#![allow(dead_code, unreachable_pub, reason = "a module that each test file uses a part of")]
#![allow(clippy::disallowed_methods, reason = "tests learn from the environment where PostgreSQL is")]

use storage::{Settings, Store};
use tempfile::TempDir;

/// Addresses of a database on SQLite and of one on PostgreSQL; the folder must outlive the test.
pub async fn addresses() -> (TempDir, [String; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", folder.path().join("test.db").display());
    // The folder's name is nobody else's.
    let name = folder.path().file_name().unwrap().to_str().unwrap().to_lowercase();
    let schema: String = format!("t{name}").chars().filter(char::is_ascii_alphanumeric).collect();
    let base =
        std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL names a PostgreSQL to test on; ./test starts one");
    let postgres = storage::fresh_schema(&base, &schema).await.unwrap();
    (folder, [file, postgres])
}

/// The databases, open.
pub async fn both() -> (TempDir, [Store; 2]) {
    let (folder, [sqlite, postgres]) = addresses().await;
    let open = async |url: String| Store::connect(&Settings::new(url)).await.unwrap();
    (folder, [open(sqlite).await, open(postgres).await])
}
