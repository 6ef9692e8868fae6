"""What the store costs, side by side with the plain work: `python bench/store.py [--megabytes 200] [--repeats 5]`.

Every figure is taken in a process of its own; the two sides of a ratio alternate, and medians are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas  # noqa: F401 (a model process has it loaded; its pages are not growth)

from chapkit_flows.artifacts.codecs import load, save
from chapkit_flows.artifacts.store import CHUNK, open_store
from chapkit_flows.artifacts.trees import put_tree
from chapkit_flows.refs import ArtifactRef, new_id

MB = 1 << 20


def rss() -> float:
    """Resident MB now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MB


def peak() -> float:
    """Highest resident MB since `reset_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def reset_peak() -> None:
    """Forget the highest resident size so far."""
    Path("/proc/self/clear_refs").write_text("5")


def copy(source: Path, target: Path, *, durable: bool) -> None:
    """The plain work: copy and hash in two passes, as `cp` and `sha256sum` do."""
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, CHUNK)
        if durable:
            writer.flush()
            os.fsync(writer.fileno())
    with source.open("rb") as reader:
        hashlib.file_digest(reader, "sha256")


def alternate(ours: Callable[[], object], plain: Callable[[], object], *, swap: bool) -> dict[str, float]:
    """Time both sides, the plain one first if `swap`; `growth` is how far ours went above what was resident."""
    result: dict[str, float] = {}

    def time_plain() -> None:
        start = time.perf_counter()
        plain()
        result["plain"] = time.perf_counter() - start
        os.sync()  # what is still on its way to the disk must not slow the other side

    def time_ours() -> None:
        reset_peak()
        before = rss()
        start = time.perf_counter()
        ours()
        result["seconds"] = time.perf_counter() - start
        result["growth"] = peak() - before
        os.sync()

    for side in (time_plain, time_ours) if swap else (time_ours, time_plain):
        side()
    return result


def measure_store(folder: Path, megabytes: int, *, swap: bool) -> dict[str, float]:
    """Store a model that is one array; the plain side copies the same bytes durably."""
    save(open_store(str(folder / "warm")), {"a": np.ones(100_000)})
    model = {"weights": np.random.default_rng(time.time_ns()).integers(0, 256, megabytes * MB, np.uint8), "n": 1}
    plain = folder / "plain.bin"
    plain.write_bytes(model["weights"])
    with plain.open("rb") as file:
        os.fsync(file.fileno())
    store = open_store(str(folder / "store"))
    return alternate(lambda: save(store, model), lambda: copy(plain, folder / "copy.bin", durable=True), swap=swap)


def measure_load(folder: Path, megabytes: int, *, swap: bool) -> dict[str, float]:
    """Load such a model; the plain side copies and hashes the same bytes without fsync."""
    store = open_store(str(folder / "store"))
    small = save(store, {"a": np.ones(100_000)})
    load(store, ref_to(small))
    saved = ref_to_saved(folder)
    path = folder / "store" / "objects" / "sha256" / saved.digest[7:9] / saved.digest[9:]
    result = alternate(lambda: load(store, saved), lambda: copy(path, folder / "copy.bin", durable=False), swap=swap)
    return result | {"growth": result["growth"] - megabytes}


def ref_to(saved: Any) -> ArtifactRef:
    """A reference as lineage would keep it."""
    return ArtifactRef(
        id=new_id(),
        kind="training_workspace",
        digest=saved.digest,
        size=saved.size,
        media_type=saved.media_type,
        codec=saved.codec,
    )


def ref_to_saved(folder: Path) -> ArtifactRef:
    """A reference to the model that the parent process stored."""
    return ArtifactRef(id=new_id(), kind="training_workspace", **json.loads((folder / "model.json").read_text()))


def measure_workspace(folder: Path, megabytes: int, *, swap: bool) -> dict[str, float]:
    """Store a workspace of 500 files, then the unchanged workspace again."""
    workspace = folder / "workspace"
    generator = np.random.default_rng(1)
    for number in range(500):
        path = workspace / f"{number % 10}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(generator.bytes(megabytes * MB // 500))
    store = open_store(str(folder / "trees"))
    start = time.perf_counter()
    put_tree(store, workspace)
    fresh = time.perf_counter() - start
    start, written = time.perf_counter(), bytes_written()
    put_tree(store, workspace)
    return {"plain": fresh, "seconds": time.perf_counter() - start, "bytes": bytes_written() - written}


def bytes_written() -> int:
    """Bytes this process has given to write calls."""
    line = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar"))
    return int(line.split()[1])


def run(name: str, megabytes: int, repeats: int) -> list[dict[str, float]]:
    """Measure in a fresh process and a fresh folder, several times."""
    results = []
    for number in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            if name == "load":
                store = open_store(f"{folder}/store")
                saved = save(store, {"weights": np.random.default_rng(2).integers(0, 256, megabytes * MB, np.uint8)})
                fields = {key: getattr(saved, key) for key in ("digest", "size", "media_type", "codec")}
                Path(folder, "model.json").write_text(json.dumps(fields))
            command = [sys.executable, __file__, "--only", name, "--folder", folder, "--megabytes", str(megabytes)]
            command += ["--swap"] if number % 2 else []
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return results


def main() -> None:
    """Print one line for each kind of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--only", choices=["store", "load", "workspace"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--swap", action="store_true")
    options = parser.parse_args()
    measures = {"store": measure_store, "load": measure_load, "workspace": measure_workspace}
    if options.folder:
        print(json.dumps(measures[options.only](options.folder, options.megabytes, swap=options.swap)))
        return
    for name in [options.only] if options.only else list(measures):
        results = run(name, options.megabytes, options.repeats)
        seconds, plain = (statistics.median(result[key] for result in results) for key in ("seconds", "plain"))
        if name == "workspace":
            written = statistics.median(result["bytes"] for result in results)
            print(
                f"re-store of an unchanged workspace, {options.megabytes} MB in 500 files: {seconds:.3f} s, afresh "
                f"{plain:.3f} s: {plain / seconds:.1f} x faster; {written / 1000:.0f} kB written (target >= 5 x)"
            )
            continue
        ratio = statistics.median(result["seconds"] / result["plain"] for result in results)
        growth = max(result["growth"] for result in results)
        other = "copy + fsync + SHA-256" if name == "store" else "copy + SHA-256"
        print(
            f"{name} a model of {options.megabytes} MB: {seconds:.3f} s, {other} {plain:.3f} s: "
            f"ratio {ratio:.2f} (target <= 1.30), RSS beyond the model {growth:.1f} MB (target <= 64)"
        )


if __name__ == "__main__":
    main()
