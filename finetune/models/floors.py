"""The floors: what costs seconds and has to be beaten. Majority label, and TF-IDF with logistic regression."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from finetune.recipe import MajorityFloor, TfidfFloor


class Floor:
    """A fitted floor: texts -> probabilities (rows, labels)."""

    def __init__(
        self, model: MajorityFloor | TfidfFloor, texts: Sequence[str], labels: NDArray[np.int64], label_count: int
    ) -> None:
        """Fit on the training rows; every one of the `label_count` labels must occur in `labels`."""
        self.frequencies = np.bincount(labels, minlength=label_count) / len(labels)
        self.pipeline = _fit_tfidf(model, texts, labels) if isinstance(model, TfidfFloor) else None

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        if self.pipeline is None:
            return np.tile(self.frequencies, (len(texts), 1))
        return self.pipeline.predict_proba(texts)

    def parameter_count(self) -> int:
        if self.pipeline is None:
            return len(self.frequencies)
        regression = self.pipeline.named_steps["regression"]
        return int(regression.coef_.size + regression.intercept_.size)


def _fit_tfidf(model: TfidfFloor, texts: Sequence[str], labels: NDArray[np.int64]) -> Pipeline:
    # min_df counts rows, and a small set has n-grams that occur once only.
    vectorizer = TfidfVectorizer(
        analyzer=model.analyzer,
        ngram_range=(model.min_ngram, model.max_ngram),
        min_df=model.min_frequency if len(texts) >= 100 else 1,
        sublinear_tf=True,
        dtype=np.float32,
    )
    regression = LogisticRegression(C=model.regularization, max_iter=model.max_iterations)
    return Pipeline([("tfidf", vectorizer), ("regression", regression)]).fit(texts, labels)
