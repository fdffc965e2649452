"""A Hugging Face hub on this machine: the calls by which models are pushed and downloaded.

What it answers, statuses and headers included, is what huggingface.co answers to the same calls.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema
import yaml

TOKEN = "hf_of_the_owner"
_LARGE = (".safetensors", ".bin")  # which the hub keeps apart from the repository (LFS)
_TEXT = {"type": "string", "minLength": 1}
_CARD = {  # of the hub's rules for metadata those that concern a model
    "type": "object",
    "required": ["license"],
    "properties": {
        "license": {"enum": ["apache-2.0", "mit", "cc-by-4.0", "other", "unknown"]},
        "library_name": _TEXT,
        "pipeline_tag": {
            "enum": ["feature-extraction", "audio-classification", "video-classification"]
        },
        "tags": {"type": "array", "items": _TEXT},
        "model-index": {
            "type": "array",
            "items": {
                "required": ["name", "results"],
                "properties": {
                    "name": _TEXT,
                    "results": {
                        "type": "array",
                        "items": {
                            "required": ["task", "dataset", "metrics"],
                            "properties": {
                                "task": {"required": ["type"], "properties": {"type": _TEXT}},
                                "dataset": {
                                    "required": ["type", "name"],
                                    "properties": {
                                        "type": _TEXT,
                                        "name": _TEXT,
                                        "revision": _TEXT,
                                    },
                                },
                                "metrics": {
                                    "type": "array",
                                    "minItems": 1,
                                    "items": {
                                        "required": ["type", "value"],
                                        "properties": {"type": _TEXT, "value": {"type": "number"}},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


@dataclass
class Repository:
    """A model: commits by hash, each with all its files, and branches that name commits."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})

    def commit(self, branch: str, changed: dict[str, bytes]) -> str:
        """Add files; returns the hash of the commit."""
        files = {**self.commits[self.branches[branch]], **changed}
        digest = hashlib.sha1(repr((self.branches[branch], sorted(files.items()))).encode())
        self.commits[digest.hexdigest()] = files
        self.branches[branch] = digest.hexdigest()
        return digest.hexdigest()


@dataclass
class _Failure(Exception):
    status: int
    code: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class HubServer:
    """Use as a context manager.

    Attributes:
        repositories: by `org/name`. Only the org `ours` may be pushed to.
        requests: method and path of each, in their order.
        down: whether every answer is 503.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.down = False
        self.objects: dict[str, bytes] = {}  # large files, by SHA-256
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))

    @property
    def url(self) -> str:
        """Its HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def store_url(self) -> str:
        """Where large files are; another host than the hub, as there."""
        return self.url.replace("127.0.0.1", "localhost")

    def add(self, name: str, files: dict[str, bytes], **kind: bool) -> Repository:
        """A repository that somebody else has filled."""
        made = self.repositories[name] = Repository(**kind)
        made.commit("main", files)
        return made


def _handler_of(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond()

        do_HEAD = do_POST = do_PUT = do_GET

        def _respond(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                if hub.down:
                    raise _Failure(503)
                for pattern, answer in _ROUTES:
                    if match := re.fullmatch(pattern, f"{self.command} {path}"):
                        return self._send(*answer(self, body, *match.groups()))
                raise _Failure(404)
            except _Failure as failure:
                headers = {"X-Error-Code": failure.code, "X-Error-Message": failure.message}
                content = json.dumps({"error": failure.message}).encode()
                told = {name: value for name, value in headers.items() if value}
                return self._send(failure.status, content, {**told, **failure.headers})

        def _send(self, status: int, content: bytes, headers: Mapping[str, str] = {}) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        @property
        def is_owner(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def readable(self, name: str) -> Repository:
            found = hub.repositories.get(name)
            if found is None or (found.private and not self.is_owner):
                # Whoever is not logged in does not learn which of the two it is.
                status = 404 if self.is_owner else 401
                raise _Failure(status, "RepoNotFound", "Repository not found")
            return found

        def writable(self, name: str) -> None:
            if not self.is_owner:
                raise _Failure(401, "", "Invalid username or password.")
            if not name.startswith("ours/"):
                org = name.partition("/")[0]
                raise _Failure(403, "", f"You don't have the rights to the namespace {org!r}")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    def commit_of(found: Repository, revision: str) -> str:
        digest = found.branches.get(revision, revision)
        if digest not in found.commits:
            raise _Failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return digest

    def create(handler: Handler, body: bytes) -> Any:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        handler.writable(name)
        page = {"url": f"{hub.url}/{name}", "name": name}
        if name in hub.repositories:
            message = {"error": "You already created this model repo"}
            return 409, json.dumps({**page, **message}).encode()
        hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return 200, json.dumps(page).encode()

    def branch(handler: Handler, body: bytes, name: str, wanted: str) -> Any:
        handler.writable(name)
        found = handler.readable(name)
        if wanted in found.branches:
            raise _Failure(409, "", "Reference already exists")
        found.branches[wanted] = found.branches["main"]
        return 200, b"{}"

    def validate(handler: Handler, body: bytes) -> Any:
        found = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
        checker = jsonschema.Draft202012Validator(_CARD)
        metadata = yaml.safe_load(found[1]) if found else {}
        wrong = [
            {"message": f"{error.json_path} {error.message}"}
            for error in checker.iter_errors(metadata)
        ]
        return 400 if wrong else 200, json.dumps({"errors": wrong, "warnings": []}).encode()

    def preupload(handler: Handler, body: bytes, name: str, revision: str) -> Any:
        handler.writable(name)
        commit_of(handler.readable(name), revision)
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": False,
            }
            for each in json.loads(body)["files"]
        ]
        return 200, json.dumps({"files": files}).encode()

    def batch(handler: Handler, body: bytes, name: str) -> Any:
        handler.writable(name)
        asked = json.loads(body)["objects"]
        objects = [
            {**each, "actions": {"upload": {"href": f"{hub.store_url}/store/{each['oid']}"}}}
            for each in asked
        ]
        return 200, json.dumps({"transfer": "basic", "objects": objects}).encode()

    def store(handler: Handler, body: bytes, digest: str) -> Any:
        if hashlib.sha256(body).hexdigest() != digest:
            raise _Failure(400, "", "Content does not match its digest")
        hub.objects[digest] = body
        return 200, b""

    def commit(handler: Handler, body: bytes, name: str, revision: str) -> Any:
        handler.writable(name)
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
        digest = handler.readable(name).commit(revision, files)
        made = {"commitUrl": f"{hub.url}/{name}/commit/{digest}", "commitOid": digest}
        return 200, json.dumps(made).encode()

    def info(handler: Handler, body: bytes, name: str, revision: str | None) -> Any:
        found = handler.readable(name)
        digest = commit_of(found, revision or "main")
        siblings = [{"rfilename": path} for path in found.commits[digest]]
        return 200, json.dumps(
            {"id": name, "sha": digest, "private": found.private, "siblings": siblings}
        ).encode()

    def tree(handler: Handler, body: bytes, name: str, revision: str) -> Any:
        found = handler.readable(name)
        files = found.commits[commit_of(found, revision)]
        rows = [
            {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
            for path, content in files.items()
        ]
        return 200, json.dumps(rows).encode()

    def resolve(handler: Handler, body: bytes, name: str, revision: str, path: str) -> Any:
        found = handler.readable(name)
        if found.gated:
            raise _Failure(403, "GatedRepo", f"Access to model {name} is restricted")
        digest = commit_of(found, revision)
        told = {"X-Repo-Commit": digest}
        content = found.commits[digest].get(path)
        if content is None:
            raise _Failure(404, "EntryNotFound", "Entry not found", told)
        if not path.endswith(_LARGE):
            return 200, content, {**told, "ETag": f'"{_blob(content)}"'}
        etag = hashlib.sha256(content).hexdigest()
        hub.objects[etag] = content
        told |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        return 302, b"", {**told, "Location": f"{hub.store_url}/store/{etag}"}

    def fetch(handler: Handler, body: bytes, digest: str) -> Any:
        return 200, hub.objects[digest], {"ETag": f'"{digest}"'}

    named = "([^/]+/[^/]+)"
    _ROUTES: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("POST /api/repos/create", create),
        ("POST /api/validate-yaml", validate),
        (f"POST /api/models/{named}/branch/(.+)", branch),
        (f"POST /api/models/{named}/preupload/(.+)", preupload),
        (f"POST /api/models/{named}/commit/(.+)", commit),
        (f"POST /{named}.git/info/lfs/objects/batch", batch),
        ("PUT /store/(.+)", store),
        ("GET /store/(.+)", fetch),
        (f"GET /api/models/{named}/tree/(.+)", tree),
        (f"GET /api/models/{named}(?:/revision/(.+))?", info),
        (f"(?:GET|HEAD) /{named}/resolve/(.+?)/([^/]+)", resolve),
    )
    return Handler


def _blob(content: bytes) -> str:
    """The name that git gives to a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
