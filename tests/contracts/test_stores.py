"""The contract of artifact stores, over each kind of store that needs no account."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.errors import StoreUnavailable
from chapkit_flows.testing.stores import StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(str(tmp_path / "not yet" / "there"))


class TestMemoryStore(StoreContract):
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


class TestS3Store(StoreContract):
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


@dataclass(frozen=True, kw_only=True)
class SftpSite:
    """An SFTP server: where its folder is, and options that lead there."""

    url: str
    folder: Path
    options: dict[str, Any]


@pytest.fixture(scope="session")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpSite]:
    """An SFTP server of this process that asks for a password."""
    asyncssh = pytest.importorskip("asyncssh", reason="needs the extra sftp")
    pytest.importorskip("sshfs", reason="needs the extra sftp")
    folder = tmp_path_factory.mktemp("sftp")
    key = asyncssh.generate_private_key("ssh-ed25519")

    class Server(asyncssh.SSHServer):  # type: ignore[misc]  # imported above
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("tester", "test-secret")

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen() -> Any:
        return await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key], sftp_factory=True)

    async def stop() -> None:
        listener.close()
        await listener.wait_closed()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    listener = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    port = listener.get_port()
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    options = {"username": "tester", "password": "test-secret", "known_hosts": str(known), "client_keys": None}
    yield SftpSite(url=f"sftp://127.0.0.1:{port}{folder}", folder=folder, options=options)
    asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


class TestSftpStore(StoreContract):
    @pytest.fixture
    def store(self, sftp: SftpSite) -> Store:
        return open_store(f"{sftp.url}/{uuid.uuid4().hex}", options=sftp.options)

    def test_wrong_password(self, sftp: SftpSite) -> None:
        """A password that is refused is an error that names the store and not the password."""
        with pytest.raises(StoreUnavailable, match=r"sftp://127\.0\.0\.1") as caught:
            open_store(sftp.url, options=sftp.options | {"password": "wrong-secret"})
        assert "wrong-secret" not in str(caught.value)

    def test_unknown_host(self, sftp: SftpSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host whose key is not among the known ones gets no password, unless known_hosts says otherwise."""
        monkeypatch.setenv("HOME", str(tmp_path))
        options = {name: value for name, value in sftp.options.items() if name != "known_hosts"}
        with pytest.raises(StoreUnavailable, match=r"[Hh]ost key is not trusted"):
            open_store(sftp.url, options=options)
        assert not open_store(sftp.url, options=options | {"known_hosts": None}).has("sha256:" + "0" * 64)

    def test_server_that_is_gone(self, sftp: SftpSite) -> None:
        """A server that does not answer is an error that names the store."""
        with pytest.raises(StoreUnavailable, match=r"sftp://127\.0\.0\.1:9/x"):
            open_store("sftp://127.0.0.1:9/x", options=sftp.options)
