"""Word vectors as files, and as the embeddings that a recurrent model begins with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.errors import UserError
from finetune.recipe import BagModel, CnnModel, RecurrentModel
from finetune.run import WORD_VECTORS_FILE, RunDirectory, find_vectors
from finetune.text import load_tokenizer, save_tokenizer

_TENSOR = "embeddings"


def save_vectors(
    run: RunDirectory, vectors: NDArray[np.float32], tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]
) -> None:
    """Write vectors by token, (vocabulary, dimensions), with their tokenizer and what they are."""
    run.model_directory.mkdir(exist_ok=True)
    save_file({_TENSOR: np.ascontiguousarray(vectors)}, run.vectors_file)
    save_tokenizer(tokenizer, run.model_directory)
    run.write_json(run.vectors_settings_file, settings)


def load_vectors(directory: Path) -> NDArray[np.float32]:
    """The vectors in a directory, (vocabulary, dimensions); zeros are tokens without one.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    file = directory / WORD_VECTORS_FILE
    try:
        vectors = load_file(file).get(_TENSOR)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: not readable as safetensors: {' '.join(str(error).split())}") from None
    if vectors is None or vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise UserError(f"{file}: no word vectors, which are one tensor {_TENSOR!r} of numbers with two dimensions")
    return vectors.astype(np.float32)


def start_from_vectors(
    model: PreTrainedModel, settings: RecurrentModel | BagModel | CnnModel, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Put the recipe's word vectors in place of random embeddings; returns a line on how many tokens have one.

    A vector goes to the token that is written as the one it was learnt for: with equal tokenizers to the same id, with
    others wherever both have it. Tokens without a vector keep their random start. With `freeze_embeddings` none of them
    is trained.

    Raises:
        UserError: there are no such vectors, they have another width, or no token has one.
    """
    assert settings.initial_embeddings is not None
    directory = find_vectors(settings.initial_embeddings)
    vectors = load_vectors(directory)
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    if vectors.shape[1] != embeddings.embedding_dim:
        raise UserError(
            f"model.embedding_size {embeddings.embedding_dim} is not the width of the word vectors of "
            f"{settings.initial_embeddings}, {vectors.shape[1]}; set model.embedding_size {vectors.shape[1]}"
        )
    learnt_for = load_tokenizer(str(directory)).get_vocab()
    has_vector = set(np.flatnonzero(vectors.any(axis=1)).tolist())
    pairs = [
        (token_id, learnt_for[token])
        for token, token_id in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        if learnt_for.get(token) in has_vector
    ]
    if not pairs:
        raise UserError(
            f"model.initial_embeddings {settings.initial_embeddings}: no token of this model's tokenizer has a vector "
            f"there; set text.tokenizer_name_or_path {settings.initial_embeddings}"
        )
    ours, theirs = (torch.tensor(ids) for ids in zip(*pairs, strict=True))
    chosen = torch.from_numpy(vectors)[theirs]
    with torch.no_grad():
        # As large as what they replace, all by one factor. Word2vec's vectors are several times larger, those of ppmi
        # smaller: the first would saturate gates and drown tokens that keep their random start, the second be drowned.
        # One factor for all, since word2vec's rare tokens have shorter vectors, and for a reason.
        random_size = embeddings.weight[ours].square().mean().sqrt()
        embeddings.weight[ours] = chosen * (random_size / chosen.square().mean().sqrt())
    if settings.freeze_embeddings:
        embeddings.weight.requires_grad_(False)
    return f"  initial embeddings: {len(pairs):,} of {embeddings.num_embeddings:,} tokens have a vector"
