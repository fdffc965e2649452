"""A web server on this machine that knows ranges or not, fails as it is told to, and counts."""

from __future__ import annotations

import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is not worth a word."""


class WebServer:
    """Serves some content by path; use as a context manager.

    Attributes:
        files: content by path, such as `/a.mp4`.
        has_ranges: whether a range that is asked for is honoured.
        statuses: answers by path instead of content, such as 403.
        deaths: how often, by path, an answer still has to break off in its middle.
        requests_left: how many requests are answered with content, by path; 503 after that.
        sent: bytes of content by path.
        requests: by path.
    """

    def __init__(self, files: dict[str, bytes], has_ranges: bool = True) -> None:
        self.files, self.has_ranges = files, has_ranges
        self.statuses: dict[str, int] = {}
        self.deaths: Counter[str] = Counter()
        self.requests_left: dict[str, int] = {}
        self.sent: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))

    @property
    def url(self) -> str:
        """Of its root, without a slash."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> WebServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler_of(server: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests[self.path] += 1
            content = server.files.get(self.path)
            status = server.statuses.get(self.path, 200 if content is not None else 404)
            if server.requests[self.path] > server.requests_left.get(self.path, 10**9):
                status = 503
            if status >= 400 or content is None:
                self.send_error(status)
                return
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            begin, end = 0, len(content)
            if wanted and server.has_ranges:
                begin, end = int(wanted[1]), min(int(wanted[2] or end) + 1, end)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(end - begin))
            self.end_headers()
            if server.deaths[self.path] > 0:
                server.deaths[self.path] -= 1
                end = (begin + end) // 2
            for start in range(begin, end, 1 << 16):
                piece = content[start : min(start + (1 << 16), end)]
                self.wfile.write(piece)
                server.sent[self.path] += len(piece)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
