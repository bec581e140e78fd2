"""Deleted tasks, for as long as they can be had back."""

from alembic import op

revision = "0010"
down_revision = "0009"

UP = """
"""

DOWN = """
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
