"""The contract of a store whose objects can be listed and removed. Define a fixture `store`, as for `StoreContract`."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from chapkit_flows.artifacts import backends
from chapkit_flows.artifacts.store import Store
from chapkit_flows.refs import digest_of, now
from chapkit_flows.testing.stores import ABSENT, key_of, plant, some_bytes

HOUR = timedelta(hours=1)


def all_objects(store: Store) -> dict[str, int]:
    """The size of each object by digest."""
    return {entry.digest: entry.size for shard in range(256) for entry in store.objects(shard)}


class SweepContract:
    """Listing, claiming and removing."""

    def test_objects_are_listed(self, store: Store) -> None:
        """A listing shows every object with its size and an age, and nothing else."""
        stored = [store.put(io.BytesIO(some_bytes(size))) for size in (1, 10, 100)]
        store.write_manifest("runs/01B", {"n": 1})
        assert {one.digest: one.size for one in stored} == all_objects(store)
        ages = [now() - entry.modified for shard in range(256) for entry in store.objects(shard)]
        assert all(-HOUR < age < HOUR for age in ages)

    def test_empty_store_has_no_objects(self, store: Store) -> None:
        """A store that was never written to lists nothing."""
        assert all_objects(store) == {}

    def test_claim_tells_whether_the_bytes_are_there(self, store: Store) -> None:
        """An object can be claimed with its own size only."""
        stored = store.put(io.BytesIO(b"wanted"))
        assert store.claim(stored.digest, 6)
        assert not store.claim(stored.digest, 7)
        assert not store.claim(ABSENT, 0)

    def test_old_object_is_renewed(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """An object that was written long ago counts as new once somebody needs it, and one that is absent does not."""
        stored = store.put(io.BytesIO(b"wanted"))
        before = now()
        time.sleep(1.1)  # some stores keep whole seconds
        monkeypatch.setattr(backends, "RENEW_SECONDS", -HOUR.total_seconds())
        assert store.renew(stored.digest)
        assert not store.renew(ABSENT)
        (entry,) = [entry for shard in range(256) for entry in store.objects(shard)]
        assert (stored.digest, 6) == (entry.digest, entry.size)
        assert entry.modified > before

    def test_old_object_is_removed(self, store: Store) -> None:
        """An object that nobody wrote or claimed since a moment goes, and can be stored again."""
        stored = store.put(io.BytesIO(b"unwanted"))
        with store.sweep() as sweep:
            assert sweep.remove(stored.digest, unused_since=now() + HOUR)
            assert not store.has(stored.digest)
        store.put(io.BytesIO(b"unwanted"))
        assert {stored.digest: 8} == all_objects(store)

    def test_young_object_stays(self, store: Store) -> None:
        """An object that was written since a moment is not removed."""
        stored = store.put(io.BytesIO(b"wanted"))
        with store.sweep() as sweep:
            assert not sweep.remove(stored.digest, unused_since=now() - HOUR)
        assert store.has(stored.digest)

    def test_removing_what_is_gone(self, store: Store) -> None:
        """Two sweeps may remove the same object."""
        with store.sweep() as sweep:
            assert sweep.remove(ABSENT, unused_since=now())

    def test_unfinished_writes_of_dead_processes_go(self, store: Store) -> None:
        """Old files in tmp/ are removed, young ones may belong to a writer."""
        plant(store, "tmp/dead.part", b"half of som")
        with store.sweep() as sweep:
            assert sweep.remove_unfinished(unused_since=now() - HOUR) == 0
            assert sweep.remove_unfinished(unused_since=now() + HOUR) == 1
        assert store._backend.keys("tmp") == []

    def test_sweep_leaves_no_trace(self, store: Store) -> None:
        """After a sweep the store is as before."""
        store.put(io.BytesIO(b"x"))
        before = store._backend.keys("")
        with store.sweep():
            pass
        assert before == store._backend.keys("")

    def test_writers_race_a_sweep(self, store: Store) -> None:
        """While objects are removed over and over, whoever stores bytes has them in the end."""
        contents = [some_bytes(50 + number) for number in range(4)]
        done = threading.Event()

        def remove_all() -> None:
            while not done.is_set():
                with store.sweep() as sweep:
                    for content in contents:
                        # Nobody claims these: they are younger than a day, so a claim does not touch them.
                        sweep.remove(digest_of(content), unused_since=now() - timedelta(seconds=2))

        with ThreadPoolExecutor(5) as pool:
            sweeping = pool.submit(remove_all)
            writing = [pool.submit(store.put, io.BytesIO(contents[number % 4])) for number in range(40)]
            stored = [future.result() for future in writing]
            done.set()
            sweeping.result()
        assert {digest_of(content) for content in contents} == {one.digest for one in stored}
        assert {key_of(digest_of(content)) for content in contents} == set(store._backend.keys("objects"))
