"""Alembic's entry: runs on the connection that src/scheduler/migrate.py hands over."""

import os

from alembic import context
from sqlalchemy import Connection, create_engine

from scheduler import db, history, installation, logstore, planner, queue, replicas, services, task

OWNERS = (history, installation, logstore, planner, queue, replicas, services, task)
"""Importing them declares the tables."""

config = context.config


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        transaction_per_migration=True,
        compare_server_default=False,
    )
    with context.begin_transaction():
        context.run_migrations()


if "connection" in config.attributes:
    run(config.attributes["connection"])
else:  # `make revision`: only the files are needed
    with create_engine(os.environ.get("DATABASE_URL", "sqlite://")).connect() as conn:
        run(conn)
