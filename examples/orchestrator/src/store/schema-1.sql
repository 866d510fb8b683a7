-- A replay keeps its jobs in queues of its own, named after its number.
CREATE TABLE replays (
    id         INTEGER PRIMARY KEY,
    started_at INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY,
    queue      TEXT NOT NULL,
    state      TEXT NOT NULL
               CHECK (state IN ('queued', 'running', 'merged', 'rolled back', 'reaped')),
    run_id     INTEGER REFERENCES runs (id), -- the one run that may end the job
    started_at INTEGER                       -- ms since 1970; re-driving does not renew it
) STRICT;
CREATE INDEX jobs_by_queue ON jobs (queue, state);

-- One finalization each: the job's own process and what followed, or a re-driven finalization.
CREATE TABLE runs (
    id          INTEGER PRIMARY KEY,
    job_id      INTEGER NOT NULL REFERENCES jobs (id),
    finished_at INTEGER, -- the process has exited; the reaper goes by this
    exit_code   INTEGER,
    ended_at    INTEGER,
    outcome     TEXT
) STRICT;
CREATE INDEX runs_by_job ON runs (job_id);

-- The gates of a run.
CREATE TABLE tasks (
    id         INTEGER PRIMARY KEY,
    run_id     INTEGER NOT NULL REFERENCES runs (id),
    gate       TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    result     TEXT
) STRICT;

-- What was done to the world outside, where no transaction reaches: the trunk and the deployment.
CREATE TABLE ledger (
    id     INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    run_id INTEGER NOT NULL REFERENCES runs (id),
    effect TEXT NOT NULL CHECK (effect IN ('merge', 'rollback')),
    at     INTEGER NOT NULL
) STRICT;
CREATE INDEX ledger_by_job ON ledger (job_id);
CREATE TRIGGER ledger_keeps_rows BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_keeps_values BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- Who held a job in which round of the race for it.
CREATE TABLE claims (
    job_id     INTEGER NOT NULL REFERENCES jobs (id),
    round      INTEGER NOT NULL,
    holder     TEXT NOT NULL,
    generation INTEGER NOT NULL
) STRICT;

-- The timeline, as told by those who acted.
CREATE TABLE notes (
    id     INTEGER PRIMARY KEY,
    queue  TEXT NOT NULL,
    job_id INTEGER REFERENCES jobs (id),
    at     INTEGER NOT NULL,
    who    TEXT NOT NULL,
    what   TEXT NOT NULL
) STRICT;
CREATE INDEX notes_by_queue ON notes (queue);
