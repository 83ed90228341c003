"""The floors: what costs seconds and has to be beaten.

For labels the most frequent one, and TF-IDF with logistic regression; for ratings the mean, and TF-IDF with ridge
regression. Where a row may have several labels, how frequent each is, and a logistic regression for each.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.recipe import MajorityFloor, TfidfFloor

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class Floor:
    """A fitted floor: texts -> probabilities (rows, labels), or ratings (rows, 1)."""

    def __init__(
        self, model: MajorityFloor | TfidfFloor, texts: Sequence[str], labels: NDArray[Any], label_count: int
    ) -> None:
        """Fit on the training rows; every one of the `label_count` labels must occur in `labels`.

        `labels` are ids (rows,), or zeros and ones (rows, labels); with no labels to count, ratings (rows,).
        """
        if label_count and labels.ndim == 1:
            self.constant = np.bincount(labels, minlength=label_count) / len(labels)
        else:
            self.constant = np.atleast_1d(labels.mean(axis=0, dtype=np.float64))
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
        fitted = getattr(regression, "estimators_", [regression])  # one for each label
        # A label that all training rows have needs no regression.
        return sum(int(one.coef_.size + np.size(one.intercept_)) for one in fitted if hasattr(one, "coef_"))


def _fit_tfidf(model: TfidfFloor, texts: Sequence[str], labels: NDArray[Any]) -> "Pipeline":
    # Here, since loading it takes a second that no other training needs.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import Pipeline

    # min_df counts rows, and a small set has n-grams that occur once only.
    vectorizer = TfidfVectorizer(
        analyzer=model.analyzer,
        ngram_range=(model.min_ngram, model.max_ngram),
        min_df=model.min_frequency if len(texts) >= 100 else 1,
        sublinear_tf=True,
        dtype=np.float32,
    )
    regression: LogisticRegression | Ridge | OneVsRestClassifier
    if labels.ndim == 2:
        one = LogisticRegression(C=model.regularization, max_iter=model.max_iterations)
        regression, labels = OneVsRestClassifier(one), labels.astype(np.int64)
    elif np.issubdtype(labels.dtype, np.floating):
        # The same meaning as LogisticRegression's C: the data's weight against a penalty of one half of |w|².
        regression = Ridge(alpha=1 / model.regularization, solver="sparse_cg")
    else:
        regression = LogisticRegression(C=model.regularization, max_iter=model.max_iterations)
    return Pipeline([("tfidf", vectorizer), ("regression", regression)]).fit(texts, labels)
