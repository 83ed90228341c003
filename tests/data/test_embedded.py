"""The embedded reviews: sizes, splits, and the gates that keep them varied and not too easy."""

from collections import Counter

import numpy as np
import pytest

from finetune.data import Splits, load_splits
from finetune.data.sources import embedded_file
from finetune.data.splits import column, label_array
from finetune.models import Floor
from finetune.recipe import Data, TfidfFloor

SETS = {"reviews-ko": ("부정", "중립", "긍정"), "reviews-en": ("negative", "neutral", "positive")}
DOMAINS = {"film", "series", "shopping", "restaurant", "app", "book", "hotel", "course", "performance"}


@pytest.fixture(scope="module", params=SETS)
def embedded(request) -> tuple[str, Splits]:
    labels = {label: label for label in SETS[request.param]}
    return request.param, load_splits(Data(dataset_name=f"embedded:{request.param}", id_column="id", labels=labels))


def test_sizes_and_balance(embedded):
    name, splits = embedded
    everything = np.concatenate([label_array(splits[split]) for split in ("train", "validation", "test")])
    counts = np.bincount(everything, minlength=3)
    least, test_rows = (600, 450) if name == "reviews-ko" else (200, 200)
    assert counts.min() >= least
    assert len(splits.test) >= test_rows
    assert splits.report["leaked_test_rows"] == {"exact": 0, "normalized": 0}
    for split in ("validation", "test"):
        assert len(set(Counter(label_array(splits[split]).tolist()).values())) == 1, split


def test_no_two_texts_share_more_than_half_of_their_character_4_grams(embedded):
    _, splits = embedded
    texts = [text for split in ("train", "validation", "test") for text in column(splits[split], "text")]
    grams = [{text[i : i + 4] for i in range(len(text) - 3)} or {text} for text in texts]
    holders: dict[str, list[int]] = {}
    alike = []
    for number, own in enumerate(grams):
        shared = Counter(other for gram in own for other in holders.get(gram, ()))
        alike += [
            (texts[other], texts[number]) for other, n in shared.items() if 2 * n > min(len(own), len(grams[other]))
        ]
        for gram in own:
            holders.setdefault(gram, []).append(number)
    assert not alike


def test_tfidf_does_not_solve_it(embedded):
    _, splits = embedded
    floor = Floor(TfidfFloor(), column(splits.train, "text"), label_array(splits.train), len(splits.labels))
    accuracy = (floor.outputs(column(splits.test, "text")).argmax(axis=1) == label_array(splits.test)).mean()
    assert 1 / 3 < accuracy < 0.9


def test_every_domain_is_in_every_split():
    for name in SETS:
        for split in ("train", "validation", "test"):
            lines = embedded_file(name, split).read_text(encoding="utf-8").splitlines()[1:]
            assert {line.split("\t")[1] for line in lines} == DOMAINS
