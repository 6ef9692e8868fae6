"""Marking what lives among many artifacts: python bench/upkeep.py [COUNT]"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert

from chapkit_flows.artifacts.store import open_store
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.tables import ArtifactRow
from chapkit_flows.refs import digest_of, now
from chapkit_flows.resources import Resources
from chapkit_flows.upkeep.collection import mark

COUNT = 1_000_000
BATCH = 20_000
SECONDS, MEGABYTES = 20, 200


def fill(database: Database, count: int) -> None:
    """Record artifacts, each with bytes of its own."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    for start in range(0, count, BATCH):
        rows = [
            {
                "id": f"{number:026d}",
                "kind": "prediction",
                "level": 1,
                "digest": digest_of(str(number).encode()),
                "size": 10,
                "media_type": "text/csv",
                "codec": "raw",
                "status": "ok",
                "created_at": moment,
                "details": {"rows": 3},
                "ingest_key": None,
            }
            for number in range(start, min(start + BATCH, count))
        ]
        with database.write() as session:
            session.execute(insert(ArtifactRow), rows)


def resident() -> int:
    """The memory of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def main(count: int) -> None:
    """Fill a database, then mark."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/lineage.db")
        fill(database, count)
        resources = Resources(store=open_store(f"{folder}/artifacts"), database=database)
        before, began = resident(), time.perf_counter()
        marked = mark(resources, deleted_before=now() - timedelta(days=30))
        seconds, grown = time.perf_counter() - began, (resident() - before) / 1e6
        database.close()
    verdict = "ok" if seconds <= SECONDS and grown <= MEGABYTES else "OVER"
    print(
        f"gc mark over {len(marked):,} artifacts: {seconds:.1f} s (must be <= {SECONDS}), memory + {grown:.0f} MB "
        f"(must be <= {MEGABYTES}) {verdict}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
