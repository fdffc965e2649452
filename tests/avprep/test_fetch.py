"""Downloads from a real local server that fails in every way servers do."""

from __future__ import annotations

import hashlib
import http.server
import threading

import pytest

from avprep.errors import UserError, WorkFailed
from avprep.fetch import SOURCES, FetchOptions, fetch_file

CONTENT = b"index,mid,display_name\n" + b"".join(
    b"%d,/m/%d,Class %d\n" % (n, n, n) for n in range(9999)
)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
QUICK = FetchOptions(timeout=2.0, retries=2, wait=0.01)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the first word of the path says, the first `failures` times, then well."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        behaviour = self.path.split("/")[1]
        if len(server.requests) > server.failures:
            behaviour = "good"
        getattr(self, behaviour)()

    def log_message(self, *_):
        pass

    def head(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def good(self):
        self.head(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT)

    def chunked(self):
        self.head(Transfer_Encoding="chunked")
        for start in range(0, len(CONTENT), 50_000):
            part = CONTENT[start : start + 50_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def truncated(self):
        self.head(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT[:1000])
        self.close_connection = True

    def truncated_chunks(self):
        self.head(Transfer_Encoding="chunked")
        self.wfile.write(b"%x\r\n%s\r\n" % (1000, CONTENT[:1000]))
        self.close_connection = True

    def stalled(self):
        self.head(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT[:1000])
        self.wfile.flush()
        self.server.released.wait(600)
        self.close_connection = True

    def silent(self):
        self.server.released.wait(600)
        self.close_connection = True

    def busy(self):
        self.head(503, Content_Length=0)

    def absent(self):
        self.head(404, Content_Length=0)

    def forbidden(self):
        self.head(403, Content_Length=0)

    def empty(self):
        self.head(Content_Length=0)

    def page(self):
        body = b"\n<!DOCTYPE html><title>Log in</title>"
        self.head(Content_Length=len(body))
        self.wfile.write(body)

    def moved(self):
        self.head(302, Location="/good/elsewhere.csv", Content_Length=0)

    def other(self):
        self.head(200, Content_Length=8)
        self.wfile.write(b"a,b\n1,2\n")

    def garbled(self):
        self.wfile.write(b"not HTTP at all\r\n\r\n")
        self.close_connection = True


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.failures, server.released = [], 10**9, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def only_files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("behaviour", ["good", "chunked", "moved"])
def test_a_file_arrives_whole_and_its_digest_is_told(behaviour, server, tmp_path):
    seen = []
    path = tmp_path / "new" / "labels.csv"
    fetched = fetch_file(
        f"{server.url}/{behaviour}/l.csv", path, DIGEST.upper(), QUICK, lambda *n: seen.append(n)
    )
    assert path.read_bytes() == CONTENT
    assert (fetched.size, fetched.sha256, fetched.found) == (len(CONTENT), DIGEST, False)
    assert seen[-1][0] == len(CONTENT)
    assert only_files(path.parent) == ["labels.csv"]


@pytest.mark.parametrize(
    "behaviour",
    ["truncated", "truncated_chunks", "stalled", "silent", "busy", "empty", "garbled"],
)
def test_what_may_pass_is_tried_again_and_then_succeeds(behaviour, server, tmp_path):
    server.failures = 2
    fetch_file(f"{server.url}/{behaviour}/l.csv", tmp_path / "l.csv", DIGEST, QUICK)
    assert len(server.requests) == 3
    assert (tmp_path / "l.csv").read_bytes() == CONTENT
    assert only_files(tmp_path) == ["l.csv"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("truncated", "the connection ended before the whole file had arrived"),
        ("truncated_chunks", "the connection ended before the whole file had arrived"),
        ("stalled", r"no byte for 2 s"),
        ("silent", r"no byte for 2 s"),
        ("busy", "the server answers 503 Service Unavailable"),
        ("empty", "the server sends an empty file"),
    ],
)
def test_what_does_not_pass_fails_with_its_reason_and_leaves_nothing(
    behaviour, reason, server, tmp_path
):
    with pytest.raises(WorkFailed, match=f"/l.csv: {reason}; tried 3 times"):
        fetch_file(f"{server.url}/{behaviour}/l.csv", tmp_path / "l.csv", None, QUICK)
    assert len(server.requests) == 3
    assert only_files(tmp_path) == []


@pytest.mark.parametrize(
    ("behaviour", "error", "reason"),
    [
        ("absent", UserError, "answers 404 Not Found. If the file has moved, give its folder with"),
        ("forbidden", UserError, "answers 403 Forbidden"),
        ("page", WorkFailed, "sent a web page, not a CSV: perhaps that of a proxy or a login"),
    ],
)
def test_what_no_attempt_can_mend_is_tried_once(behaviour, error, reason, server, tmp_path):
    with pytest.raises(error, match=reason):
        fetch_file(f"{server.url}/{behaviour}/l.csv", tmp_path / "l.csv", None, QUICK)
    assert len(server.requests) == 1
    assert only_files(tmp_path) == []


def test_another_content_than_the_digest_says_is_not_kept(server, tmp_path):
    with pytest.raises(WorkFailed, match=f"has sha256 {DIGEST}, not 0000.*Nothing is written"):
        fetch_file(f"{server.url}/good/l.csv", tmp_path / "l.csv", "0" * 64, QUICK)
    assert only_files(tmp_path) == []


def test_a_file_that_is_there_is_kept_and_checked(server, tmp_path):
    path = tmp_path / "l.csv"
    path.write_bytes(b"mine")
    fetched = fetch_file(f"{server.url}/good/l.csv", path, None, QUICK)
    assert fetched.found
    assert fetched.sha256 == hashlib.sha256(b"mine").hexdigest()
    with pytest.raises(UserError, match="exists and has sha256"):
        fetch_file(f"{server.url}/good/l.csv", path, DIGEST, QUICK)
    assert path.read_bytes() == b"mine"
    assert server.requests == []


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WorkFailed, match=r"127\.0\.0\.1:9.*tried 3 times"):
        fetch_file("http://127.0.0.1:9/l.csv", tmp_path / "l.csv", None, QUICK)


@pytest.mark.parametrize("url", ["ftp://x/l.csv", "/etc/passwd", "file:///etc/passwd", ""])
def test_only_http_is_fetched(url, tmp_path):
    with pytest.raises(UserError, match="not an http or https URL"):
        fetch_file(url, tmp_path / "l.csv")


@pytest.mark.parametrize(
    "url", ["http://a b/l.csv", "http://x:port/l.csv", "http://[x/l.csv", "http://x/é\n.csv"]
)
def test_an_address_that_is_none_is_refused_at_once(url, tmp_path):
    with pytest.raises(UserError, match="not a URL"):
        fetch_file(url, tmp_path / "l.csv", None, QUICK)


def test_what_is_no_digest_is_refused(server, tmp_path):
    with pytest.raises(UserError, match="64 hex digits"):
        fetch_file(f"{server.url}/good/l.csv", tmp_path / "l.csv", "abc")


def test_the_sources_are_official_https_addresses():
    urls = [url for files in SOURCES.values() for url in files.values()]
    assert all(url.startswith("https://") and url.endswith(".csv") for url in urls)
    assert all(
        url.rsplit("/", 1)[1] == name for files in SOURCES.values() for name, url in files.items()
    )
