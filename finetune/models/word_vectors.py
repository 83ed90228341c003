"""Word vectors from counts: what stands near what, as a start for the embeddings of a model from scratch.

Positive pointwise mutual information, factorised (Levy, Goldberg & Dagan 2015, "Improving Distributional Similarity
with Lessons Learned from Word Embeddings"). A masked language model that begins with them is spared its first plateau,
on which it learns little more than how frequent each token is.
"""

from collections.abc import Iterator

import datasets
import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from threadpoolctl import threadpool_limits
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WINDOW = 5
_SMOOTHING = 0.75
"""Contexts are counted to this power: rare ones would else have too much weight (Levy et al., section 3.2)."""
_TOKENS = 20_000_000
"""More text than this changes the vectors little."""
_ROWS_PER_CHUNK = 50_000
_SCALE = 0.05
"""The root mean square of a vector's entries; BERT's random embeddings have 0.02."""


def ppmi_vectors(
    encoded: datasets.Dataset, vocabulary_size: int, dimensions: int, left_out: list[int], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Unit vectors by token, (vocabulary, dimensions), and how often each token was seen, (vocabulary,).

    Pairs within the window count the more, the nearer they stand. Tokens that are `left_out` are not counted; they, and
    those never seen, have a vector of zeros.
    """
    near = scipy.sparse.csr_matrix((vocabulary_size, vocabulary_size), dtype=np.float64)
    counts = np.zeros(vocabulary_size)
    kept = np.ones(vocabulary_size, dtype=bool)
    kept[left_out] = False
    for tokens, rows in _chunks(encoded, kept):
        counts += np.bincount(tokens, minlength=vocabulary_size)
        for distance in range(1, _WINDOW + 1):
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


def _chunks(
    encoded: datasets.Dataset, kept: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(tokens, row of each), some rows at a time, without tokens that are not `kept`; they end after `_TOKENS`."""
    seen = 0
    for batch in encoded.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=_ROWS_PER_CHUNK):
        column = batch["input_ids"].combine_chunks()
        tokens = column.flatten().to_numpy()
        rows = np.repeat(np.arange(len(column)), column.value_lengths().to_numpy())
        yield tokens[kept[tokens]].astype(np.int64), rows[kept[tokens]]
        seen += len(tokens)
        if seen >= _TOKENS:
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
