-- From version 3 to 4.

-- Written anew by each check of the service's health: whether a store can be written is only told by writing to it.
CREATE TABLE health (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;
