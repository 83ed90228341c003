"""A Hub on the loopback: what `huggingface_hub` asks of the Hugging Face Hub to push and to pull, and faults on demand.

`HubServer` is a context manager; the fixture `hub` yields one that this process's client is connected to. A test file
imports the fixture and names it in its `__all__`, since an argument's name is no use of it to ruff.

Served: whoami, repositories and branches created, commits of regular and of LFS files (no Xet), what a repository
holds and held, files whole or in ranges, cards with or without a header. Everything else is answered by 501, which no
client tries again.
"""

import base64
import hashlib
import json
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import responses
from http.server import BaseHTTPRequestHandler
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import _http

PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
KINDS = {f"{kind}s": kind for kind in PREFIXES}
LFS_SUFFIXES = "arrow|bin|ckpt|gz|h5|joblib|model|msgpack|npy|npz|onnx|parquet|pickle|pkl|pt|pth|safetensors|tar|zip"
LFS_SIZE = 10_000_000
"""Bytes from which a file is stored by LFS whatever its name."""
GITATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES.split("|"))

Cut = Literal["before", "after", "midway"]


@dataclass(frozen=True)
class Commit:
    """`files` maps the path of every file, not only of the changed ones, to its bytes."""

    id: str
    message: str
    description: str
    files: Mapping[str, bytes] = field(repr=False)
    parent: "Commit | None" = field(repr=False)
    date: str = field(repr=False)


@dataclass
class Request:
    """`path` is decoded and without the query; `status` is None until the answer, for good where there was none."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    status: int | None = None


@dataclass
class Repository:
    id: str
    kind: str
    private: bool
    sdk: str | None
    branches: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS contents that were uploaded, by SHA-256; a commit may name only these."""

    def add(self, branch: str, files: Mapping[str, bytes], message: str, description: str = "") -> Commit:
        """A commit of exactly these files, at the branch's head."""
        parent = self.branches.get(branch)
        named = [f"{git_hash(content)} {path}" for path, content in sorted(files.items())]
        identity = "\n".join([parent.id if parent else "", message, description, *named])
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        id = hashlib.sha1(identity.encode()).hexdigest()
        commit = Commit(id, message, description, MappingProxyType(dict(files)), parent, date)
        self.branches[branch] = self.commits[id] = commit
        return commit

    def at(self, revision: str) -> Commit:
        commit = self.branches.get(revision) or self.commits.get(revision)
        if commit is None:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def history(self, revision: str) -> list[Commit]:
        """The newest first."""
        commits = [self.at(revision)]
        while commits[-1].parent is not None:
            commits.append(commits[-1].parent)
        return commits


@dataclass
class Fault:
    method: str
    path_pattern: str
    skip: int = 0
    times: int = 1
    status: int | None = None
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    applied: bool = True
    cut: Cut | None = None
    delay: float = 0.0
    action: Callable[[], object] | None = None
    hits: int = 0


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusalError(Exception):
    """An error that the Hub answers with; the client's exception depends on `code` (`X-Error-Code`)."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        # A header holds one line and, here, no letters outside ASCII; the body holds the message as it is.
        self.headers = {"X-Error-Message": re.sub(r"[^ -~]", "?", message), **headers}
        self.headers |= {"X-Error-Code": code} if code else {}


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return size > 0 and (re.search(rf"\.({LFS_SUFFIXES})$", path) is not None or size >= LFS_SIZE)


def describe(path: str, content: bytes) -> dict[str, Any]:
    """A file as the tree and `paths-info` list it."""
    if not is_lfs(path, len(content)):
        return {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    oid = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()
    lfs = {"oid": oid, "size": len(content), "pointerSize": len(pointer)}
    return {"type": "file", "path": path, "size": len(content), "oid": git_hash(pointer), "lfs": lfs}


def describe_repository(repository: Repository, commit: Commit) -> dict[str, Any]:
    """A repository as `model_info` and `space_info` read it."""
    about = {"id": repository.id, "author": repository.id.split("/")[0], "private": repository.private, "tags": []}
    about |= {"sdk": repository.sdk} if repository.sdk else {}
    about |= {"lastModified": commit.date, "createdAt": repository.history(commit.id)[-1].date, "gated": False}
    return {**about, "sha": commit.id, "siblings": [{"rfilename": path} for path in sorted(commit.files)]}


def list_tree(commit: Commit, folder: str = "", recursive: bool = True) -> list[dict[str, Any]]:
    start = f"{folder}/" if folder else ""
    entries = {path: describe(path, content) for path, content in commit.files.items() if path.startswith(start)}
    if folder and not entries:
        raise RefusalError(404, f"{folder} does not exist on {commit.id}", "EntryNotFound")
    for path in list(entries):
        for parent in map(str, PurePosixPath(path).parents[:-1]):
            if parent.startswith(start):
                entries[parent] = {"type": "directory", "path": parent, "size": 0, "oid": git_hash(parent.encode())}
    return [entry for path, entry in sorted(entries.items()) if recursive or "/" not in path[len(start) :]]


class HubServer:
    """A Hub that listens on the loopback between entering and leaving the context.

    It knows one token, whose user may write in the namespace `user` only and see that namespace's private
    repositories; without a token one may read what is public, and a wrong token may do nothing. As on the Hub, a new
    repository holds a first commit with `.gitattributes` (of a Space: `README.md` too), and a commit request that
    changes nothing makes an empty commit: it is the client that sends none where every file is already there.
    """

    def __init__(self, token: str = "hf_test", user: str = "user") -> None:
        self.token = token
        self.user = user
        self.requests: list[Request] = []
        """Every request, in the order of arrival."""
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), name="hub-server")
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        """Stops the threads. Raises what went wrong in the server itself, and for a fault that nothing ran into."""
        self._stopping.set()
        self._listener.shutdown()
        self._thread.join()
        for connection in tuple(self._listener.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.server_close()
        if error_type is not None:
            return
        if self._listener.errors:
            raise ExceptionGroup("the server failed", self._listener.errors)
        unused = [fault for fault in self._faults if not fault.hits]
        assert not unused, f"no request ran into {unused}"

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        with self._lock:
            return dict(self._repositories[kind, repo_id].at(revision).files)

    def commits(self, repo_id: str, kind: str = "model", revision: str = "main") -> list[Commit]:
        """The oldest first; the first is the one that creating the repository made."""
        with self._lock:
            return self._repositories[kind, repo_id].history(revision)[::-1]

    def put(self, repo_id: str, files: Mapping[str, bytes], kind: str = "model", *, private: bool = False) -> str:
        """Adds files by a commit that somebody else makes, in a new repository if there is none; its id."""
        with self._lock:
            repository = self._repositories.get((kind, repo_id))
            if repository is None:
                repository = self._create(kind, repo_id, private, "gradio" if kind == "space" else None)
            return repository.add("main", {**repository.at("main").files, **files}, "Somebody else's commit").id

    def fail(
        self,
        method: str,
        path_pattern: str,
        *,
        status: int | None = None,
        error: str = "a fault on demand",
        headers: Mapping[str, str] | None = None,
        applied: bool = False,
        cut: Cut | None = None,
        delay: float = 0.0,
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """The next `times` requests whose method and decoded path match, after `skip` that pass, go wrong.

        `method` is a regular expression for all of the method, `path_pattern` one for any part of the path.

        - `status`: this answer, with `headers` and the body `{"error": error}`; the request has no effect unless it
          is `applied`, as when a gateway gives up on a commit that the Hub goes on to make.
        - `cut="before"`: the connection is closed without an answer or an effect; `"after"`: after the request took
          effect, without an answer; `"midway"`: after half of the answer's body (of its head where it has no body).
        - `delay`: seconds between the request's effect and the answer, or what is in its place.

        Of several faults for one request the first takes it. Leaving the server raises for a fault never met.
        """
        if cut not in (None, "before", "after", "midway"):
            raise ValueError(f"cut={cut!r}")
        applied = applied or cut == "after" or (cut != "before" and status is None)
        self._faults.append(Fault(method, path_pattern, skip, times, status, error, headers or {}, applied, cut, delay))

    def before(self, method: str, path_pattern: str, action: Callable[[], object], *, skip: int = 0) -> None:
        """Calls `action` before a matching request is served: a commit of somebody else at the worst moment."""
        self._faults.append(Fault(method, path_pattern, skip, action=action))

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that connect a child process, with `home` as its `HF_HOME`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # transformers asks the Hub for a pull request, in a thread, where a model has no safetensors.
            "DISABLE_SAFETENSORS_CONVERSION": "1",
            # The lower case one wins where both are set.
            "no_proxy": "127.0.0.1",
        }

    def _take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if not re.fullmatch(fault.method, method) or not re.search(fault.path_pattern, path):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.hits < fault.times:
                    fault.hits += 1
                    return fault
        return None

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = read_body(handler)
        target = urlsplit(handler.path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.command, unquote(target.path), target.query, headers)
        with self._lock:
            self.requests.append(request)
        fault = self._take_fault(request.method, request.path) or Fault("", "")
        if fault.action is not None:
            fault.action()
        # Decoded after the split: a branch may hold a slash, which the client quotes.
        parts = [unquote(part) for part in target.path.strip("/").split("/")]
        answer = self._answer(request, parts, body) if fault.applied else Answer()
        if fault.status is not None:
            answer = as_json({"error": fault.error}, fault.status, fault.headers)
        self._stopping.wait(fault.delay)
        handler.close_connection = handler.close_connection or fault.cut is not None
        if fault.cut in ("before", "after"):
            return
        named = {"Content-Length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, '')}"]
        lines += [f"{name}: {value}" for name, value in named.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        content = b"" if request.method == "HEAD" else answer.body
        if fault.cut == "midway":
            head, content = (head, content[: len(content) // 2]) if content else (head[: len(head) // 2], b"")
        request.status = answer.status
        handler.wfile.write(head + content)

    def _answer(self, request: Request, parts: list[str], body: bytes) -> Answer:
        with self._lock:
            try:
                return self._route(request, parts, body)
            except RefusalError as refusal:
                return as_json({"error": refusal.message}, refusal.status, refusal.headers)

    def _route(self, request: Request, parts: list[str], body: bytes) -> Answer:
        credentials = request.headers.get("authorization")
        if credentials not in (None, f"Bearer {self.token}"):
            raise RefusalError(401, "Invalid credentials in Authorization header")
        known = credentials is not None
        kind = KINDS.get(parts[0], "model")
        match request.method, parts[1:] if parts[0] in KINDS else parts:
            case "GET", ["api", "whoami-v2"]:
                return self._whoami(known)
            case "POST", ["api", "validate-yaml"]:
                return validate_card(json.loads(body))
            case "POST", ["api", "repos", "create"]:
                return self._create_repository(json.loads(body), known)
            case method, ["api", kinds, namespace, name, *route] if kinds in KINDS:
                # The paths to look up are posted for their length.
                write = method == "POST" and route[:1] != ["paths-info"]
                repository = self._find(KINDS[kinds], f"{namespace}/{name}", known, write)
                return self._serve_repository(repository, request, route, body)
            case "POST", [namespace, name, "info", "lfs", "objects", "batch" | "verify" as action]:
                repository = self._find(kind, f"{namespace}/{name.removesuffix('.git')}", known, write=True)
                return self._negotiate_lfs(repository, action, json.loads(body))
            case "PUT", ["lfs", stored, namespace, name, oid]:
                # As in the Hub's storage: the address is the permission, and no token is sent.
                return upload_lfs(self._repositories[stored, f"{namespace}/{name}"], oid, body)
            case "GET" | "HEAD", [namespace, name, "resolve", revision, *path]:
                repository = self._find(kind, f"{namespace}/{name}", known)
                return resolve(repository, revision, "/".join(path), request.headers.get("range"))
        raise RefusalError(501, f"{request.method} {request.path} is not served")

    def _find(self, kind: str, repo_id: str, known: bool, write: bool = False) -> Repository:
        # The client takes every 401 of an https:// address for a missing repository; here it needs the code.
        repository = self._repositories.get((kind, repo_id))
        own = known and repo_id.startswith(f"{self.user}/")
        if repository is None or (repository.private and not own):
            raise RefusalError(404 if known else 401, "Repository not found", "RepoNotFound")
        if write and not known:
            raise RefusalError(401, "Invalid username or password.", "RepoNotFound")
        if write and not own:
            raise RefusalError(403, f"You don't have the rights to write to {repo_id}")
        return repository

    def _whoami(self, known: bool) -> Answer:
        if not known:
            raise RefusalError(401, "Invalid username or password.")
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        return as_json({"type": "user", "id": "0", "name": self.user, "fullname": "", "orgs": [], "auth": auth})

    def _create_repository(self, payload: dict[str, Any], known: bool) -> Answer:
        if not known:
            raise RefusalError(401, "Invalid username or password.")
        kind, namespace = payload.get("type") or "model", payload.get("organization") or self.user
        repo_id = f"{namespace}/{payload['name']}"
        if namespace != self.user:
            raise RefusalError(403, f"You don't have the rights to create a {kind} under the namespace {namespace}")
        url = f"{self.url}/{PREFIXES[kind]}{repo_id}"
        if (kind, repo_id) in self._repositories:
            return as_json({"error": f"You already created this {kind} repo: {repo_id}", "url": url}, 409)
        # "private" is what versions before `visibility` send.
        private = payload.get("visibility") == "private" or bool(payload.get("private"))
        self._create(kind, repo_id, private, payload.get("sdk"))
        return as_json({"url": url, "name": repo_id, "id": repo_id})

    def _create(self, kind: str, repo_id: str, private: bool, sdk: str | None) -> Repository:
        repository = self._repositories[kind, repo_id] = Repository(repo_id, kind, private, sdk)
        card = {"README.md": f"---\ntitle: {repo_id}\nsdk: {sdk}\n---\n".encode()} if sdk else {}
        repository.add("main", {".gitattributes": GITATTRIBUTES.encode(), **card}, "initial commit")
        return repository

    def _serve_repository(self, repository: Repository, request: Request, route: list[str], body: bytes) -> Answer:
        query = parse_qs(request.query)
        if "create_pr" in query:
            raise RefusalError(501, "pull requests are not served")
        match request.method, route:
            case "GET", [] | ["revision", _]:
                return as_json(describe_repository(repository, repository.at(route[1] if route else "main")))
            case "GET", ["refs"]:
                branches = [
                    {"name": name, "ref": f"refs/heads/{name}", "targetCommit": head.id}
                    for name, head in repository.branches.items()
                ]
                return as_json({"branches": branches, "converts": [], "tags": [], "pullRequests": []})
            case "GET", ["commits", revision]:
                log = [
                    {"id": one.id, "title": one.message, "message": one.description, "date": one.date, "authors": []}
                    for one in repository.history(revision)
                ]
                return as_json(log)
            case "GET", ["tree", revision, *folder]:
                recursive = query.get("recursive", [""])[0].lower() == "true"
                return as_json(list_tree(repository.at(revision), "/".join(folder), recursive))
            case "POST", ["paths-info", revision]:
                wanted = parse_qs(body.decode()).get("paths", [])
                return as_json([entry for entry in list_tree(repository.at(revision)) if entry["path"] in wanted])
            case "POST", ["preupload", revision]:
                return preupload(repository.at(revision), json.loads(body))
            case "POST", ["branch", name]:
                if name in repository.branches:
                    raise RefusalError(409, f"Reference already exists: refs/heads/{name}")
                repository.branches[name] = repository.at(json.loads(body).get("startingPoint", "main"))
                return as_json({})
            case "POST", ["commit", branch]:
                made = apply_commit(repository, branch, body)
                address = f"{self.url}/{PREFIXES[repository.kind]}{repository.id}/commit/{made.id}"
                return as_json({"success": True, "commitOid": made.id, "commitUrl": address, "hookOutput": ""})
        raise RefusalError(501, f"{request.method} {request.path} is not served")

    def _negotiate_lfs(self, repository: Repository, action: str, payload: dict[str, Any]) -> Answer:
        git = f"{self.url}/{PREFIXES[repository.kind]}{repository.id}.git/info/lfs/objects"
        if action == "verify":
            if len(repository.objects.get(payload["oid"], b"")) != payload["size"]:
                raise RefusalError(404, f"{payload['oid']} of {payload['size']} bytes was not uploaded")
            return as_json({"message": "Authorized"})
        objects = []
        for wanted in payload["objects"]:
            answered = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in repository.objects:
                upload = f"{self.url}/lfs/{repository.kind}/{repository.id}/{wanted['oid']}"
                answered["actions"] = {"upload": {"href": upload}, "verify": {"href": f"{git}/verify"}}
            objects.append(answered)
        return as_json({"transfer": "basic", "objects": objects})


def validate_card(payload: dict[str, Any]) -> Answer:
    warnings = [] if payload["content"].startswith("---") else ["empty or missing yaml metadata in repo card"]
    return as_json({"errors": [], "warnings": [{"message": message} for message in warnings]})


def preupload(commit: Commit, payload: dict[str, Any]) -> Answer:
    files = []
    for wanted in payload["files"]:
        path, mode = wanted["path"], "lfs" if is_lfs(wanted["path"], wanted["size"]) else "regular"
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False})
        if path in commit.files:
            entry = describe(path, commit.files[path])
            files[-1]["oid"] = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
    return as_json({"files": files, "commitOid": commit.id})


def upload_lfs(repository: Repository, oid: str, content: bytes) -> Answer:
    if hashlib.sha256(content).hexdigest() != oid:
        raise RefusalError(400, f"the content is not that of {oid}")
    repository.objects[oid] = content
    return Answer()


def apply_commit(repository: Repository, branch: str, body: bytes) -> Commit:
    """Applies a commit request: a line of JSON with the message, then a line for each file, in their order."""
    head = repository.branches.get(branch)
    if head is None:
        raise RefusalError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    (_, header), *operations = [(item["key"], item["value"]) for item in map(json.loads, body.splitlines())]
    if not head.id.startswith(header.get("parentCommit", "")):
        raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for key, operation in operations:
        path = operation["path"]
        match key:
            case "file":
                files[path] = base64.b64decode(operation["content"])
            case "lfsFile" if operation["oid"] in repository.objects:
                files[path] = repository.objects[operation["oid"]]
            case "lfsFile":
                raise RefusalError(400, f"{path} points to a file of LFS that was not uploaded")
            case "deletedFile" if path in files:
                del files[path]
            case "deletedFolder" if any(held.startswith(path.rstrip("/") + "/") for held in files):
                files = {held: files[held] for held in files if not held.startswith(path.rstrip("/") + "/")}
            case "deletedFile" | "deletedFolder":
                raise RefusalError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            case _:
                raise RefusalError(501, f"{key} is not served")
    return repository.add(branch, files, header["summary"], header.get("description", ""))


def resolve(repository: Repository, revision: str, path: str, wanted: str | None) -> Answer:
    """A file's content; `wanted` is one range of bytes that begins inside of it."""
    commit = repository.at(revision)
    if path not in commit.files:
        raise RefusalError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.id})
    content = commit.files[path]
    entry = describe(path, content)
    tag = f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"'
    headers = {"X-Repo-Commit": commit.id, "ETag": tag, "Accept-Ranges": "bytes"}
    headers |= {"X-Linked-Etag": tag, "X-Linked-Size": str(len(content))} if "lfs" in entry else {}
    if wanted is None:
        return Answer(200, content, headers)
    first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
    start, end = int(first), min(int(last or len(content)) + 1, len(content))
    return Answer(206, content[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def read_body(handler: BaseHTTPRequestHandler) -> bytes:
    if "Transfer-Encoding" in handler.headers:
        raise NotImplementedError("a body in chunks, which the client has never sent")
    length = int(handler.headers.get("Content-Length", 0))
    body = handler.rfile.read(length)
    if len(body) < length:
        raise ConnectionResetError("the client hung up")
    return body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.hub._serve(self)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class _Listener(socketserver.ThreadingTCPServer):
    # ThreadingHTTPServer adds to this only that it looks its own name up, which may take seconds.
    daemon_threads = False
    request_queue_size = 64

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.connections: set[socket.socket] = set()
        self.errors: list[Exception] = []

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        # Kept from before the thread starts: closing them is what ends the threads that wait for another request.
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self.errors.append(error)


def connect(server: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connects this process's client, and the child processes that inherit its environment, until `monkeypatch` ends.

    Restoring does not close the client's connections: `huggingface_hub.close_session()` does.
    """
    for name, value in server.environment(home).items():
        monkeypatch.setenv(name, value)
    constants: dict[str, object] = {
        "ENDPOINT": server.url,
        "HF_ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
    }
    for module_name, module in sorted(sys.modules.items()):
        if module_name.split(".")[0] not in ("huggingface_hub", "transformers", "datasets", "evaluate"):
            continue
        # vars(), since the attributes of a lazy module are imports.
        for name, value in list(vars(module).items()):
            if name in constants:
                monkeypatch.setattr(module, name, constants[name])
            elif isinstance(value, HfApi):
                monkeypatch.setattr(value, "endpoint", server.url)
                monkeypatch.setattr(value, "_whoami_cache", {})
            elif name == "_hf_api":
                # transformers makes its own at the first use; one that is made now must not stay.
                monkeypatch.setattr(module, name, None)
    # Set to what it is, to be restored: whoever sets time limits does it by another factory.
    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", _http._GLOBAL_CLIENT_FACTORY)
    huggingface_hub.close_session()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server that the client in this process is connected to, with a cache of its own."""
    with HubServer() as server:
        connect(server, tmp_path / "hf_home", monkeypatch)
        yield server
        huggingface_hub.close_session()
