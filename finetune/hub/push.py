"""`push`: a run goes to the Hub once its files have been proven, in one commit or not at all."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported, but not by its list

from finetune.errors import UserError
from finetune.hub import proof
from finetune.hub.pull import MODEL_FILES, NETWORK_ERRORS, RUN_FILES
from finetune.hub.stage import ADAPTER_FILES, stage
from finetune.progress import say
from finetune.reporting.card import OWN_CODE, PERSON_SECTIONS, Written, read_card, write_card
from finetune.run import open_run

_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds between attempts: doubled from the first on, or what the Hub asks for."""
_REQUEST_SECONDS = 120.0
"""The client itself would wait for ever."""
_PROOF_SECONDS = 1800
_OURS = (*MODEL_FILES, *RUN_FILES, *ADAPTER_FILES, *{name for files in OWN_CODE.values() for name in files})
"""Files that an earlier push may have left and a later one takes away; others in the repository are not touched."""
_UPLOAD_ERRORS: tuple[type[Exception], ...] = (*NETWORK_ERRORS, RuntimeError, ValueError)
"""The client wraps the errors of large files, and does not expect a gateway's page in place of JSON."""
_ANSWERS = {
    400: "the Hub refuses the request",
    401: "the Hub does not know this token; `hf auth login` takes a new one",
    403: "this token may not write there; choose a repository of your own, or a token with write access",
    404: "no such repository or revision",
    413: "too large for the Hub",
}


Result = TypeVar("Result")


@dataclass(frozen=True)
class Pushed:
    """Where a run is on the Hub; `is_new` is false where it was there already, file for file."""

    url: str
    commit: str
    is_new: bool


def push(
    run_path: str,
    repo_id: str,
    *,
    private: bool = False,
    revision: str = "main",
    predictions: bool = True,
    as_adapter: bool = False,
    dry_run: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Pushed | None:
    """Prove the files of a run and push them to `repo_id`; None for a dry run, which stops before the network.

    The commit is tried again where the network fails; nothing is half pushed, and files that are there already make no
    new commit.

    Raises:
        UserError: the run cannot be pushed as it is, the proof fails, or the Hub refuses.
    """
    run = open_run(run_path)
    check_repo_id(repo_id)
    token = _token() if not dry_run else None
    run.trained_model()
    written = write_card(run)
    with tempfile.TemporaryDirectory(prefix="finetune-push-") as temporary:
        directory = Path(temporary) / "files"
        directory.mkdir()
        earlier = None if dry_run else _card_of(repo_id, revision, token, Path(temporary) / "card", pause)
        written = _together(written, earlier)
        stage(run, directory, written, repo_id, predictions=predictions, as_adapter=as_adapter)
        for title in written.empty_sections:
            say(f"warning: the card's section {title!r} is empty; write it in {run.card_file}, then push again")
        if written.license is None:
            say(f"warning: the card names no licence; finetune card {run.path} --license apache-2.0, say, gives it one")
        say(f"{run.name}: proving {_size(directory)} in a process of its own")
        for line in prove(directory):
            say(f"  {line}")
        if dry_run:
            print_listed(directory)
            return None
        return upload(
            directory,
            repo_id,
            kind="model",
            private=private,
            revision=revision,
            message=f"Push {run.name}",
            pause=pause,
        )


def prove(directory: Path) -> list[str]:
    """What a process with plain transformers found right in the files of `directory`.

    Raises:
        UserError: something is wrong with them.
    """
    with tempfile.TemporaryDirectory(prefix="finetune-proof-") as modules:
        # Not this process's places: code that comes with a model is copied to where modules are cached.
        environment = {**os.environ, "HF_MODULES_CACHE": modules, "PYTHONDONTWRITEBYTECODE": "1"}
        if not (directory / "adapter_config.json").exists():
            environment["HF_HUB_OFFLINE"] = "1"  # the files have to do
        try:
            done = subprocess.run(
                [sys.executable, "-P", proof.__file__, str(directory)],
                capture_output=True,
                text=True,
                env=environment,
                cwd=modules,
                timeout=_PROOF_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"not pushed: the proof took more than {_PROOF_SECONDS // 60} minutes") from None
    try:
        result: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"not pushed: the proof ended with code {done.returncode}: {reason}") from None
    if result["problems"]:
        raise UserError(f"not pushed: {'; '.join(result['problems'])}")
    return result["shown"]


def upload(
    directory: Path,
    repo_id: str,
    *,
    kind: str,
    private: bool,
    revision: str,
    message: str,
    space_sdk: str | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Pushed:
    """Make `repo_id` hold the files of `directory`, by one commit; an earlier push's files that are not there now go.

    Raises:
        UserError: the Hub refuses, or cannot be reached in several attempts.
    """
    api = HfApi(token=_token())
    wanted = {file.relative_to(directory).as_posix(): _digests(file) for file in _files(directory)}

    def commit() -> Pushed:
        return _commit_once(api, directory, wanted, repo_id, kind, private, revision, message, space_sdk)

    return _again_and_again(commit, repo_id, pause)


def _again_and_again(action: Callable[[], Result], repo_id: str, pause: Callable[[float], None]) -> Result:
    """What `action` returns, tried again while the network fails.

    Raises:
        UserError: it failed too often, or for a reason that stays.
    """
    get_session().timeout = _REQUEST_SECONDS
    seconds = _FIRST_PAUSE
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return action()
        except _UPLOAD_ERRORS as error:
            wait = _wait(error, repo_id, seconds)
            if attempt == _ATTEMPTS:
                raise UserError(
                    f"{repo_id}: the Hub could not be reached in {_ATTEMPTS} attempts ({_reason(error)}); nothing is "
                    "half pushed: the same command begins anew"
                ) from None
            say(f"{repo_id}: {_reason(error)}; again in {wait:.0f} s ({attempt} of {_ATTEMPTS} attempts)")
            pause(wait)
            seconds = min(2 * seconds, _LONGEST_PAUSE)
    raise AssertionError("the last attempt returns or raises")


def _commit_once(
    api: HfApi,
    directory: Path,
    wanted: dict[str, tuple[str, str]],
    repo_id: str,
    kind: str,
    private: bool,
    revision: str,
    message: str,
    space_sdk: str | None,
) -> Pushed:
    """Look what is there, commit what is not, and look again. An error may follow a commit that was made."""
    try:
        found = api.repo_info(repo_id, repo_type=kind, timeout=_REQUEST_SECONDS)
        if private and not found.private:
            raise UserError(
                f"{repo_id} is there already and is public; make it private on its page first, or leave --private out"
            )
    except RepositoryNotFoundError:
        # Not with exist_ok: the client then asks for ever while the Hub is busy with the repository.
        api.create_repo(repo_id, repo_type=kind, private=private or None, space_sdk=space_sdk)
    try:
        api.repo_info(repo_id, repo_type=kind, revision=revision, timeout=_REQUEST_SECONDS)
    except RevisionNotFoundError:
        api.create_branch(repo_id, repo_type=kind, branch=revision)
    head, there = _remote(api, repo_id, kind, revision)
    changed = sorted(name for name, digests in wanted.items() if there.get(name) not in digests)
    gone = sorted(name for name in there if name not in wanted and _is_ours(name, kind))
    is_new = bool(changed or gone)
    if is_new:
        # Made anew for each attempt: the client changes them.
        operations: list[Any] = [CommitOperationAdd(name, directory / name) for name in changed]
        operations += [CommitOperationDelete(name) for name in gone]
        with warnings.catch_warnings():
            # Predictions are data, and meant to lie beside the model.
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file", UserWarning)
            api.create_commit(
                repo_id, operations, commit_message=message, repo_type=kind, revision=revision, parent_commit=head
            )
        head, there = _remote(api, repo_id, kind, revision)
        lacking = sorted(name for name, digests in wanted.items() if there.get(name) not in digests)
        if lacking:
            raise UserError(f"{repo_id}: {lacking[0]} is not on the Hub as it was sent; somebody else may be pushing")
    prefix = "" if kind == "model" else f"{kind}s/"
    return Pushed(f"{api.endpoint}/{prefix}{repo_id}", head, is_new)


def _remote(api: HfApi, repo_id: str, kind: str, revision: str) -> tuple[str, dict[str, str]]:
    """The commit at the head of a revision, and for each of its files the digest that the Hub tells."""
    # Listing the tree would wait for an answer without a limit, whatever limit the client is given.
    ask = api.space_info if kind == "space" else api.model_info
    found = ask(repo_id, revision=revision, timeout=_REQUEST_SECONDS)
    assert found.sha is not None
    names = [file.rfilename for file in found.siblings or []]
    files = api.get_paths_info(repo_id, names, repo_type=kind, revision=found.sha) if names else []
    digests = {
        file.path: file.lfs.sha256 if file.lfs is not None else file.blob_id
        for file in files
        if isinstance(file, RepoFile)
    }
    return found.sha, digests


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _digests(file: Path) -> tuple[str, str]:
    """What the Hub tells of a file stored as LFS, and of one stored in git."""
    whole, blob = hashlib.sha256(), hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            whole.update(block)
            blob.update(block)
    return whole.hexdigest(), blob.hexdigest()


def _is_ours(name: str, kind: str) -> bool:
    """Whether a file has a place that pushes write to."""
    if kind == "space":
        return name.startswith("runs/") or name.endswith(".whl")
    return any(Path(name).match(pattern) and name.count("/") == pattern.count("/") for pattern in _OURS)


def _wait(error: Exception, repo_id: str, seconds: float) -> float:
    """How long to wait before the next attempt.

    Raises:
        UserError: another attempt would end in the same error.
    """
    # Errors of large files come as the cause of another.
    answered = next((one for one in (error, error.__cause__) if isinstance(one, HfHubHTTPError)), None)
    if answered is None:
        is_ours = isinstance(error, FileNotFoundError | PermissionError) and not isinstance(error, EntryNotFoundError)
        if is_ours or isinstance(error, HFValidationError):
            raise UserError(f"{repo_id}: {_reason(error)}") from None
        return seconds
    status = answered.response.status_code
    if status in (409, 412, 429) or status >= 500:
        asked = answered.response.headers.get("Retry-After", "")
        return min(float(asked), _LONGEST_PAUSE) if asked.isdigit() else seconds
    raise UserError(f"{repo_id}: {_ANSWERS.get(status, 'the Hub refuses')} ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def print_listed(directory: Path) -> None:
    """What would be pushed, with bytes."""
    for file in _files(directory):
        print(f"{file.stat().st_size:>13,}  {file.relative_to(directory).as_posix()}")


def check_repo_id(repo_id: str, flag: str = "--repo") -> None:
    """Refuse what is no repository of the Hub, before anything is made of it.

    Raises:
        UserError: it is none.
    """
    owner, slash, name = repo_id.partition("/")
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        name = ""
    if not (owner and slash and name):
        raise UserError(
            f"{flag} {repo_id}: a repository of the Hub is needed, owner/name, in letters, digits, -, _ and ."
        )


def _token() -> str:
    token = get_token()
    if token is None:
        raise UserError("no token of the Hub: `hf auth login` first, or set HF_TOKEN")
    return token


def _card_of(
    repo_id: str, revision: str, token: str | None, directory: Path, pause: Callable[[float], None]
) -> Written | None:
    """What people wrote in the card that is on the Hub already."""

    def download() -> Path | None:
        try:
            file = HfApi(token=token).hf_hub_download(repo_id, "README.md", revision=revision, local_dir=directory)
        except (RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
            return None
        return Path(file)

    # Were it taken for missing whenever the network fails, the next commit would take away what people wrote.
    file = _again_and_again(download, repo_id, pause)
    return None if file is None else read_card(file)


def _together(here: Written, there: Written | None) -> Written:
    """What is written here, and where nothing is, what somebody wrote on the Hub."""
    if there is None:
        return here
    sections = {name: here.sections.get(name) or there.sections.get(name) for name in PERSON_SECTIONS}
    return Written(
        here.license or there.license,
        here.language or there.language,
        {name: text for name, text in sections.items() if text},
    )


def _size(directory: Path) -> str:
    files = _files(directory)
    return f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB,"
