//! Every statement of the program is prepared on both databases: same parameters, same columns.
//!
//! PostgreSQL is at `TEST_POSTGRES_URL`; `./test` starts one. Without it this test fails rather than pass on one database.

#![allow(clippy::disallowed_methods, reason = "tests take the address of PostgreSQL from the environment")]

use sqlx::{Column as _, Either, Executor as _, SqlSafeStr as _, Statement as _};
use storage::{STATEMENTS, Settings, Store};

fn postgres_url() -> String {
    std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL names a PostgreSQL to test on; ./test starts one")
}

fn shape<P>(parameters: Option<Either<&[P], usize>>, columns: Vec<String>) -> (usize, Vec<String>) {
    let count = match parameters {
        Some(Either::Left(list)) => list.len(),
        Some(Either::Right(count)) => count,
        None => 0,
    };
    (count, columns)
}

/// Method: migrate a fresh database of each kind, prepare each text, compare what the databases say of it. A pair of texts
/// that differ on purpose may differ in parameters (`APPEND_ALL`), never in columns.
#[tokio::test]
async fn every_statement_means_the_same_on_both_databases() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", folder.path().join("every.db").display());
    let schema = format!("every_statement_{}", std::process::id());
    let admin = sqlx::PgPool::connect(&postgres_url()).await.unwrap();
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}")).into_sql_str()).await.unwrap();
    let url = format!(
        "{}{}options=-csearch_path%3D{schema}",
        postgres_url(),
        if postgres_url().contains('?') { "&" } else { "?" }
    );
    drop(Store::connect(&Settings::new(file.clone())).await.unwrap());
    drop(Store::connect(&Settings::new(url.clone())).await.unwrap());
    let sqlite = sqlx::SqlitePool::connect(&file).await.unwrap();
    let postgres = sqlx::PgPool::connect(&url).await.unwrap();

    let mut faults = Vec::new();
    for s in STATEMENTS {
        let a = sqlite.prepare(s.sqlite.into_sql_str()).await;
        let b = postgres.prepare(s.postgres.into_sql_str()).await;
        match (a, b) {
            (Ok(a), Ok(b)) => {
                let names = |columns: Vec<&str>| columns.into_iter().map(str::to_owned).collect::<Vec<_>>();
                let a = shape(a.parameters(), names(a.columns().iter().map(|c| c.name()).collect()));
                let b = shape(b.parameters(), names(b.columns().iter().map(|c| c.name()).collect()));
                if s.sqlite == s.postgres && a != b {
                    faults.push(format!("{} at {}: sqlite {a:?}, postgres {b:?}", s.name, s.place));
                }
            }
            (a, b) => faults.push(format!("{} at {}: sqlite {:?}, postgres {:?}", s.name, s.place, a.err(), b.err())),
        }
    }

    admin.execute(sqlx::AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE")).into_sql_str()).await.unwrap();
    assert!(STATEMENTS.len() > 30, "the registry is empty: {} statements", STATEMENTS.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
