//! Room for the database on a disk that somebody else fills: an agent can be stopped and removed all the same.
//!
//! What is written goes to places that the two files have already. The log (`state.sqlite-wal`) is written from its
//! beginning again after each checkpoint and keeps its size; the database grows into pages that are free in it. Both
//! are made large once, and the log stays when the database is closed, so that it is there after a restart too.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Bytes of the log and of free pages: some hundred changes of records.
const RESERVE_BYTES: u32 = 2 << 20;
/// Free pages below this are made more; a record takes one or two.
const FREE_PAGES_MIN: u32 = 64;
/// Pages in the log after which it is written to the database: 1 MiB, so half of the log is room for one change.
const CHECKPOINT_PAGES: u32 = 256;

/// Bytes that have to be free before room is taken: the last of a small disk is for agents and packages.
const DISK_FREE_MIN: u64 = 8 * RESERVE_BYTES as u64;

/// Settings of each connection.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    // What a statement needs beside its result is no file.
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Makes the files as large as they have to be. On a disk that is nearly full they stay as they are, which is told.
pub(super) fn make(connection: &mut Connection, path: &Path) {
    let outcome = match is_there(connection, path) {
        Ok(false) => room(path).and_then(|()| grow(connection).map_err(|error| error.to_string())),
        Ok(true) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = outcome {
        tracing::warn!(error, "the state database has no room of its own should the disk be full");
    }
}

/// Why there is not enough room on the disk.
fn room(path: &Path) -> Result<(), String> {
    let free = rustix::fs::statvfs(path).map_err(|error| error.to_string())?;
    let bytes = free.f_bavail.saturating_mul(free.f_frsize);
    if bytes < DISK_FREE_MIN { Err(format!("{bytes} of {DISK_FREE_MIN} bytes are free")) } else { Ok(()) }
}

fn is_there(connection: &Connection, path: &Path) -> rusqlite::Result<bool> {
    let log = path.with_extension("sqlite-wal").metadata().map_or(0, |metadata| metadata.len());
    let free: u32 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    Ok(log >= u64::from(RESERVE_BYTES) && free >= FREE_PAGES_MIN)
}

/// Writes that much through the log into the database, and deletes it in another transaction: what is written and
/// deleted in one never gets into the files.
fn grow(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.execute_batch("DROP TABLE IF EXISTS reserve")?;
    let growing = connection.transaction()?;
    growing.execute_batch("CREATE TABLE reserve (bytes BLOB NOT NULL) STRICT")?;
    growing.execute("INSERT INTO reserve VALUES (zeroblob(?1))", [RESERVE_BYTES])?;
    growing.commit()?;
    connection.execute_batch("DROP TABLE reserve")?;
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}
