"""An S3 server that answers 500 and 503, hangs, hangs up, and sends other bytes than it holds."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from faulty_proxy import Faults, faulty_proxy
from servers import s3_options, s3_server

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.errors import ArtifactError, DigestMismatch, ObjectMissing, StoreUnavailable
from chapkit_flows.testing.stores import some_bytes

BUCKET = "faulty"
SMALL, LARGE = some_bytes(1000), some_bytes(20 << 20)
QUICK = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "read_timeout": 0.3}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A bucket behind a faulty proxy."""

    faults: Faults
    options: dict[str, Any]
    direct: dict[str, Any]

    def files(self) -> Any:
        """The bucket's file system, past the proxy."""
        import s3fs

        return s3fs.S3FileSystem(**self.direct)

    def open(self, name: str, **config: Any) -> Store:
        return open_store(f"s3://{BUCKET}/{name}", options=self.options | ({"config_kwargs": config} if config else {}))


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with s3_server(BUCKET) as direct:
        address = urlsplit(direct["client_kwargs"]["endpoint_url"])
        with faulty_proxy(str(address.hostname), int(address.port or 0)) as (url, faults):
            yield Site(faults=faults, options=s3_options(url), direct=direct)


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    yield running
    running.faults.disarm()


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def read(store: Store, digest: str) -> bytes:
    with store.open(digest) as file:
        return file.read()


WRITES: dict[str, tuple[str, Callable[[Store], object]]] = {
    "small object": ("PUT .*/objects/", lambda store: store.put(io.BytesIO(SMALL))),
    "part of a large object": ("PUT .*partNumber=2", lambda store: store.put(io.BytesIO(LARGE))),
    "end of a large object": ("POST .*uploadId=", lambda store: store.put(io.BytesIO(LARGE))),
    "question for an object": ("HEAD .*/objects/", lambda store: store.put(io.BytesIO(SMALL))),
    "manifest": ("PUT .*/manifests/", lambda store: store.write_manifest("runs/01A", {"n": 1})),
}


@pytest.mark.parametrize("fault", ["500", "503", "drop"])
@pytest.mark.parametrize("work", WRITES)
def test_passing_fault_is_not_noticed(site: Site, name: str, work: str, fault: str) -> None:
    """A request that fails twice is repeated, and the work completes."""
    requests, write = WRITES[work]
    store = site.open(name)
    site.faults.arm(fault, requests, times=2)
    write(store)
    site.faults.disarm()
    hit = [request for request in site.faults.seen if request.startswith(requests.split()[0])]
    assert len(hit) >= 3
    fresh = site.open(name)
    for content in (SMALL, LARGE):
        digest = store.put(io.BytesIO(content)).digest
        assert content == read(fresh, digest)


@pytest.mark.parametrize("fault", ["500", "503", "drop", "hang"])
@pytest.mark.parametrize("work", WRITES)
def test_lasting_fault_is_an_error(site: Site, name: str, work: str, fault: str) -> None:
    """A server that stays broken is an error that names the store; no half object is there, and a rerun completes."""
    requests, write = WRITES[work]
    store = site.open(name, **QUICK)
    site.faults.arm(fault, requests)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=f"s3://{BUCKET}/{name} cannot be"):
        write(store)
    assert time.monotonic() - began < 60
    site.faults.disarm()

    files = site.files()
    assert [] == files.find(f"{BUCKET}/{name}/objects") + files.find(f"{BUCKET}/{name}/manifests")
    if work == "part of a large object":
        assert "Uploads" not in files.call_s3("list_multipart_uploads", Bucket=BUCKET, Prefix=name)
    write(store)
    assert 1 == len(files.find(f"{BUCKET}/{name}/objects") + files.find(f"{BUCKET}/{name}/manifests"))


@pytest.mark.parametrize("fault", ["500", "503", "drop", "hang", "cut"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("request_", ["HEAD .*/objects/", "GET .*/objects/"], ids=["size", "bytes"])
def test_server_that_fails_a_reader(site: Site, name: str, request_: str, content: bytes, fault: str) -> None:
    """A broken server is never taken for an object that is missing, nor does a reader see half of one."""
    store = site.open(name, **QUICK)
    digest = store.put(io.BytesIO(content)).digest
    site.faults.arm(fault, request_)
    if request_.startswith("HEAD") and fault == "cut":
        pytest.skip("an answer without a body cannot be cut")
    with pytest.raises(ArtifactError) as caught:
        read(store, digest)
    assert not isinstance(caught.value, ObjectMissing)
    site.faults.disarm()
    assert content == read(store, digest)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_bit_that_flips_on_the_way(site: Site, name: str, content: bytes) -> None:
    """Bytes that change on the way down are an error that names the digest, and right ones are read later."""
    store = site.open(name, **QUICK)
    digest = store.put(io.BytesIO(content)).digest
    site.faults.arm("flip", "GET .*/objects/")
    with pytest.raises(DigestMismatch, match=digest):
        read(store, digest)
    site.faults.disarm()
    assert content == read(store, digest)


def test_silent_server_is_left_after_minutes(site: Site, name: str) -> None:
    """Without options for it, a request waits for seconds and is repeated a few times, not for half an hour."""
    store = site.open(name)
    store.check()
    config = store._backend._files.s3.meta.config
    assert (10, 20) == (config.connect_timeout, config.read_timeout)
    assert 3 == config.retries["total_max_attempts"]
