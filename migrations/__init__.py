"""Alembic migrations, shipped with the package. Forward only; the first line of each says why it exists."""
