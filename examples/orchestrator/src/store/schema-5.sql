-- From version 4 to 5.

-- When things happened that are shown on a job's time line. Rows of earlier versions do not know.
ALTER TABLE jobs ADD COLUMN submitted_at INTEGER;
ALTER TABLE jobs ADD COLUMN ended_at INTEGER;
ALTER TABLE runs ADD COLUMN started_at INTEGER;
ALTER TABLE runs ADD COLUMN marked_at INTEGER; -- its monitor's mark, or the claim that it was redriven under
CREATE TRIGGER jobs_end AFTER UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NEW.state NOT IN ('queued', 'running')
BEGIN
    UPDATE jobs SET ended_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) WHERE id = NEW.id;
END;
CREATE INDEX jobs_by_kind ON jobs (queue, state, kind);
CREATE INDEX tasks_by_run ON tasks (run_id);

-- What a note tells of.
ALTER TABLE notes ADD COLUMN kind TEXT NOT NULL DEFAULT 'run'
    CHECK (kind IN ('run', 'verdict', 'redrive', 'reap', 'mode', 'action', 'trouble'));
UPDATE notes SET kind = CASE
    WHEN who = 'operator' OR what LIKE 'starts, mode%' THEN 'mode'
    WHEN what LIKE 'redrives it%' THEN 'redrive'
    WHEN what LIKE 'reaps it%' OR what LIKE 'ends it%' THEN 'reap'
    WHEN what LIKE 'leaves it out%' THEN 'trouble'
    ELSE 'verdict'
END WHERE who IN ('reaper', 'operator');
CREATE INDEX notes_by_job ON notes (job_id);
CREATE INDEX notes_by_kind ON notes (queue, kind);
