"""Exercises made by rule: right answers, the same every time, and nothing of the test split in the others."""

import re
from datetime import date

import pytest
from command_line import fails

from finetune.data import load_splits
from finetune.data.exercises import EXERCISES, make_rows
from finetune.data.splits import column
from finetune.recipe import load_recipe

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def read(text):
    """The date in a text of any of the six forms."""
    numbers = [int(found) for found in re.findall(r"\d+", text)]
    named = next((MONTHS.index(word[:3].lower()) + 1 for word in re.findall(r"[A-Za-z]+", text)), None)
    if named is not None:
        day, year = numbers
        month = named
    elif "/" in text:
        month, day, year = numbers
    else:
        year, month, day = numbers
    if year < 100:
        year += 1900 if year >= 50 else 2000
    return date(year, month, day)


@pytest.mark.parametrize(("name", "train"), [("dates", 20_000), ("sums", 40_000)])
def test_answers_are_right_and_no_question_is_asked_twice(name, train):
    sizes = {"train": train, "validation": 1_000, "test": 2_000}
    seen = set()
    for split, count in sizes.items():
        rows = make_rows(name, split)
        assert len(rows) == count
        for prompt, text in zip(rows["prompt"], rows["text"], strict=True):
            if name == "dates":
                assert read(prompt).isoformat() == text
                question = text
            else:
                one, other = map(int, prompt.split("+"))
                assert 0 <= one <= 999
                assert 0 <= other <= 999
                assert str(one + other) == text
                question = frozenset((one, other))
            assert question not in seen
            seen.add(question)
        assert rows["prompt"] == make_rows(name, split)["prompt"]


@pytest.mark.parametrize("name", ["dates", "dates-without-attention", "sums", "sums-without-attention"])
def test_the_shipped_recipes_read_them(name):
    recipe = load_recipe(name)
    splits = load_splits(recipe.data, recipe.task)
    assert not splits.leaked_test_ids
    assert column(splits.test, "text")[0]
    assert f"embedded:{name.partition('-')[0]}" == recipe.data.dataset_name
    assert set(EXERCISES) == {"dates", "sums"}


def test_another_name_is_refused(capsys):
    assert "there is reviews-en, reviews-ko, dates, sums" in fails(
        capsys, "train", "dates", "--data.dataset_name", "embedded:times"
    )
