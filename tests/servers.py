"""Servers of remote storage, within the test process."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


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
def gcs_server(bucket: str) -> Iterator[dict[str, Any]]:
    """A server of Google's storage API with an empty bucket; gives the options that lead to it."""
    # With it, gcsfs asks by gRPC what kind a bucket is, for a minute, wherever its endpoint is.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    pytest.importorskip("gcsfs", reason="needs the extra gcs")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")
    port = free_port()
    with emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket):
        yield {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "test"}


@contextmanager
def azure_server(container: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A server of Azure's blob API with an empty container; gives the options that lead to it."""
    adlfs = pytest.importorskip("adlfs", reason="needs the extra azure")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed (npm install -g azurite)")
    port = free_port()
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--silent"]
    process = subprocess.Popen([program, *arguments, "--skipApiVersionCheck"], stdout=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        # Every Azurite knows this account, by a key that its documentation gives.
        account = {"AccountName": "devstoreaccount1", "AccountKey": AZURITE_KEY}
        account["BlobEndpoint"] = f"http://127.0.0.1:{port}/devstoreaccount1"
        parts = {"DefaultEndpointsProtocol": "http", **account}
        options = {"connection_string": ";".join(f"{name}={value}" for name, value in parts.items())}
        adlfs.AzureBlobFileSystem(**options).mkdir(container)
        yield options
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Return once a server accepts connections."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        else:
            return


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
