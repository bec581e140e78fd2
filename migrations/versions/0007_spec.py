"""Specs and processes: OpenAPI documents, what they compile to, and calls through them."""

from alembic import op

revision = "0007"
down_revision = "0006"

UP = """
-- draft: the document that came last. serving: the one that calls go through, null before the
-- first. version: changes with everything that a call depends on. A version before this one passes
-- over runs of kind spec and process.
CREATE TABLE spec (
    key         uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    service_id  uuid        NOT NULL,
    trace_id    text        NOT NULL,
    name        text        NOT NULL,
    version     integer     NOT NULL,
    draft       integer     NOT NULL,
    serving     integer,
    status      text        NOT NULL,
    reached     text        NOT NULL,
    error       text,
    headers     jsonb       NOT NULL,
    url         text,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT spec_pkey PRIMARY KEY (key, bucket),
    CONSTRAINT spec_name_key UNIQUE (bucket, service_id, name),
    CONSTRAINT spec_trace_key UNIQUE (bucket, service_id, trace_id),
    CONSTRAINT spec_status_check CHECK (status IN
        ('WAITING', 'IN_PROGRESS', 'READY_YAML', 'READY_CLIENT', 'SUCCESS', 'ERROR')),
    CONSTRAINT spec_error_check CHECK ((status = 'ERROR') = (error IS NOT NULL)),
    CONSTRAINT spec_numbers_check CHECK (version > 0 AND draft > 0 AND serving <= draft),
    CONSTRAINT spec_times_check CHECK (
        created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND updated_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX spec_created ON spec (service_id, created_at, key);
CREATE INDEX spec_unfinished ON spec (key) WHERE status NOT IN ('SUCCESS', 'ERROR');

-- source: as it was sent. document and client: what it compiled to, client without its operations.
CREATE TABLE spec_document (
    spec_key    uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    service_id  uuid        NOT NULL,
    draft       integer     NOT NULL,
    sha256      text        NOT NULL,
    source      bytea       NOT NULL,
    document    bytea,
    client      jsonb,
    refused     jsonb,
    package     bytea,
    created_at  timestamptz NOT NULL,
    CONSTRAINT spec_document_pkey PRIMARY KEY (spec_key, bucket, draft),
    CONSTRAINT spec_document_times_check CHECK (
        created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX spec_document_service ON spec_document (service_id);

CREATE TABLE spec_operation (
    spec_key    uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    service_id  uuid        NOT NULL,
    draft       integer     NOT NULL,
    endpoint    text        NOT NULL,
    place       integer     NOT NULL,
    operation   jsonb       NOT NULL,
    CONSTRAINT spec_operation_pkey PRIMARY KEY (spec_key, bucket, draft, endpoint)
);
CREATE INDEX spec_operation_service ON spec_operation (service_id);

CREATE TABLE spec_archive (
    key         uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    service_id  uuid        NOT NULL,
    trace_id    text        NOT NULL,
    name        text        NOT NULL,
    content     jsonb       NOT NULL,
    source      bytea       NOT NULL,
    archived_at timestamptz NOT NULL,
    CONSTRAINT spec_archive_pkey PRIMARY KEY (key, bucket),
    CONSTRAINT spec_archive_times_check CHECK (
        archived_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX spec_archive_service ON spec_archive (service_id, archived_at);

-- The run of a process has its key as task_key, and its trace_id as task_id.
CREATE TABLE process (
    key             uuid        NOT NULL,
    bucket          smallint    NOT NULL,
    service_id      uuid        NOT NULL,
    trace_id        text        NOT NULL,
    service         text        NOT NULL,
    method          text        NOT NULL,
    endpoint        text        NOT NULL,
    headers         jsonb       NOT NULL,
    query_params    text,
    url_params      text,
    req_body        text,
    url             text,
    max_retries     smallint,
    timeout_seconds double precision,
    cache           boolean,
    priority        smallint    NOT NULL,
    callback_url    text,
    called_at       timestamptz,
    scheduled_at    timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    CONSTRAINT process_pkey PRIMARY KEY (key, bucket),
    CONSTRAINT process_trace_key UNIQUE (bucket, service_id, trace_id),
    CONSTRAINT process_times_check CHECK (
        scheduled_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX process_service ON process (service_id, created_at, key);
CREATE INDEX process_created ON process (created_at);
CREATE INDEX process_callback ON process (scheduled_at)
    WHERE callback_url IS NOT NULL AND called_at IS NULL;

-- Answers that are longer than what a run keeps.
CREATE TABLE response (
    id          uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    service_id  uuid        NOT NULL,
    body        bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    CONSTRAINT response_pkey PRIMARY KEY (id, bucket),
    CONSTRAINT response_times_check CHECK (
        created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX response_service ON response (service_id);
CREATE INDEX response_created ON response (created_at);
ALTER TABLE response ALTER COLUMN body SET STORAGE EXTERNAL;

-- What is lost in a crash is asked for again. response_id: the body lies there.
CREATE UNLOGGED TABLE response_cache (
    key          bytea       NOT NULL,
    bucket       smallint    NOT NULL,
    service_id   uuid        NOT NULL,
    status       smallint    NOT NULL,
    content_type text,
    body         bytea,
    response_id  uuid,
    size         integer     NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    CONSTRAINT response_cache_pkey PRIMARY KEY (key, bucket),
    CONSTRAINT response_cache_times_check CHECK (
        created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND expires_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX response_cache_service ON response_cache (service_id);
CREATE INDEX response_cache_expires ON response_cache (expires_at);

-- Which tasks call a spec: what a change of its document breaks is asked of these.
CREATE INDEX task_operation ON task (service_id, (action ->> 'service'), created_at, key)
    WHERE action ->> 'kind' = 'operation';
"""

DOWN = """
DROP INDEX task_operation;
DROP TABLE response_cache;
DROP TABLE response;
DROP TABLE process;
DROP TABLE spec_archive;
DROP TABLE spec_operation;
DROP TABLE spec_document;
DROP TABLE spec;
DELETE FROM run WHERE kind IN ('process', 'spec');
DELETE FROM history WHERE kind IN ('process', 'spec');
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
