"""What the store costs, side by side with the plain work: `python bench/store.py [--only bytes] [--megabytes 200]`.

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
from chapkit_flows.artifacts.store import CHUNK, copy_bytes, open_store
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


def alternate(
    ours: Callable[[], object], plain: Callable[[], object], *, swap: bool, tidy: Callable[[], object] = os.sync
) -> dict[str, float]:
    """Time both sides, the plain one first if `swap`; `growth` is how far ours went above what was resident.

    After each side comes `tidy`, untimed: what is still on its way to the disk must not slow the other side.
    """
    result: dict[str, float] = {}

    def time_plain() -> None:
        start = time.perf_counter()
        plain()
        result["plain"] = time.perf_counter() - start
        tidy()

    def time_ours() -> None:
        reset_peak()
        before = rss()
        start = time.perf_counter()
        ours()
        result["seconds"] = time.perf_counter() - start
        result["growth"] = peak() - before
        tidy()

    for side in (time_plain, time_ours) if swap else (time_ours, time_plain):
        side()
    return result


def measure_bytes(folder: Path, megabytes: int, *, swap: bool) -> dict[str, float]:
    """Put a file and get it again; the plain side copies it there durably and back, and hashes it each time."""
    source = folder / "source.bin"
    block = np.random.default_rng(time.time_ns()).bytes(64 * MB)
    with source.open("wb") as file:
        for number in range(0, megabytes, 64):
            file.write(number.to_bytes(8) + block[8 : min(64, megabytes - number) * MB])
        os.fsync(file.fileno())
    store, target = open_store(str(folder / "store")), folder / "target.bin"
    with open_store(str(folder / "warm")).writer() as sink:
        sink.write(b"warm")

    def ours() -> None:
        with source.open("rb") as file:
            stored = store.put(file)
        with store.open(stored.digest) as file, target.open("wb") as sink:
            copy_bytes(file, sink)

    def plain() -> None:
        copy(source, folder / "there.bin", durable=True)
        copy(folder / "there.bin", target, durable=False)

    def tidy() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        for path in (target, folder / "there.bin"):
            path.unlink(missing_ok=True)
        os.sync()

    return alternate(ours, plain, swap=swap, tidy=tidy)


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
    os.sync()
    result: dict[str, float] = {}
    for seconds, written in (("plain", "plain_bytes"), ("seconds", "bytes")):
        start, before = time.perf_counter(), bytes_written()
        put_tree(store, workspace)
        result |= {seconds: time.perf_counter() - start, written: bytes_written() - before}
    return result


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


MEASURES = {"bytes": measure_bytes, "store": measure_store, "load": measure_load, "workspace": measure_workspace}
SIDES = {
    "bytes": ("put and get", "(copy + SHA-256) there with fsync, and back"),
    "store": ("store a model of", "copy + fsync + SHA-256"),
    "load": ("load a model (beyond its own memory) of", "copy + SHA-256"),
}


def main() -> None:
    """Print one line for each kind of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, help="instead of 2048 for bytes and 200 for the others")
    parser.add_argument("--repeats", type=int, help="instead of 3 for bytes and 6 for the others")
    parser.add_argument("--only", choices=MEASURES)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--swap", action="store_true")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(MEASURES[options.only](options.folder, options.megabytes, swap=options.swap)))
        return
    for name in [options.only] if options.only else list(MEASURES):
        megabytes = options.megabytes or (2048 if name == "bytes" else 200)
        free = shutil.disk_usage(tempfile.gettempdir()).free // MB
        if free < 4 * megabytes:
            print(f"{name}: skipped, {free} MB of disk are free and {4 * megabytes} are wanted")
            continue
        show(name, megabytes, run(name, megabytes, options.repeats or (3 if name == "bytes" else 6)))


def show(name: str, megabytes: int, results: list[dict[str, float]]) -> None:
    """Print the medians of one kind of work."""
    middle = {key: statistics.median(result[key] for result in results) for key in results[0]}
    seconds, plain = middle["seconds"], middle["plain"]
    if name == "workspace":
        fresh, again = middle["plain_bytes"], middle["bytes"]
        print(
            f"re-store of an unchanged workspace, {megabytes} MB in 500 files: {seconds:.3f} s, afresh {plain:.3f} s: "
            f"{plain / seconds:.1f} x faster (target >= 5); {again / 1000:.0f} kB written, afresh "
            f"{fresh / 1000:.0f} kB: {f'{fresh / again:.0f} x fewer' if again else 'none'} (target >= 20 x fewer)"
        )
        return
    ratio = statistics.median(result["seconds"] / result["plain"] for result in results)
    growth = max(result["growth"] for result in results)
    what, other = SIDES[name]
    print(
        f"{what} {megabytes} MB: {seconds:.3f} s, {other} {plain:.3f} s: "
        f"ratio {ratio:.2f} (target <= 1.30), RSS growth {growth:.1f} MB (target <= 64)"
    )


if __name__ == "__main__":
    main()
