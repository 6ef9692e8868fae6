"""The contract of artifact stores, over each kind of store that needs no account."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.errors import StoreUnavailable
from chapkit_flows.testing.stores import StoreContract
from chapkit_flows.testing.sweeps import SweepContract


class TestLocalStore(StoreContract, SweepContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(str(tmp_path / "not yet" / "there"))


class TestMemoryStore(StoreContract, SweepContract):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        fsspec = pytest.importorskip("fsspec")
        name = f"memory://{uuid.uuid4().hex}"
        yield open_store(name)
        files, root = fsspec.core.url_to_fs(name)
        if files.exists(root):
            files.rm(root, recursive=True)


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, object]]:
    """Options that lead to an S3 server of this process."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "key": "test",
        "secret": "test-secret",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"},
    }
    server.stop()


@pytest.fixture(scope="session")
def bucket(s3_options: dict[str, object]) -> str:
    """An empty bucket."""
    import s3fs

    s3fs.S3FileSystem(**s3_options).mkdir("artifacts")
    return "artifacts"


class TestS3Store(StoreContract, SweepContract):
    @pytest.fixture
    def store(self, s3_options: dict[str, object], bucket: str) -> Store:
        return open_store(f"s3://{bucket}/{uuid.uuid4().hex}", options=s3_options)

    def test_unreachable_server(self) -> None:
        """A server that does not answer is an error that names the store."""
        options = {
            "key": "test",
            "secret": "test-secret",
            "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
            "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
        }
        with pytest.raises(StoreUnavailable, match="s3://nowhere/x") as caught:
            open_store("s3://nowhere/x", options=options).write_manifest("a", {})
        assert "test-secret" not in str(caught.value)

    def test_bucket_that_is_absent(self, s3_options: dict[str, object], bucket: str) -> None:
        """Writing to a bucket that does not exist is an error that names the store."""
        with pytest.raises(StoreUnavailable, match="s3://no-such-bucket/x"):
            open_store("s3://no-such-bucket/x", options=s3_options).write_manifest("a", {})
