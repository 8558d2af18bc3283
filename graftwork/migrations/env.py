"""What Alembic runs for each command: it uses the connection that it is given and never opens one."""

from alembic import context

from graftwork.database import TABLES

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=TABLES,
    transactional_ddl=True,  # SQLite's too: the connection begins its transactions by hand
)
with context.begin_transaction():
    context.run_migrations()
