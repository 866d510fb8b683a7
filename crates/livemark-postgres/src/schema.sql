-- The schema of livemark-postgres, version 2. It can be run again, and over version 1. Where all is there it locks no table.
--
-- One table has all that a namespace has: marks (m/JOB), sessions (s/LEASE), barriers (t/LEASE), the epoch, and the leases
-- themselves (l/LEASE). What is removed stays for some minutes without a value, so that whoever reads what has changed hears
-- of it, and so that the next write of the key waits for this row, and has a greater revision.
DO $$
DECLARE
    limit_before text := current_setting('lock_timeout');
BEGIN
    -- Each is made only where it is absent: `CREATE INDEX IF NOT EXISTS` locks the table also where the index is there.
    IF to_regnamespace('livemark') IS NULL THEN
        CREATE SCHEMA IF NOT EXISTS livemark;
    END IF;
    IF to_regclass('livemark.revisions') IS NULL THEN
        CREATE SEQUENCE IF NOT EXISTS livemark.revisions;
    END IF;
    IF to_regclass('livemark.rows') IS NULL THEN
        CREATE TABLE IF NOT EXISTS livemark.rows (
            namespace text COLLATE "C" NOT NULL,
            key text COLLATE "C" NOT NULL,
            revision bigint NOT NULL,
            -- NULL: it is gone.
            value bytea,
            -- With which lease it goes.
            lease bigint,
            -- Of leases only: until when it stands, on the server's clock, and for how long each renewal is.
            expires timestamptz,
            ttl interval,
            changed timestamptz NOT NULL DEFAULT clock_timestamp(),
            -- The transaction that wrote it last. Who has seen that one need not read the row again.
            written_by xid8,
            PRIMARY KEY (namespace, key)
        ) WITH (
            -- Few rows, which change all the time.
            fillfactor = 70,
            autovacuum_vacuum_scale_factor = 0.02,
            autovacuum_vacuum_threshold = 500
        );
    END IF;
    -- Since when the server runs, as it was first seen to. A crash empties this table, also the crash of one process, and so
    -- does a promotion. It is no part of a backup.
    IF to_regclass('livemark.server') IS NULL THEN
        CREATE UNLOGGED TABLE IF NOT EXISTS livemark.server (
            id int PRIMARY KEY CHECK (id = 1),
            started timestamptz NOT NULL,
            since timestamptz NOT NULL
        );
    END IF;
    -- What is made at a table that is in use waits for the transactions that have written to it, and all writers wait behind.
    PERFORM set_config('lock_timeout', '2s', true);
    IF NOT EXISTS (
        SELECT 1 FROM pg_attribute a
        WHERE a.attrelid = 'livemark.rows'::regclass AND a.attname = 'written_by' AND NOT a.attisdropped
    ) THEN
        ALTER TABLE livemark.rows ADD COLUMN written_by xid8;
    END IF;
    IF to_regclass('livemark.rows_by_revision') IS NULL THEN
        CREATE INDEX IF NOT EXISTS rows_by_revision ON livemark.rows (namespace, revision);
    END IF;
    IF to_regclass('livemark.rows_by_lease') IS NULL THEN
        CREATE INDEX IF NOT EXISTS rows_by_lease ON livemark.rows (namespace, lease) WHERE lease IS NOT NULL;
    END IF;
    IF to_regclass('livemark.leases_by_end') IS NULL THEN
        CREATE INDEX IF NOT EXISTS leases_by_end ON livemark.rows (namespace, expires) WHERE expires IS NOT NULL;
    END IF;
    IF to_regclass('livemark.rows_gone') IS NULL THEN
        CREATE INDEX IF NOT EXISTS rows_gone ON livemark.rows (namespace, revision)
            WHERE value IS NULL AND expires IS NULL;
    END IF;
    PERFORM set_config('lock_timeout', limit_before, true);
END $$;

-- A write must be there once it is answered, whatever else of the application need not be. And its transaction has its number
-- before it draws a revision: see livemark.changes.
CREATE OR REPLACE FUNCTION livemark.begin_write() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_current_xact_id();
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- Writes a key. A condition is NULL for none, 0 for a key that is not there, or the revision that it was last written at.
CREATE OR REPLACE FUNCTION livemark.put(
    in_namespace text, in_key text, in_value bytea, in_lease bigint, in_condition bigint, in_epoch bigint,
    OUT outcome text, OUT revision bigint, OUT value bytea, OUT lease bigint
) LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    there livemark.rows%ROWTYPE;
    is_known boolean;
    is_there boolean;
    has_lease boolean := true;
BEGIN
    PERFORM livemark.begin_write();
    -- 1. The epoch stands still until this transaction is over, or it is another one.
    IF in_key = 'epoch' THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('livemark/' || in_namespace, 0));
    ELSIF in_epoch IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock_shared(hashtextextended('livemark/' || in_namespace, 0));
        IF current_setting('transaction_isolation') = 'read committed' THEN
            SELECT r.revision INTO revision FROM livemark.rows r
                WHERE r.namespace = in_namespace AND r.key = 'epoch' AND r.value IS NOT NULL;
        ELSE
            -- The transaction's snapshot may be older than the epoch. To lock the row fails then, and it is there since the
            -- first lease was granted.
            SELECT CASE WHEN r.value IS NOT NULL THEN r.revision END INTO revision FROM livemark.rows r
                WHERE r.namespace = in_namespace AND r.key = 'epoch'
                FOR SHARE;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'the transaction is older than the first lease of the namespace %', in_namespace
                    USING ERRCODE = 'serialization_failure';
            END IF;
        END IF;
        IF coalesce(revision, 0) <> in_epoch THEN
            outcome := 'new epoch';
            RETURN;
        END IF;
    END IF;
    -- 2. The lease stands until then: nobody ends it meanwhile. Renewals need not wait for this.
    IF in_lease IS NOT NULL THEN
        PERFORM 1 FROM livemark.rows r
            WHERE r.namespace = in_namespace AND r.key = 'l/' || in_lease
            FOR KEY SHARE;
        has_lease := FOUND;
    END IF;
    LOOP
        -- 3. The key, which nobody else writes until then.
        SELECT * INTO there FROM livemark.rows r WHERE r.namespace = in_namespace AND r.key = in_key FOR NO KEY UPDATE;
        is_known := FOUND;
        is_there := is_known AND there.value IS NOT NULL;
        IF (in_condition = 0 AND is_there) OR (in_condition > 0 AND (NOT is_there OR there.revision <> in_condition)) THEN
            outcome := 'refused';
            revision := NULL;
            IF is_there THEN
                revision := there.revision;
                value := there.value;
                lease := there.lease;
            END IF;
            RETURN;
        END IF;
        IF NOT has_lease THEN
            outcome := 'no lease';
            RETURN;
        END IF;
        -- 4. A revision that is drawn while the row is locked is greater than all that the key had.
        revision := nextval('livemark.revisions');
        IF is_known THEN
            UPDATE livemark.rows r
                SET revision = put.revision, value = in_value, lease = in_lease, changed = clock_timestamp(),
                    written_by = pg_current_xact_id()
                WHERE r.namespace = in_namespace AND r.key = in_key;
            EXIT;
        END IF;
        INSERT INTO livemark.rows AS r (namespace, key, revision, value, lease, written_by)
            VALUES (in_namespace, in_key, put.revision, in_value, in_lease, pg_current_xact_id())
            ON CONFLICT ON CONSTRAINT rows_pkey DO NOTHING;
        EXIT WHEN FOUND;
        -- Somebody else was first: look again.
    END LOOP;
    outcome := 'done';
END $$;

-- Removes a key.
CREATE OR REPLACE FUNCTION livemark.remove(
    in_namespace text, in_key text, in_condition bigint,
    OUT outcome text, OUT revision bigint, OUT value bytea, OUT lease bigint
) LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    there livemark.rows%ROWTYPE;
BEGIN
    PERFORM livemark.begin_write();
    IF in_key = 'epoch' THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('livemark/' || in_namespace, 0));
    END IF;
    SELECT * INTO there FROM livemark.rows r WHERE r.namespace = in_namespace AND r.key = in_key FOR NO KEY UPDATE;
    outcome := 'refused';
    IF NOT FOUND OR there.value IS NULL THEN
        RETURN;
    END IF;
    IF in_condition = 0 OR there.revision <> in_condition THEN
        revision := there.revision;
        value := there.value;
        lease := there.lease;
        RETURN;
    END IF;
    revision := nextval('livemark.revisions');
    UPDATE livemark.rows r
        SET revision = remove.revision, value = NULL, lease = NULL, changed = clock_timestamp(),
            written_by = pg_current_xact_id()
        WHERE r.namespace = in_namespace AND r.key = in_key;
    outcome := 'done';
END $$;

-- Bumps the epoch, after the marks were put back to an earlier state than the jobs. It ends all sessions. Returns the new one.
-- It waits for the transactions of others that have marked, and gives up after a second: nobody marks meanwhile.
CREATE OR REPLACE FUNCTION livemark.bump_epoch(in_namespace text) RETURNS int
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    epoch int;
    latest bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('livemark/' || in_namespace, 0));
    SELECT convert_from(r.value, 'UTF8')::int + 1 INTO epoch FROM livemark.rows r
        WHERE r.namespace = in_namespace AND r.key = 'epoch' AND r.value IS NOT NULL;
    epoch := coalesce(epoch, 1);
    IF epoch > 32767 THEN
        RAISE EXCEPTION '% is the last epoch', epoch - 1;
    END IF;
    -- Rows without their sequence, as a logical replica has them: what is written must come after all that is there. Others
    -- may draw meanwhile, so it goes some way beyond, and never back.
    SELECT max(r.revision) INTO latest FROM livemark.rows r;
    IF latest > (SELECT s.last_value FROM livemark.revisions s) THEN
        PERFORM setval('livemark.revisions', latest + 10000);
    END IF;
    PERFORM livemark.put(in_namespace, 'epoch', convert_to(epoch::text, 'UTF8'), NULL, NULL, NULL);
    RETURN epoch;
END $$;

-- Notes since when the server runs, where it has started since that was noted last.
CREATE OR REPLACE FUNCTION livemark.note_start() RETURNS void LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
BEGIN
    INSERT INTO livemark.server AS s (id, started, since)
        VALUES (1, pg_postmaster_start_time(), clock_timestamp())
        ON CONFLICT (id) DO UPDATE SET started = excluded.started, since = excluded.since
            WHERE s.started <> excluded.started;
EXCEPTION WHEN lock_not_available OR serialization_failure THEN
    -- Somebody else is at it.
    NULL;
END $$;

-- Grants a lease. Returns its number.
CREATE OR REPLACE FUNCTION livemark.grant_lease(in_namespace text, in_ttl interval) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    id bigint;
BEGIN
    PERFORM livemark.begin_write();
    id := nextval('livemark.revisions');
    INSERT INTO livemark.rows (namespace, key, revision, expires, ttl)
        VALUES (in_namespace, 'l/' || id, id, clock_timestamp() + in_ttl, in_ttl);
    -- The epoch has a row, also where there is none: see livemark.put.
    IF NOT EXISTS (SELECT 1 FROM livemark.rows r WHERE r.namespace = in_namespace AND r.key = 'epoch') THEN
        INSERT INTO livemark.rows (namespace, key, revision) VALUES (in_namespace, 'epoch', 0)
            ON CONFLICT ON CONSTRAINT rows_pkey DO NOTHING;
    END IF;
    RETURN id;
END $$;

-- Renews a lease. Returns its time to live in seconds, or NULL if it has ended. One whose time is over and that nobody has ended
-- is renewed: its keys never went.
CREATE OR REPLACE FUNCTION livemark.renew_lease(in_namespace text, in_lease bigint) RETURNS double precision
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    granted interval;
BEGIN
    PERFORM livemark.begin_write();
    UPDATE livemark.rows r SET expires = clock_timestamp() + r.ttl
        WHERE r.namespace = in_namespace AND r.key = 'l/' || in_lease
        RETURNING r.ttl INTO granted;
    RETURN extract(epoch FROM granted);
END $$;

-- Ends leases whose rows are locked: all their keys go in one revision each.
CREATE OR REPLACE FUNCTION livemark.end_lease(in_namespace text, in_lease bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ended bigint;
BEGIN
    PERFORM livemark.begin_write();
    ended := nextval('livemark.revisions');
    UPDATE livemark.rows r
        SET revision = ended, value = NULL, lease = NULL, changed = clock_timestamp(), written_by = pg_current_xact_id()
        WHERE r.namespace = in_namespace AND r.lease = in_lease;
    DELETE FROM livemark.rows r WHERE r.namespace = in_namespace AND r.key = 'l/' || in_lease;
END $$;

-- Ends a lease, whatever its time.
CREATE OR REPLACE FUNCTION livemark.revoke_lease(in_namespace text, in_lease bigint) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
BEGIN
    PERFORM 1 FROM livemark.rows r WHERE r.namespace = in_namespace AND r.key = 'l/' || in_lease FOR UPDATE;
    IF FOUND THEN
        PERFORM livemark.end_lease(in_namespace, in_lease);
    END IF;
END $$;

-- Whether the time of a lease is over. While the server did not run, or recovered, nobody could renew: each has its time again
-- from when the server was first seen to run. The time of a start does not serve, since recovery may take longer than a TTL,
-- and since the crash of one process has no start.
CREATE OR REPLACE FUNCTION livemark.is_over(expires timestamptz, ttl interval) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT expires <= clock_timestamp() AND EXISTS (
        SELECT 1 FROM livemark.server s
        WHERE s.started = pg_postmaster_start_time() AND s.since + ttl <= clock_timestamp()
    )
$$;

-- Ends the leases whose time is over, and forgets what went long ago. Whoever reads changes does this first.
CREATE OR REPLACE FUNCTION livemark.tidy(in_namespace text, in_whole bigint) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    over bigint;
    forgotten bigint;
BEGIN
    -- Each by itself: where somebody holds one of its rows in a transaction, the next reader tries again, and nobody waits.
    FOR over IN
        SELECT substr(r.key, 3)::bigint FROM livemark.rows r
            WHERE r.namespace = in_namespace AND r.expires <= clock_timestamp() AND livemark.is_over(r.expires, r.ttl)
    LOOP
        BEGIN
            PERFORM 1 FROM livemark.rows r
                WHERE r.namespace = in_namespace AND r.key = 'l/' || over AND livemark.is_over(r.expires, r.ttl)
                FOR UPDATE SKIP LOCKED;
            IF FOUND THEN
                PERFORM 1 FROM livemark.rows r
                    WHERE r.namespace = in_namespace AND r.lease = over
                    FOR NO KEY UPDATE NOWAIT;
                PERFORM livemark.end_lease(in_namespace, over);
            END IF;
        EXCEPTION WHEN lock_not_available OR serialization_failure OR deadlock_detected THEN
            NULL;
        END;
    END LOOP;
    -- Nothing is still to come that is older than what is forgotten: all up to `in_whole` was in a snapshot of the reader's.
    -- Another reader that has not come so far is told by the row `forgotten`.
    BEGIN
        WITH oldest AS (
            SELECT r.key FROM livemark.rows r
                WHERE r.namespace = in_namespace AND r.value IS NULL AND r.expires IS NULL AND r.revision <= in_whole
                  AND r.key NOT IN ('forgotten', 'epoch')
                ORDER BY r.revision LIMIT 500
                FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM livemark.rows r USING oldest
                WHERE r.namespace = in_namespace AND r.key = oldest.key AND r.value IS NULL
                  AND r.changed < clock_timestamp() - interval '10 minutes'
                RETURNING r.revision
        )
        SELECT max(gone.revision) INTO forgotten FROM gone;
        IF forgotten IS NOT NULL THEN
            INSERT INTO livemark.rows AS r (namespace, key, revision) VALUES (in_namespace, 'forgotten', forgotten)
                ON CONFLICT ON CONSTRAINT rows_pkey DO UPDATE SET revision = greatest(r.revision, excluded.revision);
        END IF;
    EXCEPTION WHEN lock_not_available OR serialization_failure OR deadlock_detected THEN
        NULL;
    END;
END $$;

-- Reads what has changed after a revision, or all that is there, but for what an earlier snapshot has: while something early is
-- still to come, what is later is read once. The first row, without a key, says of the snapshot that was read which
-- transactions were still under way, what was the latest revision, and up to which one removals are forgotten. Where it draws
-- a number for its own transaction, it says which: all that were drawn before are less. (The end of a snapshot is no such
-- number: transactions that are under way may be beyond it.) And it says of which history it is: another one begins when a
-- replica is promoted or a backup is restored. What was whole in another history says nothing. A replica says nothing.
DROP FUNCTION IF EXISTS livemark.changes(text, bigint, bigint, boolean);
CREATE OR REPLACE FUNCTION livemark.changes(
    in_namespace text, in_after bigint, in_whole bigint, in_history text, in_draws boolean, in_snapshot text
) RETURNS TABLE (
    key text, revision bigint, value bytea, lease bigint, oldest text, drawn text, latest bigint, history text, taken text
) LANGUAGE plpgsql AS $$
DECLARE
    own text;
    here text := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
    before pg_snapshot := in_snapshot::pg_snapshot;
BEGIN
    IF in_draws THEN
        own := pg_current_xact_id()::text;
    END IF;
    -- It writes only where there is something to write: reading alone draws no number.
    IF NOT EXISTS (SELECT 1 FROM livemark.server s WHERE s.started = pg_postmaster_start_time()) THEN
        PERFORM livemark.note_start();
    END IF;
    IF EXISTS (
            SELECT 1 FROM livemark.rows r
                WHERE r.namespace = in_namespace AND r.expires <= clock_timestamp() AND livemark.is_over(r.expires, r.ttl)
        )
        OR here = in_history AND EXISTS (
            SELECT 1 FROM livemark.rows r
                WHERE r.namespace = in_namespace AND r.value IS NULL AND r.expires IS NULL
                  AND r.key NOT IN ('forgotten', 'epoch')
                  AND r.revision <= in_whole AND r.changed < clock_timestamp() - interval '11 minutes'
        )
    THEN
        PERFORM livemark.tidy(in_namespace, CASE WHEN here = in_history THEN in_whole ELSE 0 END);
    END IF;
    RETURN QUERY
        SELECT NULL::text,
            (SELECT f.revision FROM livemark.rows f WHERE f.namespace = in_namespace AND f.key = 'forgotten'),
            NULL::bytea, NULL::bigint,
            pg_snapshot_xmin(now_taken)::text, own,
            (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM livemark.revisions s),
            here, now_taken::text
        FROM pg_current_snapshot() AS now_taken
        UNION ALL
        SELECT r.key, r.revision, r.value, r.lease, NULL, NULL, NULL, NULL, NULL
        FROM livemark.rows r
        WHERE r.namespace = in_namespace AND r.expires IS NULL AND r.key <> 'forgotten'
          AND r.revision > coalesce(in_after, -1) AND (in_after IS NOT NULL OR r.value IS NOT NULL)
          AND (before IS NULL OR r.written_by IS NULL OR NOT pg_visible_in_snapshot(r.written_by, before));
END $$;

-- Locks a mark until the transaction is over, and returns how it is: nobody takes it over meanwhile.
CREATE OR REPLACE FUNCTION livemark.hold(
    in_namespace text, in_key text, OUT revision bigint, OUT value bytea, OUT lease bigint
) LANGUAGE sql SET lock_timeout = '1s' AS $$
    SELECT r.revision, r.value, r.lease FROM livemark.rows r
        WHERE r.namespace = in_namespace AND r.key = in_key AND r.value IS NOT NULL
        FOR SHARE
$$;

-- The last thing: where it says so, all of this is there.
CREATE OR REPLACE FUNCTION livemark.version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2';
