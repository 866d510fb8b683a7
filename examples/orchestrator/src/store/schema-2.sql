-- From version 1 to 2. A new file takes this step too, so there is one schema, however it came to be.

ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'default'; -- which commands are its own

-- Where the run is: 'process', 'marked', 'stamped', the name of a gate, 'commit'. Written before the work of the stage
-- begins, so that after a kill it can be told what was going on.
ALTER TABLE runs ADD COLUMN stage TEXT NOT NULL DEFAULT 'process';
CREATE INDEX runs_open ON runs (job_id) WHERE ended_at IS NULL;

-- Jobs by state, kept by triggers: ended jobs pile up for ever, and nobody is to count them again for each look.
CREATE TABLE tallies (
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    jobs  INTEGER NOT NULL,
    PRIMARY KEY (queue, state)
) STRICT, WITHOUT ROWID;
INSERT INTO tallies SELECT queue, state, COUNT(*) FROM jobs GROUP BY queue, state;
CREATE TRIGGER jobs_tally_new AFTER INSERT ON jobs
BEGIN
    INSERT INTO tallies VALUES (NEW.queue, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER jobs_tally_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state
BEGIN
    UPDATE tallies SET jobs = jobs - 1 WHERE queue = OLD.queue AND state = OLD.state;
    INSERT INTO tallies VALUES (NEW.queue, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
