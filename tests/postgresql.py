"""Databases of the PostgreSQL server that the tests start."""

from __future__ import annotations

from sqlalchemy import create_engine, text


def create_postgresql_database(server: str, name: str) -> str:
    """Make an empty database on a server, whose own URL names the database `postgres`; return its URL."""
    admin = create_engine(server.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return server.replace("/postgres?", f"/{name}?")
