//! The database's schema, as a list of migrations. A migration is never changed once released; a new one is
//! added. A database of a newer version is refused.

use rusqlite_migration::{M, Migrations};

const MIGRATIONS: &[M<'static>] = &[
    M::up(
        "CREATE TABLE agents (
        id            TEXT    PRIMARY KEY,
        reference     TEXT    NOT NULL,
        digest        TEXT    NOT NULL,
        lifecycle     TEXT    NOT NULL,
        arguments     TEXT    NOT NULL,
        capabilities  TEXT    NOT NULL,
        limits        TEXT    NOT NULL,
        target        TEXT    NOT NULL CHECK (target IN ('run', 'rest')),
        failures      INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
        retry_at_us   INTEGER,
        error         TEXT,
        removing      TEXT    CHECK (removing IN ('keep', 'delete')),
        created_at_us INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE runs (
        agent         TEXT    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
        invocation    TEXT    NOT NULL,
        boot          TEXT    NOT NULL,
        started_at_us INTEGER NOT NULL,
        ended_at_us   INTEGER,
        result        TEXT,
        status        INTEGER,
        PRIMARY KEY (agent, invocation)
    ) STRICT;
    CREATE INDEX runs_by_start ON runs (agent, started_at_us);",
    ),
    // What an agent was given later than its package, and what a run that goes on was given before that.
    M::up(
        "ALTER TABLE agents ADD COLUMN origins    TEXT    NOT NULL DEFAULT '{}';
    ALTER TABLE agents ADD COLUMN in_force   TEXT;
    ALTER TABLE agents ADD COLUMN plan_stale INTEGER NOT NULL DEFAULT 0 CHECK (plan_stale IN (0, 1));",
    ),
    // What agents were, and which of that is being brought back.
    M::up(
        "CREATE TABLE checkpoints (
        agent  TEXT    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
        number INTEGER NOT NULL CHECK (number > 0),
        name   TEXT,
        at_us  INTEGER NOT NULL,
        cause  TEXT    NOT NULL CHECK (cause IN ('asked', 'replaced')),
        state  TEXT    NOT NULL,
        PRIMARY KEY (agent, number),
        UNIQUE (agent, name)
    ) STRICT;
    CREATE TABLE restores (
        agent  TEXT    PRIMARY KEY REFERENCES agents (id) ON DELETE CASCADE,
        number INTEGER NOT NULL
    ) STRICT;",
    ),
];

/// The migrations, in order.
pub(super) const fn migrations() -> Migrations<'static> {
    Migrations::from_slice(MIGRATIONS)
}
