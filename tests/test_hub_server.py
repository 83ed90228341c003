"""The stand-in for the Hub, asked by the real client."""

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import transformers
from checkpoints import write_checkpoint
from hub_server import HubServer, connect, hub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session
from transformers import AutoModelForMaskedLM, AutoTokenizer

__all__ = ["hub"]
REPO = "user/name"
# httpx, under the name that the client's version imports it by.
transport = sys.modules[HfHubHTTPError.__bases__[0].__module__.split(".")[0]]


@pytest.fixture
def api(hub) -> HfApi:
    """The connected client, with the repository made."""
    api = HfApi()
    api.create_repo(REPO)
    hub.requests.clear()
    return api


@pytest.fixture
def patient(monkeypatch) -> list[float]:
    """The client's waits between attempts, which take no time."""
    waits = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waits.append)
    return waits


def push(api: HfApi, files: dict[str, bytes], **options):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(REPO, operations, **({"commit_message": "push"} | options))


def served(hub: HubServer, pattern: str = "") -> list[tuple[str, int | None]]:
    return [(request.method, request.status) for request in hub.requests if re.search(pattern, request.path)]


def held(hub: HubServer, **options) -> dict[str, bytes]:
    files = hub.files(REPO, **options)
    assert b"*.safetensors filter=lfs" in files.pop(".gitattributes")
    return files


def test_the_token_names_its_user(hub):
    assert HfApi().whoami()["name"] == "user"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_wrong").whoami()
    assert served(hub, "/api/whoami-v2") == [("GET", 200), ("GET", 401)]


def test_repositories_are_created_once(hub):
    api = HfApi()
    created = api.create_repo(REPO, private=True)
    assert (created.repo_id, created.repo_type, str(created)) == (REPO, "model", f"{hub.url}/{REPO}")
    assert [commit.message for commit in hub.commits(REPO)] == ["initial commit"]
    assert set(hub.files(REPO)) == {".gitattributes"}
    assert api.create_repo(REPO, exist_ok=True) == created
    with pytest.raises(HfHubHTTPError, match="already created"):
        api.create_repo(REPO)
    assert api.create_repo("name", exist_ok=True).repo_id == REPO
    assert served(hub) == [("POST", 200), ("POST", 409), ("POST", 409), ("POST", 409)]


def test_a_space_is_another_repository_of_the_same_name(hub, api, tmp_path):
    created = api.create_repo(REPO, repo_type="space", space_sdk="gradio")
    assert (created.repo_type, str(created)) == ("space", f"{hub.url}/spaces/{REPO}")
    added = [CommitOperationAdd("app.py", b"pass\n"), CommitOperationAdd("model.bin", b"\0" * 9)]
    api.create_commit(REPO, added, commit_message="app", repo_type="space")
    assert set(hub.files(REPO, kind="space")) == {".gitattributes", "README.md", "app.py", "model.bin"}
    assert set(hub.files(REPO)) == {".gitattributes"}
    about = api.space_info(REPO)
    assert (about.sdk, about.sha) == ("gradio", hub.commits(REPO, kind="space")[-1].id)
    local = hf_hub_download(REPO, "model.bin", repo_type="space")
    assert Path(local).read_bytes() == b"\0" * 9


def test_a_commit_adds_regular_and_lfs_files(hub, api):
    files = {"a.txt": "가나다".encode(), "sub/dir/b.json": b"{}", "model.safetensors": b"\1" * 999, "empty.bin": b""}
    made = push(api, files, commit_message="summary", commit_description="two\nlines")
    assert held(hub) == files
    last = hub.commits(REPO)[-1]
    assert (made.oid, made.commit_url) == (last.id, f"{hub.url}/{REPO}/commit/{last.id}")
    assert (last.message, last.description, last.parent) == ("summary", "two\nlines", hub.commits(REPO)[0])
    assert set(last.parent.files) == {".gitattributes"}
    assert [request.path for request in hub.requests] == [
        f"/api/models/{REPO}/preupload/main",
        f"/{REPO}.git/info/lfs/objects/batch",
        next(request.path for request in hub.requests if request.method == "PUT"),
        f"/{REPO}.git/info/lfs/objects/verify",
        f"/api/models/{REPO}/commit/main",
    ]
    assert all(status == 200 for _, status in served(hub))


def test_an_lfs_file_of_known_content_is_not_sent_again(hub, api):
    push(api, {"model.safetensors": b"\1" * 999})
    push(api, {"model.safetensors": b"\2" * 999, "a.txt": b"1"})
    push(api, {"model.safetensors": b"\1" * 999, "a.txt": b"2"})
    assert held(hub) == {"model.safetensors": b"\1" * 999, "a.txt": b"2"}
    assert len(served(hub, "^/lfs/")) == 2


def test_files_given_by_path_are_sent_whole(hub, api, tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(os.urandom(300_000))
    push(api, {"weights.bin": file, "config.json": b"{}"})
    assert held(hub) == {"weights.bin": file.read_bytes(), "config.json": b"{}"}


def test_a_large_file_goes_by_lfs_whatever_its_name(hub, api):
    push(api, {"tokens.txt": b"x" * 10_000_000, "short.txt": b"x"})
    assert len(served(hub, "^/lfs/")) == 1
    (entry,) = api.get_paths_info(REPO, "tokens.txt")
    assert (entry.lfs.size, len(held(hub)["tokens.txt"])) == (10_000_000, 10_000_000)


def test_a_file_that_was_not_uploaded_is_not_committed(hub, api):
    hub.fail("PUT", "^/lfs/", status=200, times=2)
    with pytest.raises(RuntimeError, match="Error while uploading") as failed:
        push(api, {"model.bin": b"\1" * 99})
    assert failed.value.__cause__.response.status_code == 404
    hub.fail("POST", "/verify$", status=200)
    with pytest.raises(HfHubHTTPError, match="was not uploaded"):
        push(api, {"model.bin": b"\1" * 99})
    address = next(request.path for request in hub.requests if request.method == "PUT")
    assert get_session().put(hub.url + address, content=b"\2" * 99).status_code == 400
    assert held(hub) == {}


def test_a_commit_deletes_files_and_folders(hub, api):
    push(api, {"a.txt": b"a", "old/b.txt": b"b", "old/deep/c.bin": b"c", "older.txt": b"d"})
    deletions = [CommitOperationDelete("a.txt"), CommitOperationDelete("old/")]
    api.create_commit(REPO, deletions, commit_message="tidy")
    assert held(hub) == {"older.txt": b"d"}
    for missing in ("a.txt", "old/", "ol/"):
        with pytest.raises(EntryNotFoundError, match="doesn't exist"):
            api.create_commit(REPO, [CommitOperationDelete(missing)], commit_message="tidy")
    assert len(hub.commits(REPO)) == 3


def test_a_commit_copies_files(hub, api):
    push(api, {"a.txt": b"a", "b.bin": b"b"})
    copies = [CommitOperationCopy("a.txt", "c.txt"), CommitOperationCopy("b.bin", "d.bin")]
    api.create_commit(REPO, copies, commit_message="copy")
    assert held(hub) == {"a.txt": b"a", "b.bin": b"b", "c.txt": b"a", "d.bin": b"b"}


def test_the_client_sends_no_commit_that_changes_nothing(hub, api):
    files = {"a.txt": b"a", "model.bin": b"\0" * 99, "empty.bin": b""}
    first = push(api, files)
    hub.requests.clear()
    again = push(api, files)
    assert again.oid == first.oid
    assert not served(hub, "/commit/")
    assert len(hub.commits(REPO)) == 2


def test_a_commit_request_that_changes_nothing_makes_an_empty_commit(hub, api):
    push(api, {"a.txt": b"a"})
    # The client cannot leave an addition out that follows a deletion.
    operations = [CommitOperationDelete("a.txt"), CommitOperationAdd("a.txt", b"a")]
    made = api.create_commit(REPO, operations, commit_message="push")
    before, after = hub.commits(REPO)[-2:]
    assert made.oid == after.id != before.id
    assert before.files == after.files


def test_a_commit_on_a_stale_parent_is_refused(hub, api):
    seen = api.model_info(REPO).sha
    hub.put(REPO, {"theirs.txt": b"theirs"})
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        push(api, {"ours.txt": b"ours"}, parent_commit=seen)
    assert refused.value.response.status_code == 412
    assert held(hub) == {"theirs.txt": b"theirs"}
    push(api, {"ours.txt": b"ours"}, parent_commit=hub.commits(REPO)[-1].id[:7])
    assert held(hub) == {"theirs.txt": b"theirs", "ours.txt": b"ours"}


def test_somebody_commits_while_a_push_is_under_way(hub, api):
    hub.before("POST", "/commit/main$", lambda: hub.put(REPO, {"theirs.txt": b"theirs"}))
    with pytest.raises(HfHubHTTPError, match="412"):
        push(api, {"ours.txt": b"ours"}, parent_commit=api.model_info(REPO).sha)
    assert [commit.message for commit in hub.commits(REPO)] == ["initial commit", "Somebody else's commit"]


def test_branches_part(hub, api):
    api.create_branch(REPO, branch="runs/1")
    push(api, {"a.txt": b"main"})
    push(api, {"a.txt": b"branch"}, revision="runs/1")
    assert (held(hub), held(hub, revision="runs/1")) == ({"a.txt": b"main"}, {"a.txt": b"branch"})
    refs = {ref.name: ref.target_commit for ref in api.list_repo_refs(REPO).branches}
    assert refs == {name: hub.commits(REPO, revision=name)[-1].id for name in ("main", "runs/1")}
    with pytest.raises(HfHubHTTPError, match="Reference already exists"):
        api.create_branch(REPO, branch="runs/1")
    api.create_branch(REPO, branch="runs/1", exist_ok=True)
    api.create_branch(REPO, branch="old", revision=hub.commits(REPO)[0].id)
    assert held(hub, revision="old") == {}
    with pytest.raises(RevisionNotFoundError):
        push(api, {"a.txt": b"nowhere"}, revision="missing")
    assert Path(hf_hub_download(REPO, "a.txt", revision="runs/1")).read_bytes() == b"branch"


def test_a_folder_is_uploaded_by_one_commit(hub, api, tmp_path):
    hub.put(REPO, {"stale.txt": b"stale", "logs/kept.txt": b"kept"})
    files = {"config.json": b"{}", "sub/model.safetensors": b"\3" * 5000}
    for path, content in files.items():
        (tmp_path / "folder" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / path).write_bytes(content)
    api.upload_folder(repo_id=REPO, folder_path=tmp_path / "folder", delete_patterns=["*.txt"], commit_message="folder")
    assert held(hub) == files
    assert [commit.message for commit in hub.commits(REPO)[2:]] == ["folder"]


def test_what_a_repository_holds_and_held(hub, api):
    push(api, {"a.txt": b"a", "sub/b.bin": b"b" * 200}, commit_message="first")
    push(api, {"sub/deep/c.txt": b"c"}, commit_message="second", commit_description="why")
    first, second = hub.commits(REPO)[1:]
    everything = [".gitattributes", "a.txt", "sub/b.bin", "sub/deep/c.txt"]

    assert api.list_repo_files(REPO) == everything
    assert api.list_repo_files(REPO, revision=first.id) == everything[:-1]
    about = api.model_info(REPO)
    assert (about.id, about.sha, about.private) == (REPO, second.id, False)
    assert [sibling.rfilename for sibling in about.siblings] == everything
    assert api.repo_info(REPO, revision=first.id).sha == first.id
    assert about.last_modified >= about.created_at

    assert [entry.path for entry in api.list_repo_tree(REPO)] == [".gitattributes", "a.txt", "sub"]
    below = [entry.path for entry in api.list_repo_tree(REPO, "sub", recursive=True)]
    assert below == ["sub/b.bin", "sub/deep", "sub/deep/c.txt"]
    assert [entry.path for entry in api.list_repo_tree(REPO, "sub/deep")] == ["sub/deep/c.txt"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO, "missing"))

    regular, large, folder = api.get_paths_info(REPO, ["a.txt", "sub/b.bin", "sub/deep", "missing"])
    # `printf a | git hash-object --stdin`
    assert (regular.size, regular.blob_id, regular.lfs) == (1, "2e65efe2a145dda7ee51d1741299f848e5bf752e", None)
    assert (large.lfs.size, large.lfs.sha256) == (200, hashlib.sha256(b"b" * 200).hexdigest())
    assert (folder.path, type(folder).__name__) == ("sub/deep", "RepoFolder")

    log = api.list_repo_commits(REPO)
    assert [(commit.title, commit.message) for commit in log] == [
        ("second", "why"),
        ("first", ""),
        ("initial commit", ""),
    ]
    assert [commit.commit_id for commit in log] == [commit.id for commit in hub.commits(REPO)[::-1]]


def test_a_file_is_downloaded_once(hub, api):
    push(api, {"a.txt": b"a", "b.bin": b"b"})
    commit = hub.commits(REPO)[-1].id
    hub.requests.clear()
    for name, content in {"a.txt": b"a", "b.bin": b"b"}.items():
        paths = {hf_hub_download(REPO, name) for _ in range(2)}
        assert len(paths) == 1
        assert Path(*paths).read_bytes() == content
        assert Path(*paths).parent.name == commit
    assert served(hub) == 2 * [("HEAD", 200), ("GET", 200), ("HEAD", 200)]
    large = get_hf_file_metadata(hf_hub_url(REPO, "b.bin"))
    assert (large.commit_hash, large.size, len(large.etag)) == (commit, 1, 64)
    assert get_session().head(hf_hub_url(REPO, "b.bin")).headers["X-Linked-Size"] == "1"
    assert len(get_hf_file_metadata(hf_hub_url(REPO, "a.txt")).etag) == 40


def test_a_snapshot_is_of_one_commit(hub, api):
    first = hub.put(REPO, {"a.txt": b"1", "sub/b.bin": b"1", "c d.txt": b"1"})
    hub.put(REPO, {"a.txt": b"2"})
    newest, older = (Path(snapshot_download(REPO, revision=revision)) for revision in ("main", first))
    assert older.name == first
    for folder, content in {newest: b"2", older: b"1"}.items():
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        del found[".gitattributes"]
        assert found == {"a.txt": content, "sub/b.bin": b"1", "c d.txt": b"1"}


def test_what_is_missing_is_told_apart(hub, api):
    with pytest.raises(EntryNotFoundError) as missing:
        hf_hub_download(REPO, "missing.txt")
    assert missing.value.response.headers["X-Repo-Commit"] == hub.commits(REPO)[-1].id
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(REPO, ".gitattributes", revision="missing")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("user/missing", "a.txt")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="0" * 40)
    with pytest.raises(RepositoryNotFoundError):
        push(HfApi(), {"a.txt": b"a"}, repo_type="space")
    assert not api.repo_exists("user/missing")
    assert not api.file_exists(REPO, "missing.txt")


def test_a_range_of_a_file(hub, api):
    push(api, {"a.bin": bytes(range(100))})
    for wanted, status, content, of in [
        ("bytes=10-19", 206, bytes(range(10, 20)), "bytes 10-19/100"),
        ("bytes=90-", 206, bytes(range(90, 100)), "bytes 90-99/100"),
        ("bytes=90-500", 206, bytes(range(90, 100)), "bytes 90-99/100"),
    ]:
        answer = get_session().get(hf_hub_url(REPO, "a.bin"), headers={"Range": wanted})
        assert (answer.status_code, answer.content, answer.headers["Content-Range"]) == (status, content, of)


def test_a_private_repository_is_its_owners(hub):
    HfApi().create_repo(REPO, private=True)
    push(HfApi(), {"a.txt": b"a"})
    assert HfApi().model_info(REPO).private
    for stranger in (HfApi(token=False), HfApi(token="hf_wrong")):
        with pytest.raises(HfHubHTTPError) as refused:
            stranger.model_info(REPO)
        assert refused.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download(REPO, "a.txt", token=False)
    hub.put("other/private", {"a.txt": b"a"}, private=True)
    with pytest.raises(RepositoryNotFoundError) as refused:
        HfApi().model_info("other/private")
    assert refused.value.response.status_code == 404


def test_only_the_owner_writes(hub):
    hub.put("other/public", {"a.txt": b"a"})
    hub.put(REPO, {"a.txt": b"a"})
    assert Path(hf_hub_download("other/public", "a.txt", token=False)).read_bytes() == b"a"
    operations = [CommitOperationAdd("a.txt", b"b")]
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi().create_commit("other/public", operations, commit_message="push")
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi().create_repo("other/new")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(token=False).create_commit(REPO, operations, commit_message="push")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(token=False).create_repo("user/new")
    # A wrong token may not even read what is public.
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(token="hf_wrong").model_info(REPO)
    assert held(hub) == {"a.txt": b"a"}
    assert len(HfApi(token=False).get_paths_info(REPO, "a.txt")) == 1


def test_a_card_is_pushed(hub, api):
    card = ModelCard("---\nlicense: mit\n---\n# Title\n")
    card.push_to_hub(REPO)
    assert ModelCard.load(REPO).data.license == "mit"
    assert held(hub) == {"README.md": str(card).encode()}
    # By the card and by the commit.
    assert served(hub, "validate-yaml") == [("POST", 200)] * 2
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        push(api, {"README.md": b"# Title\n"})
    hub.fail("POST", "/api/validate-yaml", status=400, error="license: not one of ours")
    with pytest.raises(ValueError, match="not one of ours"):
        card.push_to_hub(REPO)
    assert held(hub)["README.md"] == b"# Title\n"


def test_transformers_loads_a_revision(hub, api, tmp_path):
    directory = write_checkpoint(tmp_path / "bert", "bert")
    first = api.upload_folder(repo_id=REPO, folder_path=directory).oid
    hub.put(REPO, {"config.json": b"not JSON"})
    model = AutoModelForMaskedLM.from_pretrained(REPO, revision=first)
    tokenizer = AutoTokenizer.from_pretrained(REPO, revision=first)
    local = AutoModelForMaskedLM.from_pretrained(directory)
    assert tokenizer("좋은 영화")["input_ids"] == AutoTokenizer.from_pretrained(directory)("좋은 영화")["input_ids"]
    assert all((local.state_dict()[name] == tensor).all() for name, tensor in model.state_dict().items())
    with pytest.raises(OSError, match="not a valid JSON"):
        AutoModelForMaskedLM.from_pretrained(REPO)
    assert 501 not in {status for _, status in served(hub)}


@pytest.mark.parametrize(("options", "applied"), [({}, False), ({"applied": True}, True)])
def test_a_status_on_demand(hub, api, options, applied):
    hub.fail("POST", "/commit/main$", status=504, error="the gateway gave up", **options)
    with pytest.raises(HfHubHTTPError, match="the gateway gave up") as failed:
        push(api, {"a.txt": b"a"})
    assert failed.value.response.status_code == 504
    assert held(hub) == ({"a.txt": b"a"} if applied else {})
    assert served(hub, "/commit/") == [("POST", 504)]
    push(api, {"b.txt": b"b"})
    assert held(hub) == ({"a.txt": b"a"} if applied else {}) | {"b.txt": b"b"}


@pytest.mark.parametrize(
    ("cut", "applied", "status"), [("before", False, None), ("after", True, None), ("midway", True, 200)]
)
def test_a_cut_connection(hub, api, cut, applied, status):
    hub.fail("POST", "/commit/main$", cut=cut)
    # No error of the Hub's, and for the commit no second attempt.
    with pytest.raises(transport.RemoteProtocolError):
        push(api, {"a.txt": b"a"})
    assert held(hub) == ({"a.txt": b"a"} if applied else {})
    assert served(hub, "/commit/") == [("POST", status)]


def test_the_client_tries_most_requests_again(hub, api, patient):
    hub.fail("POST", "/preupload/", status=503, times=2)
    hub.fail("POST", "/batch$", cut="after")
    hub.fail("PUT", "^/lfs/", status=500)
    hub.fail("PUT", "^/lfs/", cut="before")
    hub.fail("POST", "/verify$", status=429, headers={"Retry-After": "7"})
    push(api, {"model.bin": b"\1" * 99})
    assert held(hub) == {"model.bin": b"\1" * 99}
    assert [status for _, status in served(hub, "preupload")] == [503, 503, 200]
    assert [status for _, status in served(hub, "batch")] == [None, 200]
    assert [status for _, status in served(hub, "^/lfs/")] == [500, None, 200]
    assert [status for _, status in served(hub, "verify")] == [429, 200]
    assert patient == [1, 2, 1, 1, 2, 8]


def test_faults_skip_requests_and_end(hub, api):
    hub.fail("GET|HEAD", f"^/api/models/{REPO}$", status=500, skip=1, times=2)
    outcomes = []
    for _ in range(5):
        try:
            outcomes.append(api.model_info(REPO).id)
        except HfHubHTTPError as error:
            outcomes.append(error.response.status_code)
    assert outcomes == [REPO, 500, 500, REPO, REPO]


def test_a_download_that_breaks_off_is_resumed(hub, api, patient, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    content = os.urandom(1001)
    push(api, {"model.bin": content})
    hub.requests.clear()
    hub.fail("GET", "/resolve/", cut="midway")
    assert Path(hf_hub_download(REPO, "model.bin")).read_bytes() == content
    _, broken, resumed = hub.requests
    assert ("range" in broken.headers, resumed.headers["range"], resumed.status) == (False, "bytes=500-", 206)
    assert patient == [1]


def test_an_answer_without_a_body_is_cut_too(hub, api):
    hub.fail("HEAD", "/resolve/", cut="midway")
    with pytest.raises(transport.RemoteProtocolError):
        hf_hub_download(REPO, ".gitattributes")
    assert served(hub, "/resolve/") == [("HEAD", 200)]


def test_a_hub_that_is_down(hub, api, patient):
    hub.fail(".*", "", status=503, times=1000)
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download(REPO)
    assert served(hub) == [("GET", 503)]


def test_a_slow_answer_comes_after_the_effect(hub, api, monkeypatch):
    hub.fail("POST", "/commit/main$", delay=60)
    # The client has no time limit of its own.
    monkeypatch.setattr(get_session(), "timeout", 2)
    with pytest.raises(transport.ReadTimeout):
        push(api, {"a.txt": b"a"})
    assert held(hub) == {"a.txt": b"a"}
    assert served(hub, "/commit/") == [("POST", None)]


def test_leaving_waits_for_no_answer():
    start = time.monotonic()
    with HubServer() as server:
        server.fail("GET", "whoami", delay=600)
        with pytest.raises(transport.ReadTimeout):
            transport.get(f"{server.url}/api/whoami-v2", timeout=1)
    assert time.monotonic() - start < 30
    with pytest.raises(transport.ConnectError):
        transport.get(server.url)


def test_a_fault_that_nothing_met_is_an_error():
    with pytest.raises(AssertionError, match="never asked"), HubServer() as server:
        server.fail("GET", "never asked", status=500)
    with pytest.raises(ValueError, match="sometimes"), HubServer() as server:
        server.fail("GET", "", cut="sometimes")


def test_the_tests_own_failure_comes_first():
    def fail_before_the_fault():
        with HubServer() as server:
            server.fail("GET", "never asked", status=500)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_before_the_fault()


def test_an_error_of_the_server_is_raised():
    def ask_nonsense():
        with HubServer() as server:
            headers = {"Authorization": f"Bearer {server.token}"}
            with pytest.raises(transport.RemoteProtocolError):
                transport.post(f"{server.url}/api/repos/create", content=b"no JSON", headers=headers)

    with pytest.raises(ExceptionGroup, match="the server failed") as failed:
        ask_nonsense()
    assert isinstance(failed.value.exceptions[0], ValueError)


def test_what_is_not_served_says_so(hub, api):
    with pytest.raises(HfHubHTTPError, match="is not served"):
        api.delete_repo(REPO)
    with pytest.raises(HfHubHTTPError, match="pull requests are not served"):
        push(api, {"a.txt": b"a"}, create_pr=True)
    assert {status for _, status in served(hub)} == {501}


def test_the_connection_ends_with_the_test(tmp_path):
    def seen():
        values = {
            "ENDPOINT": constants.ENDPOINT,
            "api": huggingface_hub.hf_api.api.endpoint,
            "template": constants.HUGGINGFACE_CO_URL_TEMPLATE,
            "cache": constants.HF_HUB_CACHE,
            "home": constants.HF_HOME,
            "offline": constants.is_offline_mode(),
            "datasets": (datasets.config.HF_ENDPOINT, datasets.config.HF_HUB_OFFLINE),
            "transformers": transformers.utils.hub.hf_api().endpoint,
        }
        return values | dict(os.environ)

    before = seen()
    # As before its first use, which is then while connected.
    transformers.utils.hub._hf_api = None
    factory = type(get_session())
    with HubServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        connect(server, tmp_path, monkeypatch)
        huggingface_hub.set_client_factory(lambda: None)
        during = seen()
        huggingface_hub.close_session()
    assert seen() == before
    assert type(get_session()) is factory
    assert during == before | server.environment(tmp_path) | {
        "ENDPOINT": server.url,
        "api": server.url,
        "template": f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "cache": str(tmp_path / "hub"),
        "home": str(tmp_path),
        "offline": False,
        "datasets": (server.url, False),
        "transformers": server.url,
    }
    assert (before["offline"], before["ENDPOINT"]) == (True, "https://huggingface.co")


def test_a_child_process_is_connected_by_its_environment(tmp_path):
    code = """
from huggingface_hub import HfApi, hf_hub_download
api = HfApi()
api.create_repo("user/child", exist_ok=True)
api.upload_file(path_or_fileobj=b"weights", path_in_repo="model.bin", repo_id="user/child")
print(api.whoami()["name"], open(hf_hub_download("user/child", "model.bin")).read())
"""
    with HubServer(token="hf_child", user="user") as server:
        # Nobody listens at the proxy.
        environment = os.environ | {"http_proxy": "http://127.0.0.1:9"} | server.environment(tmp_path)
        child = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100
        )
        assert child.returncode == 0, child.stderr
        assert child.stdout.split() == ["user", "weights"]
        assert server.files("user/child")["model.bin"] == b"weights"
    assert (tmp_path / "hub" / "models--user--child").is_dir()
