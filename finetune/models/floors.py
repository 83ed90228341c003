"""The floors: what costs seconds and has to be beaten.

For labels the most frequent one, and TF-IDF with logistic regression; for ratings the mean, and TF-IDF with ridge
regression.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline

from finetune.recipe import MajorityFloor, TfidfFloor


class Floor:
    """A fitted floor: texts -> probabilities (rows, labels), or ratings (rows, 1)."""

    def __init__(
        self, model: MajorityFloor | TfidfFloor, texts: Sequence[str], labels: NDArray[Any], label_count: int
    ) -> None:
        """Fit on the training rows; every one of the `label_count` labels must occur in `labels`.

        With no labels to count, `labels` are ratings.
        """
        self.constant = np.bincount(labels, minlength=label_count) / len(labels) if label_count else labels.mean()[None]
        self.pipeline = _fit_tfidf(model, texts, labels) if isinstance(model, TfidfFloor) else None

    def outputs(self, texts: Sequence[str]) -> NDArray[np.float64]:
        if self.pipeline is None:
            return np.tile(self.constant, (len(texts), 1))
        if hasattr(self.pipeline, "predict_proba"):
            return self.pipeline.predict_proba(texts)
        return self.pipeline.predict(texts).astype(np.float64)[:, None]

    def parameter_count(self) -> int:
        if self.pipeline is None:
            return len(self.constant)
        regression = self.pipeline.named_steps["regression"]
        return int(regression.coef_.size + np.size(regression.intercept_))


def _fit_tfidf(model: TfidfFloor, texts: Sequence[str], labels: NDArray[Any]) -> Pipeline:
    # min_df counts rows, and a small set has n-grams that occur once only.
    vectorizer = TfidfVectorizer(
        analyzer=model.analyzer,
        ngram_range=(model.min_ngram, model.max_ngram),
        min_df=model.min_frequency if len(texts) >= 100 else 1,
        sublinear_tf=True,
        dtype=np.float32,
    )
    regression: LogisticRegression | Ridge
    if np.issubdtype(labels.dtype, np.floating):
        # The same meaning as LogisticRegression's C: the data's weight against a penalty of one half of |w|².
        regression = Ridge(alpha=1 / model.regularization, solver="sparse_cg")
    else:
        regression = LogisticRegression(C=model.regularization, max_iter=model.max_iterations)
    return Pipeline([("tfidf", vectorizer), ("regression", regression)]).fit(texts, labels)
