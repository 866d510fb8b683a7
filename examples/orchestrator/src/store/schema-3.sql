-- From version 2 to 3.

-- How often the reaper has redriven the job: counted where the redrive is taken, and kept over a restart. Files of
-- earlier versions did not count.
ALTER TABLE jobs ADD COLUMN redrives INTEGER NOT NULL DEFAULT 0;
