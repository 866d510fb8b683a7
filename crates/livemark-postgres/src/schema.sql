-- The schema of livemark-postgres, version 1. It can be run again.
--
-- One table has all that a namespace has: marks (m/JOB), sessions (s/LEASE), barriers (t/LEASE), the epoch, and the leases
-- themselves (l/LEASE). What is removed stays for some minutes without a value, so that whoever reads what has changed hears
-- of it, and so that the next write of the key waits for this row, and has a greater revision.
CREATE SCHEMA IF NOT EXISTS livemark;

CREATE SEQUENCE IF NOT EXISTS livemark.revisions;

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
    PRIMARY KEY (namespace, key)
) WITH (
    -- Few rows, which change all the time.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 500
);

CREATE INDEX IF NOT EXISTS rows_by_revision ON livemark.rows (namespace, revision);
CREATE INDEX IF NOT EXISTS rows_by_lease ON livemark.rows (namespace, lease) WHERE lease IS NOT NULL;
CREATE INDEX IF NOT EXISTS leases_by_end ON livemark.rows (namespace, expires) WHERE expires IS NOT NULL;
CREATE INDEX IF NOT EXISTS rows_gone ON livemark.rows (namespace, revision) WHERE value IS NULL AND expires IS NULL;

CREATE OR REPLACE FUNCTION livemark.version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';

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
        SELECT r.revision INTO revision FROM livemark.rows r
            WHERE r.namespace = in_namespace AND r.key = 'epoch' AND r.value IS NOT NULL;
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
                SET revision = put.revision, value = in_value, lease = in_lease, changed = clock_timestamp()
                WHERE r.namespace = in_namespace AND r.key = in_key;
            EXIT;
        END IF;
        INSERT INTO livemark.rows AS r (namespace, key, revision, value, lease)
            VALUES (in_namespace, in_key, put.revision, in_value, in_lease)
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
        SET revision = remove.revision, value = NULL, lease = NULL, changed = clock_timestamp()
        WHERE r.namespace = in_namespace AND r.key = in_key;
    outcome := 'done';
END $$;

-- Bumps the epoch, after the jobs were put back to an earlier state than the marks. It ends all sessions. Returns the new one.
CREATE OR REPLACE FUNCTION livemark.bump_epoch(in_namespace text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    epoch int;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('livemark/' || in_namespace, 0));
    SELECT convert_from(r.value, 'UTF8')::int + 1 INTO epoch FROM livemark.rows r
        WHERE r.namespace = in_namespace AND r.key = 'epoch' AND r.value IS NOT NULL;
    epoch := coalesce(epoch, 1);
    IF epoch > 32767 THEN
        RAISE EXCEPTION '% is the last epoch', epoch - 1;
    END IF;
    PERFORM livemark.put(in_namespace, 'epoch', convert_to(epoch::text, 'UTF8'), NULL, NULL, NULL);
    RETURN epoch;
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
    UPDATE livemark.rows r SET revision = ended, value = NULL, lease = NULL, changed = clock_timestamp()
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

-- Whether the time of a lease is over. While the server did not run, nobody could renew: each has its time again then.
CREATE OR REPLACE FUNCTION livemark.is_over(expires timestamptz, ttl interval) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT expires <= clock_timestamp() AND pg_postmaster_start_time() + ttl <= clock_timestamp()
$$;

-- Ends the leases whose time is over, and forgets what went long ago. Whoever reads changes does this first.
CREATE OR REPLACE FUNCTION livemark.tidy(in_namespace text, in_whole bigint) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    over text;
    forgotten bigint;
BEGIN
    FOR over IN
        SELECT r.key FROM livemark.rows r
            WHERE r.namespace = in_namespace AND r.expires <= clock_timestamp() AND livemark.is_over(r.expires, r.ttl)
            FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM livemark.end_lease(in_namespace, substr(over, 3)::bigint);
    END LOOP;
    -- Nothing is still to come that is older than what is forgotten.
    WITH oldest AS (
        SELECT r.key FROM livemark.rows r
            WHERE r.namespace = in_namespace AND r.value IS NULL AND r.expires IS NULL AND r.revision <= in_whole
              AND r.key <> 'forgotten'
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
EXCEPTION WHEN lock_not_available THEN
    -- Somebody holds one of these rows in a transaction. The next reader tries again.
    NULL;
END $$;

-- Reads what has changed after a revision, or all that is there. The first row, without a key, says of the snapshot that was
-- read which transactions were still under way, what was the latest revision, and up to which one removals are forgotten. Where
-- it draws a number for its own transaction, it says which: all that were drawn before are less. (The end of a snapshot is no
-- such number: transactions that are under way may be beyond it.) And it says of which history it is: another one begins when a
-- replica is promoted or a backup is restored. A replica says nothing.
CREATE OR REPLACE FUNCTION livemark.changes(in_namespace text, in_after bigint, in_whole bigint, in_draws boolean)
RETURNS TABLE (
    key text, revision bigint, value bytea, lease bigint, oldest text, drawn text, latest bigint, history text
) LANGUAGE plpgsql AS $$
DECLARE
    own text;
BEGIN
    IF in_draws THEN
        own := pg_current_xact_id()::text;
    END IF;
    -- It writes only where there is something to write: reading alone draws no number.
    IF EXISTS (
            SELECT 1 FROM livemark.rows r
                WHERE r.namespace = in_namespace AND r.expires <= clock_timestamp() AND livemark.is_over(r.expires, r.ttl)
        )
        OR EXISTS (
            SELECT 1 FROM livemark.rows r
                WHERE r.namespace = in_namespace AND r.value IS NULL AND r.expires IS NULL AND r.key <> 'forgotten'
                  AND r.revision <= in_whole AND r.changed < clock_timestamp() - interval '11 minutes'
        )
    THEN
        PERFORM livemark.tidy(in_namespace, in_whole);
    END IF;
    RETURN QUERY
        SELECT NULL::text,
            (SELECT f.revision FROM livemark.rows f WHERE f.namespace = in_namespace AND f.key = 'forgotten'),
            NULL::bytea, NULL::bigint,
            pg_snapshot_xmin(snapshot)::text, own,
            (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM livemark.revisions s),
            left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
        FROM pg_current_snapshot() AS snapshot
        UNION ALL
        SELECT r.key, r.revision, r.value, r.lease, NULL, NULL, NULL, NULL
        FROM livemark.rows r
        WHERE r.namespace = in_namespace AND r.expires IS NULL AND r.key <> 'forgotten'
          AND r.revision > coalesce(in_after, -1) AND (in_after IS NOT NULL OR r.value IS NOT NULL);
END $$;

-- Locks a mark until the transaction is over, and returns how it is: nobody takes it over meanwhile.
CREATE OR REPLACE FUNCTION livemark.hold(
    in_namespace text, in_key text, OUT revision bigint, OUT value bytea, OUT lease bigint
) LANGUAGE sql SET lock_timeout = '1s' AS $$
    SELECT r.revision, r.value, r.lease FROM livemark.rows r
        WHERE r.namespace = in_namespace AND r.key = in_key AND r.value IS NOT NULL
        FOR SHARE
$$;
