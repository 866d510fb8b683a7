-- From version 6 to 7.

-- Ended jobs expire, and the ledger does not: what was done to the world outside stays written down, also where nothing
-- else is known of the job any more. So its rows no longer refer to others.
CREATE TABLE kept_ledger (
    id     INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    effect TEXT NOT NULL CHECK (effect IN ('merge', 'rollback')),
    at     INTEGER NOT NULL
) STRICT;
INSERT INTO kept_ledger SELECT id, job_id, run_id, effect, at FROM ledger;
DROP TRIGGER ledger_keeps_rows;
DROP TRIGGER ledger_keeps_values;
DROP TABLE ledger;
ALTER TABLE kept_ledger RENAME TO ledger;
CREATE INDEX ledger_by_job ON ledger (job_id);
CREATE TRIGGER ledger_keeps_rows BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_keeps_values BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

UPDATE jobs SET ended_at = (SELECT MAX(ended_at) FROM runs WHERE job_id = jobs.id)
WHERE state NOT IN ('queued', 'running');
CREATE INDEX jobs_by_end ON jobs (queue, ended_at) WHERE ended_at IS NOT NULL;
CREATE TRIGGER jobs_tally_gone AFTER DELETE ON jobs
BEGIN
    UPDATE tallies SET jobs = jobs - 1 WHERE queue = OLD.queue AND state = OLD.state;
END;
