"""The ledger: bounds of triggers, limits of services, states of tasks, lists with indexes."""

from alembic import op

revision = "0002"
down_revision = "0001"

UP = """
ALTER TABLE service
    ADD COLUMN signing_secret bytea NOT NULL
        DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'),
    ADD COLUMN max_tasks            integer,
    ADD COLUMN max_runs_per_minute  integer,
    ADD COLUMN max_in_flight        integer,
    ADD COLUMN max_body_bytes       integer;

-- How much of its runs per minute a service has used: a bucket that leaks.
CREATE TABLE service_usage (
    service_id  uuid             NOT NULL,
    level       double precision NOT NULL,
    at          timestamptz      NOT NULL,
    CONSTRAINT service_usage_pkey PRIMARY KEY (service_id),
    CONSTRAINT service_usage_service_fkey
        FOREIGN KEY (service_id) REFERENCES service (id) ON DELETE CASCADE
) WITH (fillfactor = 50);

-- What runs show of a task that has been edited or deleted since: as of this version, and of those
-- before it back to the row before. Of edits until now nothing is known.
CREATE TABLE task_version (
    key          uuid        NOT NULL,
    bucket       smallint    NOT NULL,
    service_id   uuid        NOT NULL,
    version      integer     NOT NULL,
    trigger      text,
    request      jsonb,
    replaced_at  timestamptz NOT NULL,
    CONSTRAINT task_version_pkey PRIMARY KEY (key, bucket, version),
    CONSTRAINT task_version_times_check CHECK (
        replaced_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX task_version_service ON task_version (service_id);
CREATE INDEX task_version_replaced ON task_version (replaced_at);
INSERT INTO task_version (key, bucket, service_id, version, replaced_at)
SELECT key, bucket, service_id, version - 1, updated_at FROM task WHERE version > 1;

ALTER TABLE task
    ADD COLUMN bounds        jsonb,
    ADD COLUMN paused_until  timestamptz,
    DROP CONSTRAINT task_times_check,
    ADD CONSTRAINT task_times_check CHECK (
        created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND updated_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND paused_until BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z');
-- The lists: of what is common the newest first is a walk of task_newest that soon is full; what
-- is rare has an index of its own.
CREATE INDEX task_resting ON task (service_id, status, created_at, key) WHERE status <> 'active';
CREATE INDEX task_trigger
    ON task (service_id, coalesce(trigger ->> 'kind', 'none'), created_at, key);
-- Each tag and each word with its service: nobody's lists cost by what others wrote.
CREATE INDEX task_tags ON task USING gin (string_to_array(
    ('s' || substr(service_id::text, 29)) || replace(btrim(tags::text, '[]'),
    ', ', ', ' || ('s' || substr(service_id::text, 29))), ', ')) WHERE tags <> '[]';
CREATE INDEX task_words ON task USING gin (to_tsvector('simple',
    regexp_replace(' ' || name || ' ' || coalesce(action ->> 'url', ''),
                   '[\\W_]+', ' s' || substr(service_id::text, 29), 'g')));

CREATE INDEX task_plan_service ON task_plan (service_id, next_plan_at);

-- How a task stands when nothing of it is running: the lists ask for it.
CREATE TABLE task_state (
    key         uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    service_id  uuid        NOT NULL,
    state       text        NOT NULL,
    last        text,
    last_at     timestamptz,
    failures    integer     NOT NULL,
    created_at  timestamptz NOT NULL,
    CONSTRAINT task_state_pkey PRIMARY KEY (key, bucket),
    CONSTRAINT task_state_state_check
        CHECK (state IN ('created', 'pending', 'completed', 'failed')),
    CONSTRAINT task_state_last_check CHECK (last IN ('succeeded', 'failed', 'expired')),
    CONSTRAINT task_state_times_check CHECK (
        last_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
) WITH (fillfactor = 80);
CREATE INDEX task_state_list ON task_state (service_id, state, created_at, key);
INSERT INTO task_state (key, bucket, service_id, state, failures, created_at)
SELECT t.key, t.bucket, t.service_id,
       CASE WHEN p.next_plan_at IS NULL THEN 'created' ELSE 'pending' END, 0, t.created_at
FROM task t JOIN task_plan p ON p.key = t.key AND p.bucket = t.bucket;

-- lanes: how many of its task's runs may be under way at once, null for any number.
-- cancelled: someone asked for it while a replica held it.
-- replayed_at: it has ended before, and is wanted again, however late.
ALTER TABLE run
    ADD COLUMN lanes        smallint,
    ADD COLUMN cancelled    boolean NOT NULL DEFAULT false,
    ADD COLUMN replayed_at  timestamptz,
    ADD CONSTRAINT run_lanes_check CHECK (lanes > 0);
UPDATE run SET lanes = 1 WHERE overlap <> 'allow';
CREATE INDEX run_cancelled ON run (id) WHERE cancelled;
-- What a retry or a replay has moved; the rest stands in run_service in the order of the lists.
CREATE INDEX run_moved ON run (service_id, scheduled_for DESC, id DESC)
    WHERE due <> scheduled_for;

DROP INDEX history_task;
DROP INDEX history_service;
CREATE INDEX history_task ON history (task_key, scheduled_for DESC, id DESC) INCLUDE (attempts_n);
CREATE INDEX history_service ON history (service_id, scheduled_for DESC, id DESC);
CREATE INDEX history_troubled ON history (service_id, state, scheduled_for DESC, id DESC)
    WHERE state <> 'succeeded';
CREATE INDEX history_kind ON history (service_id, kind, scheduled_for DESC, id DESC)
    WHERE kind <> 'task';
CREATE INDEX history_finished ON history USING brin (finished_at) WITH (pages_per_range = 16);
"""

DOWN = """
DROP INDEX history_finished;
DROP INDEX history_kind;
DROP INDEX history_troubled;
DROP INDEX history_service;
DROP INDEX history_task;
CREATE INDEX history_task ON history (task_key, finished_at DESC) INCLUDE (attempts_n);
CREATE INDEX history_service ON history (service_id, finished_at DESC);

DROP INDEX run_moved;
ALTER TABLE run
    DROP COLUMN lanes,
    DROP COLUMN cancelled,
    DROP COLUMN replayed_at;

DROP TABLE task_state;
DROP INDEX task_plan_service;
DROP INDEX task_words;
DROP INDEX task_tags;
DROP INDEX task_trigger;
DROP INDEX task_resting;
ALTER TABLE task
    DROP CONSTRAINT task_times_check,
    DROP COLUMN bounds,
    DROP COLUMN paused_until,
    ADD CONSTRAINT task_times_check CHECK (
        created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND updated_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z');

DROP TABLE task_version;
DROP TABLE service_usage;
ALTER TABLE service
    DROP COLUMN signing_secret,
    DROP COLUMN max_tasks,
    DROP COLUMN max_runs_per_minute,
    DROP COLUMN max_in_flight,
    DROP COLUMN max_body_bytes;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
