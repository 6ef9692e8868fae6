"""The REST API of the test server, spoken to as Prefect's own client does: patiently."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

T = TypeVar("T")
SECONDS = 180


class PatientTransport(httpx.HTTPTransport):
    """Asks again while the server is busy: on SQLite it answers 503 when its own writers were in the way."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request until the answer is another than 503."""
        deadline = time.monotonic() + SECONDS
        while True:
            response = super().handle_request(request)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                return response
            response.close()
            time.sleep(0.5)


def connect(url: str) -> httpx.Client:
    """A client of the REST API at a URL."""
    return httpx.Client(base_url=url, timeout=120, transport=PatientTransport())


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program that talks to the server; one that waits for a server that stands still is not waited for."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def eventually(look: Callable[[], T], found: Callable[[T], bool]) -> T:
    """Look until what is wanted is found, and return what was seen last.

    The server writes task runs from events, some time after the run that sent them has ended.
    """
    deadline = time.monotonic() + SECONDS
    while not found(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.25)
    return seen
