"""Do one work on a store again and again, each time killed one step later: kill_points.py WORK FOLDER

Every call that changes the disk is a step. For each step n there are up to three children: one is killed just
before it, one just after it, and, when it writes, one in its middle. The last line says what happened at each point.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chapkit_flows.artifacts.codecs import save
from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.artifacts.trees import put_tree

CONTENT = b"the first object" * 200_000
STEPS = ("open", "write", "fsync", "mkdir", "replace", "unlink")


def put(store: Store) -> None:
    """One object of a few chunks."""
    store.put(io.BytesIO(CONTENT))


def tree(store: Store) -> None:
    """A folder with equal, empty and new files."""
    put_tree(store, Path(sys.argv[2]) / "source")


def value(store: Store) -> None:
    """A pickle with its manifest, as a run leaves them."""
    saved = save(store, {"coefficients": list(range(50_000))})
    store.write_manifest("artifacts/01A", {"digest": saved.digest, "size": saved.size})


def replaced(store: Store) -> None:
    """A document in place of an older one."""
    store.write_manifest("runs/01A", {"state": "new", "text": "n" * 100_000})


WORKS = {work.__name__: work for work in (put, tree, value, replaced)}


def arm(step: int, moment: str) -> None:
    """Make the process die at the n-th call that changes the disk."""
    count = 0

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            if name == "open" and not arguments[1] & os.O_CREAT:
                return call(*arguments, **named)
            count += 1
            if count == step and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if count == step and moment == "middle" and name == "write":
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **named)
            if count == step and moment == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    for name in STEPS:
        setattr(os, name, wrap(name, getattr(os, name)))


def run_child(work: Callable[[Store], None], root: Path, step: int, moment: str) -> int:
    """Fork, die at the point or finish, and say how it ended."""
    child = os.fork()
    if child == 0:
        arm(step, moment)
        work(open_store(str(root)))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    work, folder = WORKS[sys.argv[1]], Path(sys.argv[2])
    endings = []
    for step in range(1, 200):
        for moment in ("before", "middle", "after"):
            root = folder / f"{step}-{moment}"
            if work is replaced:
                open_store(str(root)).write_manifest("runs/01A", {"state": "old"})
            endings.append((root.name, run_child(work, root, step, moment)))
        if [0, 0, 0] == [code for _, code in endings[-3:]]:
            break
    print(json.dumps(endings))


if __name__ == "__main__":
    main()
