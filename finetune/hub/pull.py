"""Names of the Hub -> directories of this machine, looked at before anything in them is loaded."""

import json
import re
from pathlib import Path
from typing import Any, cast

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import CONFIG_MAPPING

import finetune.models  # noqa: F401  # registers the recurrent models
from finetune.errors import UserError
from finetune.models.novelty import NOVELTY_FILE
from finetune.recipe import EMBEDDED_PREFIX

NETWORK_ERRORS = cast("tuple[type[Exception], ...]", (HfHubHTTPError.__bases__[0], OSError))
"""What the Hub's client raises: the errors of its HTTP library, whichever that is, and of files and connections."""
_FETCH_ERRORS: tuple[type[Exception], ...] = (*NETWORK_ERRORS, HFValidationError, ValueError)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
)
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    NOVELTY_FILE,
    *TOKENIZER_FILES,
)
RUN_FILES = (
    "README.md",
    "adapter_config.json",
    "recipe.yaml",
    "environment.json",
    "data.json",
    "train_log.jsonl",
    "scores.json",
    "probe.json",
    "tuning.json",
    "beside.json",
    "predictions/*.parquet",
    "plots/*.svg",
    "onnx/*.onnx",
    "onnx/agreement.json",
)
"""What a run has on the Hub beside its model: all that the other commands read, and nothing that could run."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
"""Endings of files that hold code or may, or weights in forms that this project does not write."""
_MOST_BYTES = {"config.json": 1 << 20, "generation_config.json": 1 << 20, "tokenizer_config.json": 32 << 20}
_MOST_JSON_BYTES = 256 << 20
"""The largest tokenizers have some 35 MB; what is far beyond is meant to fill the memory."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?")


def fetch(name: str, revision: str | None = None) -> str:
    """The directory of what a RUN|MODEL names: a path and an embedded model stay as they are, a Hub id is downloaded.

    A Hub id may carry its revision, `owner/name@revision`.

    Raises:
        UserError: there is no such thing, it cannot be reached, or its files are not fit to be loaded.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        check_directory(path)
        return str(path)
    if name.startswith((EMBEDDED_PREFIX, ".", "/", "~", "runs/")) or path.exists():
        return name  # whoever loads it says what is wrong
    repo_id, _, of_name = name.partition("@")
    if not _HUB_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id or name.endswith("@"):
        raise UserError(f"{name}: no run or model directory of this name, and no Hub id (owner/name) either")
    try:
        # Not the code of a repository, nor pickles: what is not here cannot be run.
        directory = Path(
            snapshot_download(
                repo_id, revision=of_name or revision, allow_patterns=[*MODEL_FILES, *RUN_FILES], max_workers=4
            )
        )
    except GatedRepoError:
        raise UserError(f"{name}: its owner lets in who asks; ask on its page, then `hf auth login`") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{name}: no run or model directory here, and on the Hub neither, or private: then `hf auth login` first"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{repo_id}: no revision {of_name or revision} on the Hub") from None
    except _FETCH_ERRORS as error:
        raise UserError(
            f"{name}: no run or model directory here, and the Hub did not give it: {' '.join(str(error).split())}"
        ) from None
    check_directory(directory)
    return str(directory)


def check_directory(directory: Path) -> None:
    """Refuse a run or model directory whose files must not be loaded; nothing in it is loaded to find out.

    Raises:
        UserError: a link out of it, weights in pickles alone, JSON beyond all measure, or code that it would need.
    """
    root = directory.resolve()
    # The Hub's cache has its files in one place and links to them from every snapshot.
    is_snapshot = directory.parent.name == "snapshots" and (directory.parent.parent / "blobs").is_dir()
    allowed = root.parent.parent if is_snapshot else root
    for part in (directory, directory / "model"):
        if not part.is_dir():
            continue
        for file in sorted(part.iterdir()):
            if file.is_symlink() and not file.resolve().is_relative_to(allowed):
                raise UserError(f"{file}: a link that leaves the directory; copy what it points to, if you trust it")
            most = _MOST_BYTES.get(file.name, _MOST_JSON_BYTES)
            if file.suffix == ".json" and file.is_file() and file.stat().st_size > most:
                raise UserError(f"{file}: {file.stat().st_size:,} bytes of JSON, at most {most:,} are read")
        if (part / "config.json").is_file():
            _check_model(part)
        elif (part / "adapter_config.json").is_file():
            raise UserError(
                f"{part}: holds an adapter without its model; load it with peft, or push it without --adapter"
            )


def _check_model(directory: Path) -> None:
    """The configuration, the weights and what they name."""
    if (directory / "adapter_config.json").exists():
        raise UserError(f"{directory}: an adapter beside a model, which would be put onto it unseen; remove it first")
    # By the names that are loaded: another file would let a pickle beside it pass.
    weights = [name for name in ("model.safetensors", "model.safetensors.index.json") if (directory / name).is_file()]
    pickles = sorted(file.name for file in directory.iterdir() if file.suffix in PICKLES)
    if not weights and not pickles:
        raise UserError(
            f"{directory}: no weights in safetensors; where a model has pickles alone they are not fetched, since they "
            "can run code"
        )
    if not weights:
        raise UserError(
            f"{directory / pickles[0]}: weights in a pickle, which can run code; only safetensors are loaded here. "
            "Save them anew with `save_pretrained` where you trust them"
        )
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = _object(index).get("weight_map")
        for shard in sorted({str(name) for name in shards.values()} if isinstance(shards, dict) else ()):
            if Path(shard).name != shard or not (directory / shard).is_file():
                raise UserError(f"{index}: names the weights {shard!r}, which are no file of the directory")
    config = _object(directory / "config.json")
    if config.get("auto_map") and config.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"{directory}: a model of type {config.get('model_type')!r} that comes with code of its own, which is not "
            "run here"
        )
    if (directory / "tokenizer.json").is_file():
        _object(directory / "tokenizer.json")
    tokenizer = directory / "tokenizer_config.json"
    if tokenizer.is_file() and _object(tokenizer).get("auto_map") and not (directory / "tokenizer.json").is_file():
        raise UserError(f"{directory}: a tokenizer that comes with code of its own, which is not run here")


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a JSON object")
    return content
