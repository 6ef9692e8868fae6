"""Facts: who made what from what, in a SQL database that outlives the runs. No bytes, no Prefect."""
