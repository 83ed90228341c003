"""Word vectors: learnt from the training rows, looked at, and kept in a run directory like any model.

They train in minutes and have no checkpoints: a run that was killed begins again, and ends in the same bytes.
"""

import time
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from finetune import tasks
from finetune.data import Splits
from finetune.doctor import Report
from finetune.errors import UserError
from finetune.evaluation import nearest_words, score_analogies, whole_words
from finetune.evaluation.analogies import language_of
from finetune.models import learn_vectors, save_vectors
from finetune.progress import ProgressBar, say
from finetune.recipe import Recipe, WordVectorModel
from finetune.run import RunDirectory


def check_processes(recipe: Recipe, accelerator: Accelerator) -> None:
    """
    Raises:
        UserError: several processes for word vectors, which one learns.
    """
    if isinstance(recipe.model, WordVectorModel) and accelerator.num_processes > 1:
        raise UserError(f"{recipe.name}: word vectors are learnt by one process; leave the launcher out")


def train_word_vectors(
    model: WordVectorModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    splits: Splits,
    run: RunDirectory,
    findings: Report,
    *,
    goes_on: bool,
) -> dict[str, Any]:
    """Learn, keep and look at word vectors; returns what it cost.

    Nothing of the validation and test rows is read: a classifier that begins with the vectors has not seen its own.

    Raises:
        UserError: see `learn_vectors`.
    """
    if goes_on:
        say(f"{recipe.name}: word vectors have no checkpoints; it begins again")
    encoded = tasks.encode(splits.train, tokenizer, recipe.text.max_length)
    epochs = 1 if model.method == "ppmi" else recipe.training.num_train_epochs
    say(f"{recipe.name}: {len(tokenizer):,} tokens, {model.dimensions} dimensions, {model.method}")
    started = time.monotonic()
    with ProgressBar("learning", epochs * len(encoded)) as bar:
        vectors, counts = learn_vectors(encoded, model, tokenizer, epochs, recipe.seed, bar.advance)
    seconds = time.monotonic() - started
    with_vector = int(vectors.any(axis=1).sum())
    settings = {
        "model_type": "finetune_word_vectors",
        **model.model_dump(exclude={"family"}),
        "num_train_epochs": epochs,
        "vocabulary_size": len(vectors),
        "tokens_with_vector": with_vector,
    }
    save_vectors(run, vectors, tokenizer, settings)
    words = whole_words(vectors, counts, tokenizer)
    language = language_of(findings["splits"]["train"]["scripts"]["main_script"])
    run.write_json(
        run.scores_file,
        {
            **run.scores(),
            "neighbours": nearest_words(words),
            "analogies": score_analogies(words, language, recipe.evaluation.confidence_level),
        },
    )
    tokens = epochs * int(counts.sum())
    return {
        "parameters": vectors.size,
        "trainable_parameters": vectors.size,
        "training_seconds": seconds,
        "training_rows_per_second": epochs * len(encoded) / max(seconds, 1e-9),
        "training_tokens_per_second": tokens / max(seconds, 1e-9),
        "training_tokens": tokens,
        "tokens_with_vector": with_vector,
        "model_bytes": run.vectors_file.stat().st_size,
    }
