-- From version 7 to 8.

-- The greatest token that acted on the job: lesser ones are refused. A process that has the file to itself needs none.
ALTER TABLE jobs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
