"""Shards behind a URL: retried, timed, cached within bounds; an outage names what it cost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import fsspec
import pytest

from avprep import retries
from avprep.errors import Unreadable, UserError, WorkFailed
from cavmae.data import LoaderOptions, ShardLoader, ShardSet, reader
from cavmae.data.reader import ReadOptions
from tests.cavmae.tiny_shards import write_tiny_shards


class Server(ThreadingHTTPServer):
    """Serves a folder, with faults to order."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests = []  # (name, bytes sent)
        self.failing = {}  # name → how many more requests fail; "" for any shard
        self.stall = 0.0  # seconds before each answer
        self.ranges = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server, name = self.server, self.path.strip("/")
        path = server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        data, status = path.read_bytes(), 200
        if name.endswith(".tar"):
            time.sleep(server.stall)
            fault = name if name in server.failing else ""
            if server.failing.get(fault, 0) > 0:
                server.failing[fault] -= 1
                self.send_error(503)
                return
        if server.ranges and (wanted := self.headers.get("Range")):
            first, last = wanted.removeprefix("bytes=").split("-")
            data, status = data[int(first) : int(last) + 1], 206
        if body:
            server.requests.append((name, len(data)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_shards(tmp_path_factory.mktemp("remote") / "shards")


@contextmanager
def serving(folder):
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(tiny, monkeypatch):
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.01)
    with serving(tiny.folder) as server:
        yield server


def everything(location, options=None, workers=0, epoch=0, **loader):
    shards = ShardSet.open(location, options)
    loader = ShardLoader(shards, LoaderOptions(8, workers, **loader))
    return [
        (video_id, row[:length].tolist(), image.tolist())
        for batch in loader.epoch(epoch)
        for video_id, row, length, image in zip(
            batch.video_ids, batch.waveform, batch.lengths, batch.image, strict=True
        )
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_url_gives_the_same_batches_as_the_folder(server, tiny, workers):
    assert everything(server.url, workers=workers) == everything(tiny.folder)


def test_a_store_that_fsspec_reads_one_file_at_a_time_does_too(tiny):
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(f"{tiny.folder}/", "/tiny/", recursive=True)
    assert everything("memory://tiny") == everything(tiny.folder)


def test_only_the_bytes_of_the_samples_asked_for_are_fetched(server):
    shards = ShardSet.open(server.url)
    entries = [shards.entry(number) for number in (3, 30)]
    server.requests.clear()
    list(shards.read_many([3, 30]))
    assert sorted(size for _, size in server.requests) == sorted(entry.size for entry in entries)


def test_requests_that_fail_are_tried_again(server, tiny):
    server.failing = {"": 25}
    assert everything(server.url, ReadOptions(retries=5)) == everything(tiny.folder)
    assert server.failing == {"": 0}


def test_a_server_that_stays_away_costs_the_samples_by_name(server):
    shards = ShardSet.open(server.url, ReadOptions(retries=2))
    shards.entry(0)
    server.failing = {"shard-000001.tar": 10**6}
    found = list(shards.read_many(range(40)))
    bad = [number for number, sample in enumerate(found) if isinstance(sample, Unreadable)]
    assert bad == list(range(7, 14))
    assert "clip.7 in http" in str(found[7])
    assert "503" in str(found[7])


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(WorkFailed, match=r"^http://127\.0\.0\.1:9/shards/dataset\.json: cannot "):
        ShardSet.open("http://127.0.0.1:9/shards", ReadOptions(retries=0))


class LockedStore(fsspec.AbstractFileSystem):
    def cat_file(self, path, start=None, end=None, **kwargs):
        raise PermissionError("Access Denied")  # as s3fs says it, without a file's name


def test_a_store_that_refuses_access_is_named_at_once(monkeypatch):
    fsspec.register_implementation("locked", LockedStore)
    monkeypatch.setattr(retries, "_FIRST_WAIT", 1e6)
    with pytest.raises(UserError, match=r"^locked://x/dataset\.json: access is refused \(Access D"):
        ShardSet.open("locked://x", ReadOptions(retries=1))


def test_a_shard_that_is_gone_is_not_tried_again(server, tiny, tmp_path):
    copy = write_tiny_shards(tmp_path / "shards")
    server.folder = copy.folder
    shards = ShardSet.open(server.url, ReadOptions(retries=50))
    shards.entry(0)
    (copy.folder / "shard-000000.tar").unlink()
    began = time.monotonic()
    assert isinstance(next(iter(shards.read_many([0]))), Unreadable)
    assert time.monotonic() - began < 300  # fifty attempts would take longer


def test_a_server_that_hangs_is_given_up(server):
    shards = ShardSet.open(server.url, ReadOptions(retries=1, timeout=1.0))
    shards.entry(0)
    server.stall = 60.0
    began = time.monotonic()
    (sample,) = shards.read_many([0])
    assert isinstance(sample, Unreadable)
    assert "TimeoutError" in str(sample)
    assert time.monotonic() - began < 50


def test_a_server_without_ranges_is_named_as_the_cause(server):
    server.ranges = False
    (sample,) = ShardSet.open(server.url, ReadOptions(retries=0)).read_many([20])
    assert "does not answer range requests" in str(sample)


def test_a_cache_fetches_each_shard_once_for_all_processes(server, tiny, tmp_path):
    options = ReadOptions(cache=str(tmp_path / "cache"))
    expected = [everything(tiny.folder, epoch=epoch) for epoch in range(2)]
    server.requests.clear()
    for epoch in range(2):
        assert everything(server.url, options, workers=2, epoch=epoch) == expected[epoch]
    tars = [name for name, _ in server.requests if name.endswith(".tar")]
    assert sorted(tars) == sorted(path.name for path in tiny.folder.glob("*.tar"))


def test_processes_that_want_one_shard_at_once_fetch_it_once(server, tmp_path):
    sets = [ShardSet.open(server.url, ReadOptions(cache=str(tmp_path))) for _ in range(4)]
    for shards in sets:
        shards.entry(0)
    server.requests.clear()
    server.stall = 0.1
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda shards: shards.read(0).entry.video_id, sets))
    assert found == ["clip.0"] * 4
    assert len(server.requests) == 1


def test_a_cache_stays_within_its_bounds(server, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "SHUFFLE_WINDOW", 2)
    sizes = [path.stat().st_size for path in tiny.folder.glob("*.tar")]
    limit = 3 * max(sizes)
    shards = ShardSet.open(server.url, ReadOptions(cache=str(tmp_path), cache_gb=limit / 1e9))
    held = []
    for number in range(40):
        next(iter(shards.read_many([number])))
        held.append(sum(path.stat().st_size for path in tmp_path.glob("*/*.tar")))
    assert max(held) <= limit
    assert len(list(tmp_path.glob("*/*.tar"))) >= 2


def test_the_least_recently_used_shard_leaves_first(server, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "SHUFFLE_WINDOW", 1)
    sizes = [path.stat().st_size for path in tiny.folder.glob("*.tar")]
    options = ReadOptions(cache=str(tmp_path), cache_gb=2.5 * max(sizes) / 1e9)
    shards = ShardSet.open(server.url, options)
    for number in (0, 7, 1, 14):  # shards 0, 1, 0 again, 2
        next(iter(shards.read_many([number])))
        time.sleep(0.02)
    kept = sorted(path.name for path in tmp_path.glob("*/*.tar"))
    assert kept == ["shard-000000.tar", "shard-000002.tar"]


def test_scattered_reads_do_not_fetch_shards_the_cache_cannot_keep(
    server, tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(reader, "SHUFFLE_WINDOW", 1)
    sizes = [path.stat().st_size for path in tiny.folder.glob("*.tar")]
    options = ReadOptions(cache=str(tmp_path), cache_gb=2 * max(sizes) / 1e9)
    shards = ShardSet.open(server.url, options)
    list(shards.read_many([0, 10, 20], scattered=True))
    assert not list(tmp_path.glob("*/*.tar"))


def test_a_cache_too_small_to_shuffle_in_is_refused(server, tmp_path):
    shards = ShardSet.open(server.url, ReadOptions(cache=str(tmp_path), cache_gb=1e-6))
    with pytest.raises(UserError, match=r"cannot hold the 64 shards .* Give --cache-gb 0\.1 or"):
        ShardLoader(shards, LoaderOptions(8, workers=2))


def test_a_half_fetched_shard_is_never_read(server, tiny, tmp_path):
    shards = ShardSet.open(server.url, ReadOptions(retries=0, cache=str(tmp_path)))
    shards.entry(0)
    server.failing = {"": 1}
    (first,) = shards.read_many([0])
    assert isinstance(first, Unreadable)
    assert not list(tmp_path.glob("*/*.tar"))
    assert shards.read(0).entry.video_id == "clip.0"


def test_two_shard_sets_share_a_cache_without_mixing(server, tiny, tmp_path):
    other = Server(write_tiny_shards(tmp_path / "other", seed=1).folder)
    threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
    options = ReadOptions(cache=str(tmp_path / "cache"))
    first, second = (ShardSet.open(url, options).read(0) for url in (server.url, other.url))
    other.shutdown()
    other.server_close()
    assert bytes(first.members["flac"]) != bytes(second.members["flac"])
    assert first.entry.video_id == second.entry.video_id


def test_an_s3_bucket_gives_the_same_batches_as_the_folder(tiny, monkeypatch):
    pytest.importorskip("s3fs", reason="needs the extra s3")
    moto = pytest.importorskip("moto.server", reason="needs the extra dev")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        import fsspec

        bucket = fsspec.filesystem("s3", skip_instance_cache=True)
        bucket.mkdir("tiny")
        bucket.put(f"{tiny.folder}/", "tiny/train/", recursive=True)
        for workers in (0, 2):
            assert everything("s3://tiny/train", workers=workers) == everything(tiny.folder)
    finally:
        server.stop()


class BucketHandler(BaseHTTPRequestHandler):
    """Answers as Google Cloud Storage does when an object's bytes are asked for."""

    def do_GET(self):
        bucket, _, name = urlsplit(self.path).path.partition("/b/")[2].partition("/o/")
        path = self.server.folder / bucket / unquote(name)
        if not path.is_file():
            self.send_error(404)
            return
        data, status = path.read_bytes(), 200
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            data, status = data[int(first) : int(last) + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_a_google_bucket_gives_the_same_batches_as_the_folder(tiny, monkeypatch):
    # A class of bucket that is asked about by another protocol, which this server does not speak.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs", reason="needs the extra gcs")
    import fsspec

    server = ThreadingHTTPServer(("127.0.0.1", 0), BucketHandler)
    server.folder = tiny.folder.parent.parent
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon", "endpoint_url": url})
    try:
        for workers in (0, 2):
            bucket = f"gs://{tiny.folder.parent.name}/{tiny.folder.name}"
            assert everything(bucket, workers=workers) == everything(tiny.folder)
    finally:
        server.shutdown()
