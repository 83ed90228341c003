"""What of a run goes to the Hub: listed files alone, without places of this machine, secrets or texts of the data."""

import json
import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from finetune.errors import UserError
from finetune.evaluation.language import SUMS
from finetune.hub.pull import MODEL_FILES, PICKLES, TOKENIZER_FILES
from finetune.recipe import EMBEDDED_PREFIX, published_tree, write_yaml
from finetune.reporting.card import OWN_CODE, Written, render_card
from finetune.run import RunDirectory

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_AUTO_TASKS = {"ConditionalGeneration": "Seq2SeqLM"}
"""What an architecture's name says it is for, and what the class is called that loads it, where they differ."""
_RUN_FILES = ("data.json", "train_log.jsonl", "scores.json", "probe.json", "tuning.json", "beside.json")
_SECRETS = {
    "a token of the Hub": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a key of OpenAI or Anthropic": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a token of GitHub": re.compile(r"\b(?:ghp|gho|ghs|github_pat)_[A-Za-z0-9_]{20,}"),
    "a key of AWS": re.compile(r"\bAKIA[A-Z0-9]{16}\b"),
    "a key of Google": re.compile(r"\bAIza[A-Za-z0-9_-]{35}"),
    "a token of Weights & Biases": re.compile(r"WANDB_API_KEY\W+[0-9a-f]{40}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_ABSOLUTE = re.compile(
    r"(?<![\w.:/~-])(?:file://)?(?:~|\.{1,2}|[A-Za-z]:)?(?:[/\\][^\s/\\'\"{},:;]+)*[/\\]([^\s/\\'\"{},:;]+)"
)
"""A path from the root of a machine, somebody's home or the working directory; its last part."""
_PREDICTION_COLUMNS = {"id", "reference", "predicted", "scores", *SUMS}


def stage(
    run: RunDirectory,
    directory: Path,
    written: Written,
    repo_id: str | None,
    *,
    place: str | None = None,
    predictions: bool = True,
    as_adapter: bool = False,
) -> None:
    """Put what is to be pushed into the empty `directory`, laid out as `from_pretrained` looks for it.

    The card says that it is to be found at `repo_id` on the Hub, or else at `place`.

    Raises:
        UserError: the run has no model or no probe, or something in it must not be published.
    """
    model = Path(run.trained_model())
    if not run.probe_file.exists():
        raise UserError(f"{run.path}: no {run.probe_file.name}, which training leaves; train the run again")
    if as_adapter:
        _check_adapter(run)
        _copy(run.adapter_directory, directory, ADAPTER_FILES)
        _copy(model, directory, TOKENIZER_FILES)
    else:
        _refuse_pickles(model)
        _copy(model, directory, MODEL_FILES)
        _add_code(directory)
    _without_places(directory)
    copy_account(run, directory)
    for source, patterns in (
        (run.path / "predictions" if predictions else None, ("*.parquet",)),
        (run.plots_directory, ("*.svg",)),
        (None if as_adapter else run.onnx_directory, ("*.onnx", "agreement.json")),
    ):
        if source is not None and source.is_dir():
            (directory / source.name).mkdir()
            _copy(source, directory / source.name, patterns)
    card = render_card(run, written, repo_id, place=place, as_adapter=as_adapter)
    (directory / "README.md").write_text(card, encoding="utf-8")
    _check_texts(directory)


def copy_account(run: RunDirectory, directory: Path) -> None:
    """What a run tells of itself in plain files, without places of this machine; no predictions and no texts."""
    _copy(run.path, directory, _RUN_FILES)
    recipe = published_tree(run.recipe().model_dump(mode="json"))
    (directory / "recipe.yaml").write_text(write_yaml(recipe), encoding="utf-8")
    environment = run.environment()
    environment["command"] = [_ABSOLUTE.sub(r"\1", word) for word in environment.get("command", [])]
    _write_json(directory / "environment.json", environment)


def _check_adapter(run: RunDirectory) -> None:
    if not run.adapter_directory.is_dir():
        raise UserError(f"{run.path}: no adapter; only runs with model.tuning lora have one")
    if run.recipe().task != "generate":
        raise UserError(
            f"{run.path}: the adapter of a classifier needs its head and labels beside it; leave --adapter out: the "
            "model with the adapter merged in goes up"
        )
    base = str(getattr(run.recipe().model, "model_name_or_path", ""))
    if base.startswith(EMBEDDED_PREFIX) or Path(base).is_absolute():
        raise UserError(
            f"{run.path}: its adapter belongs to {Path(base).name if Path(base).is_absolute() else base}, which is not "
            "on the Hub, so nobody could load it; leave --adapter out: the model with the adapter merged in goes up"
        )


def _refuse_pickles(model: Path) -> None:
    for file in sorted(model.iterdir()):
        if file.suffix in PICKLES:
            raise UserError(f"{file}: may hold code (a pickle or the like) and no run writes it; remove it first")


def _copy(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for file in sorted(source.glob(pattern)):
            if file.is_symlink():
                raise UserError(f"{file}: a link; put the file itself there, or remove it")
            if file.suffix == ".parquet" and (texts := set(pq.read_schema(file).names) - _PREDICTION_COLUMNS):
                raise UserError(
                    f"{file}: has the column {min(texts)}, which no run writes; remove the file, or that column"
                )
            if file.is_file():
                shutil.copyfile(file, target / file.name)


def _add_code(directory: Path) -> None:
    """An architecture of this project's own beside its weights, for those who do not have this package."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    architecture = next((name for name in config.get("architectures") or [] if name in OWN_CODE), None)
    if architecture is None:
        return
    for name in OWN_CODE[architecture]:
        code = (resources.files("finetune.models") / name).read_text(encoding="utf-8")
        (directory / name).write_text(code.replace("from finetune.models.", "from ."), encoding="utf-8")
    module = OWN_CODE[architecture][0].removesuffix(".py")
    kind, _, task = architecture.partition("For")
    # The configuration stands with the classifier, whose module the language model's builds on.
    home = "recurrent" if kind == "Recurrent" else module
    config["auto_map"] = {
        "AutoConfig": f"{home}.{kind}Config",
        f"AutoModelFor{_AUTO_TASKS.get(task, task)}": f"{module}.{architecture}",
    }
    _write_json(directory / "config.json", config)


def _without_places(directory: Path) -> None:
    """Cut paths in what libraries wrote: where a model or tokenizer was once loaded from."""
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json"):
        file = directory / name
        if not file.exists():
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        # A model around another has the other's configuration in its own.
        for part in (content, *(value for value in content.values() if isinstance(value, dict))):
            for key in ("_name_or_path", "name_or_path"):
                if isinstance(part.get(key), str):
                    part[key] = _ABSOLUTE.sub(r"\1", part[key])
        _write_json(file, content)


def _check_texts(directory: Path) -> None:
    """Refuse secrets, and places of this machine that are left; vocabularies hold any string, and are not read."""
    home, here = str(Path.home()), str(Path.cwd())
    places = [place for place in (home, here) if len(Path(place).parts) > 1]
    for file in _texts(directory):
        text = file.read_text(encoding="utf-8")
        for what, pattern in _SECRETS.items():
            if pattern.search(text):
                raise UserError(f"{file.name}: {what} stands in it; take it out of the run, and withdraw it")
        for place in places:
            if re.search(rf"(?<![\w.-]){re.escape(place)}(?![\w-])", text):
                raise UserError(f"{file.name}: names a directory of this machine, {place}; take it out of the run")


def _texts(directory: Path) -> Iterator[Path]:
    vocabularies = {"tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"}
    for file in sorted(directory.rglob("*")):
        is_text = file.suffix in (".json", ".jsonl", ".yaml", ".md", ".svg", ".py", ".jinja")
        if file.is_file() and is_text and file.name not in vocabularies:
            yield file


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
