-- From version 5 to 6.

-- What an operator has set, and what outlives the service therefore. One row for each queue.
CREATE TABLE control (
    queue       TEXT PRIMARY KEY,
    mode        TEXT NOT NULL,            -- in force, until it expires
    mode_by     TEXT NOT NULL,
    mode_since  INTEGER NOT NULL,
    mode_until  INTEGER,                  -- NULL: until it is changed
    mode_then   TEXT NOT NULL             -- in force after it
) STRICT, WITHOUT ROWID;

-- While a queue is paused, none of its jobs is started.
CREATE TABLE pauses (
    queue TEXT PRIMARY KEY,
    by    TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
