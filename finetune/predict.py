"""The one way to use a trained model: a run directory or a model becomes `classify(texts)`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import tasks
from finetune.errors import UserError
from finetune.evaluation import predict_probabilities
from finetune.models import load_model
from finetune.run import open_run
from finetune.text import load_tokenizer


@dataclass(frozen=True)
class Classifier:
    """A trained classifier with its tokenizer; `labels` are in the order of the model's label ids."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    batch_size: int = 128

    @property
    def labels(self) -> list[str]:
        names = self.model.config.id2label
        return [names[i] for i in range(len(names))]

    def classify(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The probability of each label, (texts, labels)."""
        if not texts:
            return np.empty((0, len(self.labels)))
        rows = datasets.Dataset.from_dict({"text": list(texts)})
        return self.classify_rows(rows)

    def classify_rows(self, rows: datasets.Dataset) -> NDArray[np.float64]:
        """The probability of each label, (rows, labels), for rows with a text (and text_pair)."""
        encoded = tasks.encode(rows, self.tokenizer, self.max_length)
        accelerator = Accelerator(cpu=self.model.device.type == "cpu")
        return predict_probabilities(self.model, encoded, self.tokenizer, accelerator, self.batch_size)


def load_classifier(run_or_model: str, revision: str | None = None) -> Classifier:
    """The classifier of a run directory, a local model directory or a Hub id.

    Raises:
        UserError: there is none; the floors have no model to load.
    """
    path = Path(run_or_model)
    if path.is_dir() and (path / "recipe.yaml").exists():
        run = open_run(path)
        recipe = run.recipe()
        if not run.model_directory.is_dir():
            what = (
                f"a {recipe.model.family} floor keeps predictions and scores but no model"
                if recipe.model.family in ("majority", "tfidf")
                else "its training did not finish"
            )
            raise UserError(f"{path}: {what}; choose a run that has a model/ directory")
        source, max_length = str(run.model_directory), recipe.text.max_length
        return Classifier(load_model(source), load_tokenizer(source), max_length)
    if not path.exists() and run_or_model.startswith((".", "/", "~", "runs/")):
        raise UserError(f"{run_or_model}: no such run or model directory")
    model = load_model(run_or_model, revision)
    tokenizer = load_tokenizer(run_or_model, revision)
    limit = getattr(model.config, "max_position_embeddings", None) or 512
    return Classifier(model, tokenizer, min(tokenizer.model_max_length, limit))
