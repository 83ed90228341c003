"""Recipes: what is read, what is refused, and that nothing is lost on the way out and in again."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import UserError
from finetune.recipe import (
    dump_recipe,
    find_recipe,
    load_recipe,
    parse_recipe,
    recipe_fields,
    render_recipe,
    shipped_recipes,
    with_values,
)

MINIMAL = """
name: small
data: {train_file: reviews.csv}
model: {family: recurrent}
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(path: str, *overrides: tuple[str, str]) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_scalars_are_read_by_the_type_of_their_field(tmp_path):
    recipe = load_recipe(
        write(
            tmp_path,
            """
name: 012
seed: 1e3
data:
  train_file: reviews.csv
  text_column: 012
  labels: {no: 부정, yes: 긍정, 012: 중립}
model: {family: recurrent, dropout: 0, bidirectional: no}
training: {learning_rate: 2e-5, max_steps: 1e3, early_stopping_patience: null}
""",
        )
    )
    assert recipe.name == "012"
    assert recipe.seed == 1000
    assert recipe.data.text_column == "012"
    assert recipe.data.labels == {"no": "부정", "yes": "긍정", "012": "중립"}
    assert recipe.model.bidirectional is False
    assert recipe.training.learning_rate == 2e-5
    assert recipe.training.max_steps == 1000
    assert recipe.training.early_stopping_patience is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "no", "seed: "),
        ("seed", "true", "seed: "),
        ("training.batch_size", "1.5", "training.batch_size: "),
        ("training.batch_size", "0", "training.batch_size: "),
        ("training.learning_rate", "fast", "training.learning_rate: "),
        ("training.warmup_ratio", "1.5", "training.warmup_ratio: "),
        ("training.micro_batch_size", "x", "training.micro_batch_size: needs integer | auto, not 'x'"),
        (
            "model.family",
            "tree",
            "model.family needs to be one of encoder, decoder, encoder_decoder, recurrent, seq2seq, bag, "
            "cnn, majority, tfidf, word_vectors",
        ),
        ("model.cell", "lstn", "model.cell: needs rnn | lstm | gru, not 'lstn'"),
        ("data.train_file", "null", "data: set exactly one of dataset_name and train_file"),
        ("name", "a/b", "name: "),
    ],
)
def test_a_mistyped_value_is_refused_by_its_dotted_path(tmp_path, key, value, message):
    assert message in refusal(write(tmp_path, MINIMAL), (key, value))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("training.learning_rte", "training.learning_rate"),
        ("training.hidden_size", "model.hidden_size"),
        ("learning_rate", "training.learning_rate"),
        ("model.hiden_size", "model.hidden_size"),
        ("data.text_colum", "data.text_column"),
        ("evalution", "evaluation"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path, key, nearest):
    assert f"{key}: unknown key; did you mean {nearest}?" in refusal(write(tmp_path, MINIMAL), (key, "3"))


def test_all_wrong_keys_are_listed_at_once(tmp_path):
    text = "name: x\nseed: no\ndata: {train_file: a, colour: b}\nmodel: {family: recurrent, hiden_size: 3}\nextra: 1\n"
    message = refusal(write(tmp_path, text))
    assert "4 problems" in message
    for key in ("seed: ", "data.colour: ", "model.hiden_size: ", "extra: "):
        assert f"\n  {key}" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "line 1: not readable as YAML"),
        ("name: a\nname: b", "line 2: not readable as YAML: the key 'name' stands twice"),
        ("- a", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("name: !!python/object/apply:os.system [echo]", "not readable as YAML"),
    ],
)
def test_unreadable_yaml_is_refused_with_its_line(tmp_path, text, message):
    assert message in refusal(write(tmp_path, text))


def test_the_words_of_a_shipped_name_may_stand_in_any_order(tmp_path, monkeypatch):
    assert find_recipe("kobert-nsmc") == find_recipe("nsmc-kobert")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kobert-nsmc").mkdir()
    (tmp_path / "kobert-nsmc" / "recipe.yaml").write_text(MINIMAL)
    assert find_recipe("kobert-nsmc") == Path("kobert-nsmc/recipe.yaml")


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    assert "did you mean nsmc-lstm?" in refusal("nsmc-lstn")


def test_paths_count_from_the_recipe_and_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = load_recipe(write(tmp_path, MINIMAL), [("data.test_file", "test.csv")])
    assert recipe.data.train_file == str(tmp_path / "reviews.csv")
    assert recipe.data.test_file == str(tmp_path / "elsewhere" / "test.csv")


def test_a_dumped_recipe_loads_equal_and_moves_with_its_data(tmp_path):
    recipe = load_recipe(write(tmp_path, MINIMAL))
    (tmp_path / "run").mkdir()
    dumped = tmp_path / "run" / "recipe.yaml"
    dumped.write_text(dump_recipe(recipe, relative_to=tmp_path / "run"), encoding="utf-8")
    assert "../reviews.csv" in dumped.read_text(encoding="utf-8")
    assert load_recipe(str(dumped)) == recipe


@settings(deadline=None)
@given(
    labels=st.dictionaries(st.text(min_size=1, max_size=6), st.text(min_size=1, max_size=6), min_size=2, max_size=4),
    column=st.text(min_size=1, max_size=8),
    rate=st.floats(min_value=1e-12, max_value=1e3),
    epochs=st.integers(min_value=1, max_value=10**9),
)
def test_load_of_dump_is_the_same_recipe(tmp_path_factory, labels, column, rate, epochs):
    if len(set(labels.values())) < 2:
        return
    tree = {
        "name": "x",
        "data": {"train_file": "/data/x.csv", "labels": labels, "text_column": column},
        "model": {"family": "tfidf", "regularization": rate},
        "training": {"num_train_epochs": epochs, "learning_rate": rate},
    }
    recipe = parse_recipe(tree)
    for text in (dump_recipe(recipe), render_recipe(recipe)):
        path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
        path.write_text(text, encoding="utf-8")
        assert load_recipe(str(path)) == recipe


def test_every_shipped_recipe_loads_renders_and_names_its_command():
    recipes = shipped_recipes()
    assert len(recipes) >= 23
    for name, path in recipes.items():
        recipe = load_recipe(name)
        assert recipe.name == name
        lines = path.read_text(encoding="utf-8").splitlines()
        verbs = {
            "masked_lm": ["pretrain"],
            "word_vectors": ["pretrain"],
            "generate": ["pretrain", "train"],
        }.get(recipe.task, ["train"])
        assert lines[0] in [f"# finetune {verb} {name}" for verb in verbs]
        assert lines[1].startswith("# ")
        assert "# " in render_recipe(recipe)


def test_every_field_is_documented():
    fields = list(recipe_fields())
    assert len(fields) > 60
    assert [dotted for dotted, _, _, documentation in fields if not documentation.endswith(".")] == []


def test_with_values_checks_what_it_sets(tmp_path):
    recipe = load_recipe(write(tmp_path, MINIMAL))
    assert with_values(recipe, training={"threads": 3}).training.threads == 3
    with pytest.raises(UserError, match=r"training\.thread: unknown key"):
        with_values(recipe, training={"thread": 3})


def test_help_and_recipes_load_no_torch():
    code = (
        "import sys, finetune.cli as c\n"
        "for a in (['recipes'], ['recipes', 'show', 'nsmc-lstm']): assert c.main(a) == 0\n"
        "try: c.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--training.learning_rate  (number; default 5e-05)" in done.stdout
    assert "The peak learning rate." in done.stdout
