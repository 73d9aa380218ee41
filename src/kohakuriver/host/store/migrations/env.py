"""Alembic's entry: runs the migrations on the connection that `store.migrate` hands over."""

from alembic import context

from kohakuriver.host.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
