"""The database, and the only place that knows SQLAlchemy."""
