"""Shard sets and runs at `gs://`, through Google's protocol as an emulator of it speaks."""

from __future__ import annotations

import os
import threading
from functools import partial
from http.server import ThreadingHTTPServer

import fsspec
import pytest

import cavmae
from avprep import storage
from avprep.jobs import PoolOptions
from avprep.shards.verify import verify
from cavmae import PretrainRun
from tests.cavmae.test_stored_runs import assert_same_run, place, small  # noqa: F401
from tests.faults.conftest import manifest, ordinary, run_shard, undisturbed  # noqa: F401

emulator = pytest.importorskip("gcp_storage_emulator.server", reason="run `make test-ecosystem`")

BUCKET = "gs://bucket"


@pytest.fixture(autouse=True)
def google(monkeypatch):
    """A server with an empty bucket, in place of Google's."""
    bucket = emulator.Storage(use_memory_fs=True)
    emulator.buckets.create_bucket("bucket", bucket)
    # Its own server answers one connection at a time, and waits for what an open one will ask.
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(emulator.RequestHandler, bucket))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    monkeypatch.setenv("FSSPEC_GS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    # A class of bucket that is asked about by another protocol, which the emulator does not speak.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setattr(fsspec.config, "conf", {})
    fsspec.config.set_conf_env(fsspec.config.conf, os.environ)
    yield
    server.shutdown()
    server.server_close()


def test_a_set_built_there_is_the_one_built_in_a_folder(manifest, undisturbed):  # noqa: F811
    out = f"{BUCKET}/set"
    for found, built in ((0, 4), (4, 0)):
        result = run_shard(manifest, out)
        assert f"found {found} shards, built {built}" in result.stdout, result.stderr
    names = storage.list_names(out)
    assert {name: storage.read_bytes(f"{out}/{name}") for name in names} == undisturbed
    assert verify(out, pool=PoolOptions(workers=1)).damaged == ()


def test_a_run_there_is_the_one_in_a_folder_and_is_resumed(place, tmp_path):  # noqa: F811
    local, out = str(tmp_path / "run"), f"{BUCKET}/run"
    cavmae.pretrain(PretrainRun(out=local, **small(place)))
    for epochs in (1, 2):
        cavmae.pretrain(PretrainRun(out=out, **small(place, epochs=epochs)))
    assert_same_run(out, local)
