"""An upgrade that is killed at each of its statements, on every kind of database."""

from __future__ import annotations

import json

from every_database import RunTogether, on_every_database
from killed_works import MIGRATE

from chapkit_flows.lineage.migrations import REVISIONS

DRIVER = """
import json, os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine
from chapkit_flows.lineage.dump import dump
from chapkit_flows.lineage.migrations.upgrade import downgrade
from chapkit_flows.testing.facts import record_chain

def go_back():
    with database.write() as session:
        downgrade(session.connection(), FIRST)
    database.close()

def upgrade_and_die(step):
    # A child for each step; no connection is open that it could share.
    child = os.fork()
    if child == 0:
        count = 0

        def kill(connection, cursor, statement, *rest):
            nonlocal count
            count += statement.lstrip().upper().startswith(("CREATE", "ALTER", "DROP", "INSERT", "UPDATE"))
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", kill)
        open_database(url).close()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

database = open_database(url)
record_chain(database)
expected, endings, step = list(dump(database)), [], 0
while not endings or endings[-1]:
    go_back()
    step += 1
    endings.append(upgrade_and_die(step))
    database = open_database(url)
    assert expected == list(dump(database)), step
database.close()
print(json.dumps(endings))
"""


@on_every_database
def test_upgrade_killed_at_each_statement(url: str, run_together: RunTogether) -> None:
    """Wherever an upgrade from the first revision dies, the next process brings it to its end, with all facts."""
    (end,) = run_together(f"FIRST = {REVISIONS[0]!r}\n{DRIVER}", 1)
    assert (0, "") == (end.returncode, end.stderr)
    *killed, last = json.loads(end.stdout.splitlines()[-1])
    assert ({-9}, 0) == (set(killed), last)
    assert len(killed) >= MIGRATE
