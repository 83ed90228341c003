"""Word vectors: one vector for each token, learnt from what stands near what.

By counts: positive pointwise mutual information, factorised (Levy, Goldberg & Dagan 2015, "Improving Distributional
Similarity with Lessons Learned from Word Embeddings"). By prediction: word2vec with negative sampling (Mikolov et al.
2013, "Distributed Representations of Words and Phrases and their Compositionality"), as gensim computes it. A masked
language model that begins with such vectors is spared its first plateau, on which it learns little more than how
frequent each token is.
"""

import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.errors import UserError
from finetune.recipe import WordVectorModel

_WINDOW = 5
_SMOOTHING = 0.75
"""Contexts are counted to this power: rare ones would else have too much weight (Levy et al., section 3.2)."""
_TOKENS = 20_000_000
"""More text than this changes counted vectors little."""
_ROWS_PER_CHUNK = 5_000
_SCALE = 0.05
"""The root mean square of a vector's entries; BERT's random embeddings have 0.02."""
_LEARNING_RATES = {"cbow": 0.05, "skip_gram": 0.025}
"""Of the original word2vec.c, for each method."""
_LAST_LEARNING_RATE = 1e-4
_JOBS = 20
_LARGEST_JOB = 10_000

Advance = Callable[[int], None]
"""Told how many rows more have been read."""


def learn_vectors(
    encoded: datasets.Dataset,
    model: WordVectorModel,
    tokenizer: PreTrainedTokenizerBase,
    epochs: int,
    seed: int,
    advance: Advance = lambda rows: None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors by token, (vocabulary, dimensions), and how often each token was seen, (vocabulary,).

    Special tokens, and those seen less often than `model.min_count`, have a vector of zeros; windows reach over them.
    One thread does the work: equal seeds give equal vectors, bit for bit on the same machine. `advance` is told of
    every row in every epoch, by ppmi once.

    Raises:
        UserError: no token is frequent enough, or the vectors grew beyond all bounds.
    """
    size = len(tokenizer)
    counts = np.zeros(size, dtype=np.int64)
    for tokens, _ in _chunks(encoded, np.ones(size, dtype=bool)):
        counts += np.bincount(tokens, minlength=size)
    kept = counts >= model.min_count
    kept[sorted(tokenizer.all_special_ids)] = False
    if not kept.any():
        raise UserError(f"model.min_count {model.min_count}: no token stands so often in the training rows; lower it")
    if model.method == "ppmi":
        left_out = np.flatnonzero(~kept).tolist()
        vectors, _ = ppmi_vectors(encoded, size, model.dimensions, left_out, seed, window=model.window, advance=advance)
    else:
        vectors = _word2vec_vectors(encoded, model, np.where(kept, counts, 0), epochs, seed, advance)
    if not np.isfinite(vectors).all():
        raise UserError(f"the word vectors of model.method {model.method} are not finite; give more text, or use ppmi")
    return vectors, counts


def ppmi_vectors(
    encoded: datasets.Dataset,
    vocabulary_size: int,
    dimensions: int,
    left_out: list[int],
    seed: int,
    *,
    window: int = _WINDOW,
    advance: Advance = lambda rows: None,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Unit vectors by token, (vocabulary, dimensions), and how often each token was seen, (vocabulary,).

    Pairs within the window count the more, the nearer they stand. Tokens that are `left_out` are not counted; they, and
    those never seen, have a vector of zeros.
    """
    near = scipy.sparse.csr_matrix((vocabulary_size, vocabulary_size), dtype=np.float64)
    counts = np.zeros(vocabulary_size)
    kept = np.ones(vocabulary_size, dtype=bool)
    kept[left_out] = False
    for tokens, rows in _chunks(encoded, kept, rows_per_chunk=50_000, most_tokens=_TOKENS, advance=advance):
        counts += np.bincount(tokens, minlength=vocabulary_size)
        for distance in range(1, window + 1):
            together = rows[distance:] == rows[:-distance]
            pair = tokens[:-distance][together], tokens[distance:][together]
            weights = np.full(len(pair[0]), 1.0 / distance)
            near = near + scipy.sparse.coo_matrix((weights, pair), shape=near.shape).tocsr()
    near = (near + near.T).tocoo()
    total, by_token = near.sum(), np.asarray(near.sum(axis=1)).ravel()
    by_context = by_token**_SMOOTHING
    by_context *= total / max(by_context.sum(), 1.0)
    information = np.log(near.data * total / (by_token[near.row] * by_context[near.col]))
    is_positive = information > 0
    positive = (information[is_positive], (near.row[is_positive], near.col[is_positive]))
    from sklearn.decomposition import TruncatedSVD  # here: slow to load, and whoever reads vectors does without

    svd = TruncatedSVD(n_components=min(dimensions, vocabulary_size), random_state=seed)
    # Launchers choose other numbers of threads, which would show in the last bits.
    with threadpool_limits(1):
        scaled = svd.fit_transform(scipy.sparse.csr_matrix(positive, shape=near.shape))
    # Left singular vectors by the roots of the singular values (Levy et al., section 3.3). A small text has fewer
    # directions than the model is wide; the others stay empty.
    roots = np.sqrt(svd.singular_values_)
    vectors = np.zeros((vocabulary_size, dimensions))
    is_direction = roots > 1e-6 * roots.max(initial=1.0)
    vectors[:, np.flatnonzero(is_direction)] = scaled[:, is_direction] / roots[is_direction]
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0).astype(np.float32), counts


def _word2vec_vectors(
    encoded: datasets.Dataset,
    model: WordVectorModel,
    counts: NDArray[np.int64],
    epochs: int,
    seed: int,
    advance: Advance,
) -> NDArray[np.float32]:
    """Vectors by token, (vocabulary, dimensions), of the tokens with a count in `counts`; the others have zeros."""
    from gensim.models import Word2Vec  # a second to import, and few commands need it

    logging.getLogger("gensim").setLevel(logging.ERROR)  # it warns of small corpora, which are no mistake here
    known = np.flatnonzero(counts)
    known = known[np.lexsort((known, -counts[known]))]
    total = int(counts.sum())
    options: dict[str, Any] = {
        "vector_size": model.dimensions,
        "window": model.window,
        "sg": int(model.method == "skip_gram"),
        "negative": model.negative_samples,
        "sample": model.subsampling,
        "alpha": _LEARNING_RATES[model.method],
        "min_alpha": _LAST_LEARNING_RATE,
        # The learning rate falls from job to job: a small text must have several of them.
        "batch_words": min(_LARGEST_JOB, max(1, total // _JOBS)),
        "min_count": 1,
        "sorted_vocab": 0,
        "seed": seed % 2**32,
        # More of them would race for the same vectors.
        "workers": 1,
        # Tokens are texts of ids. The builtin hash of a text differs from process to process.
        "hashfxn": int,
    }
    word2vec = Word2Vec(**options)
    word2vec.build_vocab_from_freq({str(token): int(counts[token]) for token in known})
    sentences = _Sentences(encoded, counts > 0, advance)
    with threadpool_limits(1):
        word2vec.train(sentences, total_words=total, epochs=epochs)
    if sentences.error is not None:
        raise sentences.error
    vectors = np.zeros((len(counts), model.dimensions), dtype=np.float32)
    vectors[[int(token) for token in word2vec.wv.index_to_key]] = word2vec.wv.vectors
    return vectors


class _Sentences:
    """The rows as lists of tokens, each the text of its id, to be read once in every epoch."""

    def __init__(self, encoded: datasets.Dataset, kept: NDArray[np.bool_], advance: Advance) -> None:
        self.encoded = encoded
        self.kept = kept
        self.advance = advance
        self.names = np.array([str(token) for token in range(len(kept))], dtype=object)
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[list[str]]:
        try:
            for tokens, rows in _chunks(self.encoded, self.kept, advance=self.advance):
                words: list[str] = self.names[tokens].tolist()
                bounds = [0, *(np.flatnonzero(np.diff(rows)) + 1).tolist(), len(words)]
                for begin, end in pairwise(bounds):
                    yield words[begin:end]
        except Exception as error:  # noqa: BLE001  # gensim reads in a thread, and would wait for ever for a dead one
            self.error = error


def _chunks(
    encoded: datasets.Dataset,
    kept: NDArray[np.bool_],
    *,
    rows_per_chunk: int = _ROWS_PER_CHUNK,
    most_tokens: int | None = None,
    advance: Advance = lambda rows: None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(tokens, row of each), some rows at a time, without tokens that are not `kept`; after `most_tokens` they end."""
    seen = 0
    for batch in encoded.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=rows_per_chunk):
        column = batch["input_ids"].combine_chunks()
        tokens = column.flatten().to_numpy()
        rows = np.repeat(np.arange(len(column)), column.value_lengths().to_numpy())
        yield tokens[kept[tokens]].astype(np.int64), rows[kept[tokens]]
        advance(len(column))
        seen += len(tokens)
        if most_tokens is not None and seen >= most_tokens:
            return


def start_from_counts(
    model: PreTrainedModel, encoded: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, seed: int
) -> None:
    """Put such vectors in place of random embeddings, and each token's frequency into the bias of a head over them."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    vocabulary_size, dimensions = embeddings.weight.shape
    vectors, counts = ppmi_vectors(encoded, vocabulary_size, dimensions, sorted(tokenizer.all_special_ids), seed)
    # Those without a vector keep the random one that they have.
    known = torch.from_numpy(np.flatnonzero(vectors.any(axis=1)))
    head = model.get_output_embeddings()
    with torch.no_grad():
        embeddings.weight[known] = torch.from_numpy(vectors)[known] * (_SCALE * dimensions**0.5)
        if head is not None and getattr(head, "bias", None) is not None:
            frequencies = (counts + 1) / (counts + 1).sum()
            head.bias.copy_(torch.from_numpy(np.log(frequencies)))
