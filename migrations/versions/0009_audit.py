"""Who changed what, and when."""

from alembic import op

revision = "0009"
down_revision = "0008"

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
