-- From version 7 to 8.

-- The largest fencing token that anybody has acted on the job or ended it with. Who comes with a smaller one is late.
ALTER TABLE jobs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
