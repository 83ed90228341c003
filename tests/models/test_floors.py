"""The floors: what they predict, and that they are what the report calls them."""

import numpy as np
from reviews import review_rows

from finetune.models import Floor
from finetune.recipe import MajorityFloor, TfidfFloor


def test_majority_gives_the_frequencies_to_every_text():
    floor = Floor(MajorityFloor(), ["a", "b", "c"], np.array([1, 1, 0]), 2)
    assert np.allclose(floor.outputs(["x", "y"]), [[1 / 3, 2 / 3]] * 2)


def test_tfidf_is_sublinear_character_ngrams_within_words():
    rows = review_rows(200)
    labels = np.array([label == "positive" for _, label in rows]).astype(int)
    floor = Floor(TfidfFloor(), [text for text, _ in rows], labels, 2)
    vectorizer = floor.pipeline.named_steps["tfidf"]
    assert (vectorizer.analyzer, vectorizer.ngram_range, vectorizer.sublinear_tf) == ("char_wb", (1, 4), True)
    fresh = review_rows(100, seed=9)
    predicted = floor.outputs([text for text, _ in fresh]).argmax(axis=1)
    assert (predicted == [label == "positive" for _, label in fresh]).mean() == 1.0
    assert floor.parameter_count() == len(vectorizer.vocabulary_) + 1
