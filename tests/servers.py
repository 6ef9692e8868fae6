"""Servers of remote storage, within the test process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True, kw_only=True)
class SftpSite:
    """An SFTP server: the URL of its folder, and options that lead there."""

    url: str
    options: dict[str, Any]


def s3_options(url: str, secret: str = "test-secret") -> dict[str, Any]:
    """Options that lead to an S3 server."""
    return {
        "key": f"id-{secret}",
        "secret": secret,
        "client_kwargs": {"endpoint_url": url, "region_name": "eu-west-1"},
    }


@contextmanager
def s3_server(bucket: str, secret: str = "test-secret") -> Iterator[dict[str, Any]]:
    """An S3 server with an empty bucket; gives the options that lead to it."""
    s3fs = pytest.importorskip("s3fs", reason="needs the extra s3")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = s3_options(f"http://{host}:{port}", secret)
    s3fs.S3FileSystem(**options).mkdir(bucket)
    try:
        yield options
    finally:
        server.stop()


@contextmanager
def sftp_server(folder: Path) -> Iterator[SftpSite]:
    """An SFTP server that asks for a password."""
    asyncssh = pytest.importorskip("asyncssh", reason="needs the extra sftp")
    pytest.importorskip("sshfs", reason="needs the extra sftp")
    key = asyncssh.generate_private_key("ssh-ed25519")

    class Server(asyncssh.SSHServer):  # type: ignore[misc]  # imported above
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("tester", "test-secret")

    async def listen() -> Any:
        return await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key], sftp_factory=True)

    async def stop() -> None:
        listener.close()
        await listener.wait_closed()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listener = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    try:
        port = listener.get_port()
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
        login = {"username": "tester", "password": "test-secret", "client_keys": None}
        yield SftpSite(url=f"sftp://127.0.0.1:{port}{folder}", options=login | {"known_hosts": str(known)})
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
