-- The tables on PostgreSQL, version 1. They are what the steps for a file lead to, and differ where several processes
-- write at the same time. All numbers are BIGINT, and times are milliseconds since 1970.

-- What is here, for whoever opens it.
CREATE TABLE orchestrator_version (version BIGINT NOT NULL);
INSERT INTO orchestrator_version VALUES (1);

-- The store's clock is the server's, which is one for all processes. It stands still within a statement.
CREATE FUNCTION now_ms() RETURNS BIGINT LANGUAGE sql STABLE AS
'SELECT floor(extract(epoch FROM statement_timestamp()) * 1000)::BIGINT';

CREATE TABLE replays (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at BIGINT NOT NULL
);

CREATE TABLE jobs (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue        TEXT NOT NULL,
    kind         TEXT NOT NULL DEFAULT 'default',
    state        TEXT NOT NULL CHECK (state IN ('queued', 'running', 'merged', 'rolled back', 'reaped')),
    run_id       BIGINT, -- the one run that may end the job
    redrives     BIGINT NOT NULL DEFAULT 0,
    fence        BIGINT NOT NULL DEFAULT 0,
    submitted_at BIGINT,
    started_at   BIGINT,
    ended_at     BIGINT
);
-- Jobs that have ended pile up. Those that have not are found, and counted, without them.
CREATE INDEX jobs_queued ON jobs (queue, id) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (queue, id) WHERE state = 'running';
CREATE INDEX jobs_by_queue ON jobs (queue, state, id);
CREATE INDEX jobs_by_kind ON jobs (queue, state, kind, id);
CREATE INDEX jobs_by_end ON jobs (queue, ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE runs (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      BIGINT NOT NULL REFERENCES jobs (id),
    stage       TEXT NOT NULL DEFAULT 'process',
    started_at  BIGINT,
    marked_at   BIGINT,
    finished_at BIGINT,
    exit_code   BIGINT,
    ended_at    BIGINT,
    outcome     TEXT
);
CREATE INDEX runs_by_job ON runs (job_id);
CREATE INDEX runs_open ON runs (job_id) WHERE ended_at IS NULL;
ALTER TABLE jobs ADD FOREIGN KEY (run_id) REFERENCES runs (id);
-- Deleting a run asks which job it is the own one of.
CREATE INDEX jobs_by_run ON jobs (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE tasks (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id     BIGINT NOT NULL REFERENCES runs (id),
    gate       TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at   BIGINT,
    result     TEXT
);
CREATE INDEX tasks_by_run ON tasks (run_id);

-- It refers to nothing: what was done outside stays written down, also of jobs that are forgotten.
CREATE TABLE ledger (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id BIGINT NOT NULL,
    run_id BIGINT NOT NULL,
    effect TEXT NOT NULL CHECK (effect IN ('merge', 'rollback')),
    at     BIGINT NOT NULL
);
CREATE INDEX ledger_by_job ON ledger (job_id);
CREATE FUNCTION keep_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only';
END $$;
CREATE TRIGGER ledger_keeps BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger
FOR EACH STATEMENT EXECUTE FUNCTION keep_ledger();

CREATE TABLE claims (
    job_id     BIGINT NOT NULL REFERENCES jobs (id),
    round      BIGINT NOT NULL,
    holder     TEXT NOT NULL,
    generation BIGINT NOT NULL
);
CREATE INDEX claims_by_job ON claims (job_id);

-- Transactions commit in another order than they draw numbers in. Who reads on from the note read last would miss one
-- whose number is smaller and whose transaction was slower. So each transaction keeps a lock, shared and never waited
-- for, that tells after which number it drew its own. The sequence begins with a number that no note has, so that its
-- last value is always one that was drawn.
CREATE SEQUENCE note_numbers MINVALUE 0;
SELECT nextval('note_numbers');
CREATE TABLE notes (
    id     BIGINT PRIMARY KEY,
    queue  TEXT NOT NULL,
    job_id BIGINT REFERENCES jobs (id),
    at     BIGINT NOT NULL,
    who    TEXT NOT NULL,
    kind   TEXT NOT NULL DEFAULT 'run'
           CHECK (kind IN ('run', 'verdict', 'redrive', 'reap', 'mode', 'action', 'trouble')),
    what   TEXT NOT NULL
);
CREATE INDEX notes_by_queue ON notes (queue, id);
CREATE INDEX notes_by_job ON notes (job_id);
CREATE INDEX notes_by_kind ON notes (queue, kind, id);
CREATE FUNCTION number_note() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(TG_RELID::INT, (last_value % 2147483648)::INT) FROM note_numbers;
    NEW.id := nextval('note_numbers');
    RETURN NEW;
END $$;
CREATE TRIGGER notes_number BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION number_note();

-- Up to which number no note is still to come. The last number is read first: who has no lock after that draws a larger
-- one. Whose lock is seen draws, or drew, a number after the one that the lock tells, which has 31 bits of it.
CREATE FUNCTION notes_settled() RETURNS BIGINT LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    latest BIGINT;
    behind BIGINT;
BEGIN
    SELECT last_value INTO latest FROM note_numbers;
    SELECT max(distance) INTO behind FROM (
        SELECT (latest % 2147483648 - objid::BIGINT + 2147483648) % 2147483648 AS distance FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 'notes'::regclass AND objsubid = 2
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS held
    -- It is larger only for locks that were taken since, after a larger number.
    WHERE distance < 1073741824;
    RETURN latest - COALESCE(behind, 0);
END $$;

-- How many jobs have ended, by changes that are appended and summed up. A row for each state, as a file has it, would
-- be written by all transactions that end a job, one after the other. What has not ended is counted by its index.
CREATE TABLE tallies (
    id    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    jobs  BIGINT NOT NULL
);
CREATE INDEX tallies_by_queue ON tallies (queue, state);
CREATE FUNCTION tally(in_queue TEXT, in_state TEXT, in_jobs BIGINT) RETURNS void LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
    number BIGINT;
BEGIN
    IF in_state IN ('queued', 'running') THEN
        RETURN;
    END IF;
    INSERT INTO tallies (queue, state, jobs) VALUES (in_queue, in_state, in_jobs) RETURNING id INTO number;
    -- Each of so many folds what there is, and waits for no other that is at it.
    IF number % 500 = 0 THEN
        WITH oldest AS (SELECT id FROM tallies ORDER BY id LIMIT 5000 FOR UPDATE SKIP LOCKED),
            folded AS (DELETE FROM tallies USING oldest WHERE tallies.id = oldest.id RETURNING queue, state, jobs)
        INSERT INTO tallies (queue, state, jobs) SELECT queue, state, SUM(jobs) FROM folded GROUP BY queue, state;
    END IF;
END $$;

CREATE FUNCTION end_job() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.state NOT IN ('queued', 'running') THEN
        NEW.ended_at := now_ms();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_end BEFORE UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION end_job();

CREATE FUNCTION tally_job() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM tally(OLD.queue, OLD.state, -1);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM tally(NEW.queue, NEW.state, 1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_tally_new AFTER INSERT OR DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION tally_job();
CREATE TRIGGER jobs_tally_moved AFTER UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION tally_job();

CREATE TABLE health (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    at BIGINT NOT NULL
);

CREATE TABLE control (
    queue      TEXT PRIMARY KEY,
    mode       TEXT NOT NULL,
    mode_by    TEXT NOT NULL,
    mode_since BIGINT NOT NULL,
    mode_until BIGINT,
    mode_then  TEXT NOT NULL
);

CREATE TABLE pauses (
    queue TEXT PRIMARY KEY,
    by    TEXT NOT NULL,
    since BIGINT NOT NULL
);
