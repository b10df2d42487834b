"""Runs migrations on the connection that `fleetd.store.migrate` hands over."""

from alembic import context

from fleetd.store.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit(
        "Migrations are run by fleetd itself: `fleetd migrate`, or at every start of `fleetd serve`."
    )

context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    transactional_ddl=True,
)
context.run_migrations()
