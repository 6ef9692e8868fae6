"""How much memory the store takes for an object that is larger than it may take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers import s3_server, sftp_server

SIZE = 128 << 20
PROGRAM = """
import json, resource, sys
from pathlib import Path
from chapkit_flows.artifacts.store import copy_bytes, open_store

class Source:
    left = int(sys.argv[3])
    def read(self, size):
        taken = min(size, self.left)
        self.left -= taken
        return self.left.to_bytes(8) * (taken // 8)

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name + ":")) // 1024

store = open_store(sys.argv[1], options=json.loads(sys.argv[2]))
with store.writer() as sink:  # imports and connections are not growth
    sink.write(b"warm")
with store.open(sink.stored.digest):
    pass
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
stored = store.put(Source())
with store.open(stored.digest) as file, open(sys.argv[4], "wb") as target:
    copy_bytes(file, target)
print(json.dumps({"size": stored.size, "growth": status("VmHWM") - before}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc of Linux")
@pytest.mark.parametrize("kind", ["local", "s3", "sftp"])
def test_memory_does_not_grow_with_the_object(tmp_path: Path, kind: str) -> None:
    """Putting and getting 128 MB takes at most 64 MB of memory, wherever the store is."""
    if kind == "local":
        growth = _growth(str(tmp_path / "artifacts"), {}, tmp_path)
    elif kind == "s3":
        with s3_server("large") as options:
            growth = _growth("s3://large/x", options, tmp_path)
    else:
        with sftp_server(tmp_path) as site:
            growth = _growth(f"{site.url}/artifacts", site.options, tmp_path)
    assert growth <= (8 if kind == "local" else 64)


def _growth(url: str, options: dict[str, Any], folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, json.dumps(options), str(SIZE), str(folder / "got")],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout)
    assert SIZE == told["size"] == (folder / "got").stat().st_size
    return int(told["growth"])
