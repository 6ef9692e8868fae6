"""Looking after bytes and facts together: the trash, collection, integrity, backups, recovery."""
