"""The run directory: the one place that knows which files a run leaves and what they are called."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.recipe import Recipe, dump_recipe, load_recipe

WORD_VECTORS_FILE = "word_vectors.safetensors"
_MOST_PROMPT_LABELS = 10
"""Prompts of more kinds than this are no labels."""


@dataclass(frozen=True)
class RunDirectory:
    """A directory with everything that one run left: plain files that any tool can read."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe: complete, "auto" replaced by what was chosen."""
        return self.path / "recipe.yaml"

    @property
    def environment_file(self) -> Path:
        """Code version, package versions, device, threads, command, seed, start and end."""
        return self.path / "environment.json"

    @property
    def data_file(self) -> Path:
        """Source, revision, fingerprints, counts, and what was dropped and why."""
        return self.path / "data.json"

    @property
    def log_file(self) -> Path:
        """One JSON record per logged step, and one per validation (those have a `validation` key)."""
        return self.path / "train_log.jsonl"

    @property
    def scores_file(self) -> Path:
        """`splits`: per split the metrics with intervals, the count and how often it was scored; `cost`; `samples`.

        Of word vectors `neighbours` and `analogies` instead.
        """
        return self.path / "scores.json"

    @property
    def model_directory(self) -> Path:
        """Weights, configuration and tokenizer: loads with `from_pretrained`. The floors have none.

        A run that was pushed has them beside its other files, where `from_pretrained` looks for them on the Hub.
        """
        is_pushed = (self.path / "config.json").exists() and not (self.path / "model").exists()
        return self.path if is_pushed else self.path / "model"

    @property
    def tuning_file(self) -> Path:
        """Where a study searched for a value first: `field`, `tried`, `chosen`, by which `seed` and `train_rows`."""
        return self.path / "tuning.json"

    @property
    def probe_file(self) -> Path:
        """What the model said of a few texts at the end of training; copies of it are held against that."""
        return self.path / "probe.json"

    @property
    def card_file(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def beside_file(self) -> Path:
        """The table that the card shows of this run and others, where one was asked for."""
        return self.path / "beside.json"

    @property
    def plots_directory(self) -> Path:
        """The card's plots."""
        return self.path / "plots"

    @property
    def onnx_directory(self) -> Path:
        """The model in ONNX and how well it agrees, where it was exported."""
        return self.path / "onnx"

    @property
    def vectors_file(self) -> Path:
        """Where a run learnt word vectors: one tensor `embeddings`, (vocabulary, dimensions), float32.

        Tokens without a vector have zeros.
        """
        return self.model_directory / WORD_VECTORS_FILE

    @property
    def vectors_settings_file(self) -> Path:
        """What the word vectors are: method, sizes, and how many tokens have one.

        By another name than `config.json`, for which a library would look for a model.
        """
        return self.model_directory / "word_vectors.json"

    @property
    def vectors_report_file(self) -> Path:
        """Neighbours and analogies of word vectors, to be read."""
        return self.path / "word_vectors.md"

    @property
    def samples_file(self) -> Path:
        """Where a run learnt to generate: id, prompt, text, stopped, copied and reference, one JSON record a line."""
        return self.path / "samples.jsonl"

    @property
    def attention_file(self) -> Path:
        """Where a run has an encoder for prompts and wrote samples: where it looked for the first few, as JSON."""
        return self.path / "attention.json"

    @property
    def adapter_directory(self) -> Path:
        """The LoRA adapters by themselves, where a run trained some; the model has them merged in."""
        return self.path / "adapter"

    @property
    def checkpoints_directory(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tracking_directory(self) -> Path:
        """TensorBoard's files, where a recipe asks for them."""
        return self.path / "tracking"

    def predictions_file(self, split: str) -> Path:
        """Columns id, reference, predicted (label names) and scores (a probability per label, in label order).

        Where a row may have several labels, reference and predicted are lists of names.
        Of a masked language model id, nats, correct, tokens and bytes: sums over the hidden tokens of a row.
        """
        return self.path / "predictions" / f"{split}.parquet"

    def is_finished(self) -> bool:
        """Whether the run went through to its scores."""
        return self.environment_file.exists() and self.environment().get("end") is not None

    def trained_model(self) -> str:
        """The path of its model.

        Raises:
            UserError: it has none, or not yet; or word vectors, which are no model by themselves.
        """
        self.refuse_word_vectors()
        if not self.model_directory.is_dir():
            family = self.recipe().model.family
            is_floor = family in ("majority", "tfidf")
            what = f"a {family} floor keeps predictions and scores but no model"
            raise UserError(
                f"{self.path}: {what if is_floor else 'its training did not finish'}; choose a run that has a model/ "
                "directory"
            )
        return str(self.model_directory)

    def refuse_word_vectors(self) -> None:
        """
        Raises:
            UserError: the run learnt word vectors, and what is asked for needs a model.
        """
        if self.recipe().task == "word_vectors":
            raise UserError(
                f"{self.path}: word vectors have neither labels nor words to say; begin a recurrent model with them: "
                f"finetune train RECIPE --model.initial_embeddings {self.path}"
            )

    def recipe(self) -> Recipe:
        return load_recipe(str(self.recipe_file))

    def environment(self) -> dict[str, Any]:
        return self._read(self.environment_file)

    def data(self) -> dict[str, Any]:
        return self._read(self.data_file)

    def scores(self) -> dict[str, Any]:
        return self._read(self.scores_file) if self.scores_file.exists() else {"splits": {}, "cost": {}}

    def log(self) -> Iterator[dict[str, Any]]:
        """The records of the training log; none where nothing was trained step by step."""
        if self.log_file.exists():
            with self.log_file.open(encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)

    def tuning(self) -> dict[str, Any] | None:
        """The search that came before the run; None where its recipe's values were taken as they are."""
        return self._read(self.tuning_file) if self.tuning_file.exists() else None

    def probe(self) -> dict[str, Any]:
        return self._read(self.probe_file)

    def beside(self) -> dict[str, Any]:
        return self._read(self.beside_file)

    def vectors_settings(self) -> dict[str, Any]:
        return self._read(self.vectors_settings_file)

    def samples(self) -> list[dict[str, Any]]:
        """What a run that learnt to generate wrote; nothing where it kept no samples."""
        if not self.samples_file.exists():
            return []
        # By line feeds alone: a text may hold other characters that end lines.
        lines = self.samples_file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def attention_maps(self) -> list[dict[str, Any]]:
        """The source and target tokens of a few samples, and the weights between them; none where there are none."""
        if not self.attention_file.exists():
            return []
        maps: list[dict[str, Any]] = json.loads(self.attention_file.read_text(encoding="utf-8"))["maps"]
        return maps

    def prompt_labels(self) -> list[str]:
        """The labels that a run learnt to write by; none if its prompts are texts, or it has none.

        Labels that need no other name are not in the recipe, but a few prompts that come back again and again are some.
        """
        data = self.recipe().data
        if data.prompt_column is None:
            return []
        if data.labels is not None:
            return list(dict.fromkeys(data.labels.values()))
        prompts = [sample["prompt"] for sample in self.samples()]
        labels = sorted(set(prompts) - {""})
        are_few = 2 * len(labels) <= len(prompts) and len(labels) <= _MOST_PROMPT_LABELS
        return labels if "" not in prompts and are_few else []

    def write_samples(self, records: Iterable[Mapping[str, Any]]) -> None:
        write_whole(self.samples_file, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))

    def write_attention_maps(self, maps: Sequence[Mapping[str, Any]]) -> None:
        self.write_json(self.attention_file, {"maps": list(maps)})

    def write_recipe(self, recipe: Recipe) -> None:
        write_whole(self.recipe_file, dump_recipe(recipe, relative_to=self.path.resolve()))

    def write_text(self, file: Path, text: str) -> None:
        """Write whole or not at all."""
        write_whole(file, text)

    def write_json(self, file: Path, content: Mapping[str, Any]) -> None:
        write_whole_json(file, content)

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{self.path}: no {file.name}; the run did not finish, train it again") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{file}: damaged at line {error.lineno}; train the run again") from None
        except (UnicodeDecodeError, RecursionError):
            raise UserError(f"{file}: damaged; train the run again") from None


def run_of(run_or_model: str) -> RunDirectory | None:
    """The run that a RUN|MODEL names; None for a model directory, an embedded model or a Hub id.

    Raises:
        UserError: a path of which nothing is there.
    """
    path = Path(run_or_model)
    if path.is_dir() and (path / "recipe.yaml").exists():
        return RunDirectory(path)
    if not path.exists() and run_or_model.startswith((".", "/", "~", "runs/")):
        raise UserError(f"{run_or_model}: no such run or model directory")
    return None


def model_place(name_or_path: str) -> str:
    """The model directory of a run; anything else as it is."""
    path = Path(name_or_path).expanduser()
    return str(RunDirectory(path).model_directory) if (path / "recipe.yaml").is_file() else name_or_path


def find_vectors(name: str) -> Path:
    """The directory of the word vectors that a run learnt, or that lie in a directory by themselves.

    Raises:
        UserError: there are none.
    """
    directory = Path(model_place(name)).expanduser()
    if not (directory / WORD_VECTORS_FILE).is_file():
        is_run = (Path(name).expanduser() / "recipe.yaml").is_file()
        what = "the run has no word vectors, or not yet" if is_run else f"no {WORD_VECTORS_FILE} there"
        raise UserError(f"model.initial_embeddings {name}: {what}; `finetune pretrain word-vectors-ko` learns some")
    return directory


def create_run(path: Path, *, overwrite: bool = False) -> RunDirectory:
    """Make an empty run directory; one that is there and empty will do.

    Raises:
        UserError: `path` exists and `overwrite` is not given, or it is not a run directory and so not ours to remove.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if not overwrite:
            raise UserError(f"{path} exists; choose another --name, or pass --overwrite to replace it")
        if not path.is_dir() or (any(path.iterdir()) and not (path / "recipe.yaml").exists()):
            raise UserError(f"{path} is not a run directory, so --overwrite does not remove it; choose another --name")
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    return RunDirectory(path)


def open_run(path: str | Path) -> RunDirectory:
    """The run directory at `path`.

    Raises:
        UserError: there is none.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise UserError(f"{path}: no such run directory")
    if not (directory / "recipe.yaml").exists():
        raise UserError(f"{path}: not a run directory (it has no recipe.yaml)")
    return RunDirectory(directory)


def write_whole_json(file: Path, content: Mapping[str, Any]) -> None:
    """Values that JSON has, as text for people to read, whole or not at all."""
    write_whole(file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_whole(file: Path, text: str) -> None:
    """Write whole or not at all: a reader never sees half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(file)
