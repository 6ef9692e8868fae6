"""A tiny HTTP proxy that goes wrong on demand, to be put before a server that does not."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("500", "503", "hang", "drop", "cut", "flip")
HANGING = 30.0
_OWN = {"transfer-encoding", "content-length", "connection", "date", "server"}
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>out of order</Message></Error>"


@dataclass
class Faults:
    """What the proxy does wrong, and what it was asked for.

    Attributes:
        kind: One of FAULTS; None passes everything on.
        requests: Which requests are hit: a pattern of `METHOD path?query`.
        left: How many more are hit.
        seen: Each request that came, as `METHOD path?query`.
    """

    kind: str | None = None
    requests: str = ""
    left: float = 0
    seen: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, kind: str, requests: str = ".*", times: float = float("inf")) -> None:
        """Go wrong from now on."""
        self.kind, self.requests, self.left = kind, requests, times
        self.released.clear()
        self.seen.clear()

    def disarm(self) -> None:
        """Work again."""
        self.kind = None
        self.released.set()

    def take(self, request: str) -> str | None:
        """The fault that hits a request."""
        with self.lock:
            self.seen.append(request)
            if self.kind is None or self.left <= 0 or not re.search(self.requests, request):
                return None
            self.left -= 1
            return self.kind


@contextmanager
def faulty_proxy(host: str, port: int) -> Iterator[tuple[str, Faults]]:
    """The URL of a proxy before a server, and the faults to arm."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:  # the client has given up
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.take(f"{self.command} {self.path}")
            if fault in ("500", "503"):
                self._answer(int(fault), _ERROR.format("InternalError" if fault == "500" else "SlowDown").encode(), {})
                return
            if fault in ("hang", "drop"):
                if fault == "hang":
                    faults.released.wait(HANGING)
                self.close_connection = True
                return
            upstream = http.client.HTTPConnection(host, port, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
            size = int(answer.getheader("Content-Length") or len(content))
            upstream.close()
            if fault == "flip" and content:
                # Not every server sends checksums, by which a client would notice.
                kept = {name: value for name, value in kept.items() if "checksum" not in name.lower()}
                middle = len(content) // 2
                content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            if fault == "cut":
                content = content[: len(content) // 2]
                self.close_connection = True
            self._answer(answer.status, content, kept, size=size)

        def _answer(self, status: int, content: bytes, headers: dict[str, str], *, size: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) if size is None else size))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    for method in ("GET", "PUT", "POST", "PATCH", "DELETE", "HEAD"):
        setattr(Handler, f"do_{method}", Handler._pass_on)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", faults
    finally:
        faults.disarm()
        server.shutdown()
        server.server_close()
        thread.join()
