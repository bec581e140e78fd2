"""The spine: services, tasks, the queue, history, replicas."""

from alembic import op

revision = "0001"
down_revision = None

UP = """
CREATE TABLE service (
    id              uuid        NOT NULL,
    name            text        NOT NULL,
    allow_commands  boolean     NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT service_pkey PRIMARY KEY (id),
    CONSTRAINT service_name_key UNIQUE (name)
);

CREATE TABLE token (
    id            uuid        NOT NULL,
    service_id    uuid        NOT NULL,
    hash          bytea       NOT NULL,
    created_at    timestamptz NOT NULL,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    CONSTRAINT token_pkey PRIMARY KEY (id),
    CONSTRAINT token_hash_key UNIQUE (hash),
    CONSTRAINT token_service_fkey FOREIGN KEY (service_id) REFERENCES service (id) ON DELETE CASCADE
);
CREATE INDEX token_service ON token (service_id);

CREATE TABLE task (
    key           uuid        NOT NULL,
    bucket        smallint    NOT NULL,
    service_id    uuid        NOT NULL,
    id            text        NOT NULL,
    version       integer     NOT NULL,
    name          text        NOT NULL,
    description   text,
    tags          jsonb       NOT NULL,
    status        text        NOT NULL,
    trigger       jsonb,
    action        jsonb       NOT NULL,
    policy        jsonb       NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    CONSTRAINT task_pkey PRIMARY KEY (key, bucket),
    CONSTRAINT task_id_key UNIQUE (service_id, id, bucket),
    CONSTRAINT task_status_check CHECK (status IN ('active', 'paused', 'disabled')),
    CONSTRAINT task_version_check CHECK (version > 0),
    CONSTRAINT task_times_check CHECK (
        created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND updated_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX task_newest ON task (service_id, created_at, key);

CREATE TABLE task_plan (
    key            uuid        NOT NULL,
    bucket         smallint    NOT NULL,
    service_id     uuid        NOT NULL,
    next_plan_at   timestamptz,
    planned_until  timestamptz NOT NULL,
    planned_runs   bigint      NOT NULL,
    CONSTRAINT task_plan_pkey PRIMARY KEY (key, bucket),
    -- Not every time that Postgres holds can be held in Python: infinity, and years beyond 9999.
    CONSTRAINT task_plan_times_check CHECK (
        next_plan_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND planned_until BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
) WITH (fillfactor = 80);
CREATE INDEX task_plan_next ON task_plan (next_plan_at);

-- The live queue. No index and no predicate names claimed_by, so that a claim is a HOT update;
-- a claimed row is larger, so a page must have room for all of its rows once more, and then some.
CREATE TABLE run (
    id             uuid        NOT NULL,
    bucket         smallint    NOT NULL,
    service_id     uuid        NOT NULL,
    task_key       uuid,
    task_id        text,
    kind           text        NOT NULL,
    version        integer     NOT NULL,
    overlap        text        NOT NULL,
    priority       smallint    NOT NULL,
    scheduled_for  timestamptz NOT NULL,
    due            timestamptz NOT NULL,
    max_retries    smallint,
    attempts       jsonb       NOT NULL,
    attempts_n     integer     NOT NULL,
    claimed_by     uuid,
    created_at     timestamptz NOT NULL,
    CONSTRAINT run_pkey PRIMARY KEY (id, bucket),
    CONSTRAINT run_overlap_check CHECK (overlap IN ('skip', 'allow', 'queue')),
    CONSTRAINT run_attempts_check CHECK (attempts_n >= 0),
    CONSTRAINT run_times_check CHECK (
        scheduled_for BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND due BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
) WITH (fillfactor = 45, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX run_due ON run (due);
CREATE INDEX run_service ON run (service_id, due);
CREATE INDEX run_task ON run (task_key, scheduled_for);

CREATE TABLE history (
    id             uuid        NOT NULL,
    bucket         smallint    NOT NULL,
    service_id     uuid        NOT NULL,
    task_key       uuid,
    task_id        text,
    kind           text        NOT NULL,
    version        integer     NOT NULL,
    scheduled_for  timestamptz NOT NULL,
    state          text        NOT NULL,
    reason         text,
    attempts       jsonb       NOT NULL,
    attempts_n     integer     NOT NULL,
    created_at     timestamptz NOT NULL,
    started_at     timestamptz,
    finished_at    timestamptz NOT NULL,
    response       bytea,
    truncated      boolean     NOT NULL,
    count          integer     NOT NULL,
    gap_from       timestamptz,
    gap_to         timestamptz,
    CONSTRAINT history_pkey PRIMARY KEY (id, bucket, finished_at),
    CONSTRAINT history_state_check
        CHECK (state IN ('succeeded', 'failed', 'skipped', 'expired', 'cancelled')),
    CONSTRAINT history_reason_check CHECK (state = 'succeeded' OR reason IS NOT NULL),
    CONSTRAINT history_times_check CHECK (
        scheduled_for BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND started_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND gap_from BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND gap_to BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'),
    CONSTRAINT history_gap_check CHECK (count > 0 AND (gap_from IS NULL) = (gap_to IS NULL))
) PARTITION BY RANGE (finished_at);
CREATE INDEX history_task ON history (task_key, finished_at DESC) INCLUDE (attempts_n);
CREATE INDEX history_service ON history (service_id, finished_at DESC);

CREATE TABLE replica (
    id          uuid        NOT NULL,
    beat        bigint      NOT NULL,
    beat_at     timestamptz NOT NULL,
    role        text        NOT NULL,
    host        text        NOT NULL,
    pid         integer     NOT NULL,
    version     text        NOT NULL,
    started_at  timestamptz NOT NULL,
    CONSTRAINT replica_pkey PRIMARY KEY (id)
) WITH (fillfactor = 50);
"""

DOWN = """
DROP TABLE replica;
DROP TABLE history;
DROP TABLE run;
DROP TABLE task_plan;
DROP TABLE task;
DROP TABLE token;
DROP TABLE service;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
