"""What comes from elsewhere is looked at before it is used: hostile directories end in one line, and run nothing."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from command_line import fails
from hub_server import hub
from published_runs import train_run

from finetune.cli import main
from finetune.errors import UserError
from finetune.hub.pull import check_directory, fetch
from finetune.recipe import embedded_model

__all__ = ["hub"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("pull"), "encoder")


@pytest.fixture
def model(trained, tmp_path):
    """A copy of a model directory, to be spoilt."""
    return shutil.copytree(trained / "model", tmp_path / "model")


class Bomb:
    """A pickle that leaves a mark where it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def refusal(directory):
    """The one line that a directory is refused with."""
    with pytest.raises(UserError) as raised:
        check_directory(directory)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_what_training_leaves_is_let_in(trained, model):
    for directory in (trained, model, embedded_model("embedded:mini-bert-ko")):
        check_directory(directory)


def test_a_pickle_is_not_loaded(model, tmp_path, capsys):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    for command in ("predict", "generate"):
        assert "weights in a pickle, which can run code" in fails(capsys, command, str(model), "글")
    # A file beside it that is not loaded lets no pickle pass.
    (model / "decoy.safetensors").write_bytes(b"")
    assert "weights in a pickle" in fails(capsys, "predict", str(model), "글")
    assert not (tmp_path / "exploded").exists()


def test_links_out_of_the_directory(model, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}", encoding="utf-8")
    (model / "generation_config.json").symlink_to(secret)
    assert "a link that leaves the directory" in refusal(model)
    (model / "generation_config.json").unlink()
    (model / "generation_config.json").symlink_to(model / "config.json")
    check_directory(model)


@pytest.mark.parametrize("shard", ["../elsewhere.safetensors", "/etc/passwd", "none.safetensors"])
def test_shards_are_files_of_the_directory(model, shard):
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": shard}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert f"names the weights {shard!r}" in refusal(model)


def test_enormous_or_broken_json(model):
    good = (model / "config.json").read_text(encoding="utf-8")
    (model / "config.json").write_text(f'{{"a": "{"x" * (1 << 20)}"}}', encoding="utf-8")
    assert "bytes of JSON, at most 1,048,576 are read" in refusal(model)
    (model / "config.json").write_text("[" * 100_000, encoding="utf-8")
    assert "not readable as JSON" in refusal(model)
    (model / "config.json").write_text("[1]", encoding="utf-8")
    assert "not a JSON object" in refusal(model)
    (model / "config.json").write_text(good, encoding="utf-8")
    check_directory(model)


def test_code_that_comes_with_a_model_is_not_run(model, tmp_path, capsys, monkeypatch):
    (model / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'exploded')!r})", encoding="utf-8")
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    change(
        model / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.M"}
    )
    # Of a known type: transformers' own code is used, and the other is not looked at.
    assert main(["predict", str(model), "정말 재미있다"]) == 0
    # Of a known type without such a head, transformers would ask whether to run it; this answers.
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    change(model / "config.json", model_type="clip")
    assert "finetune: model" in fails(capsys, "predict", str(model), "글")
    change(model / "config.json", model_type="evil")
    assert "a model of type 'evil' that comes with code of its own" in fails(capsys, "predict", str(model), "글")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"hidden_size": "x"}),
        ("config.json", {"id2label": [1, 2]}),
        ("tokenizer.json", None),
        ("adapter_config.json", {"base_model_name_or_path": "evil/base"}),
    ],
)
def test_files_that_make_no_sense_end_in_one_line(model, name, content, capsys):
    if name == "config.json":
        change(model / name, **content)
    else:
        (model / name).write_text("[" * 100_000 if content is None else json.dumps(content), encoding="utf-8")
    fails(capsys, "predict", str(model), "글")


def test_yaml_with_tags_builds_nothing(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    mark = tmp_path / "exploded"
    (run / "recipe.yaml").write_text(f"{text}x: !!python/object/apply:os.mkdir ['{mark}']\n", encoding="utf-8")
    assert "recipe.yaml, line" in fails(capsys, "predict", str(run), "글")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["a/../b", "../b", "a/b/c", "owner/na me", "owner/..", "a--b/c", "owner/name@"])
def test_names_that_are_no_hub_ids(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = fails(capsys, "predict", name, "글")
    assert "no Hub id" in line or "no such run or model directory" in line


def test_what_the_hub_does_not_have(hub, trained, capsys):
    assert "no run or model directory here, and on the Hub neither" in fails(capsys, "predict", "user/none", "글")
    hub.put("user/there", {"config.json": b"{}"})
    assert "user/there: no revision v9 on the Hub" in fails(capsys, "predict", "user/there@v9", "글")
    assert "no revision v8" in fails(capsys, "predict", "user/there", "--revision", "v8", "글")
    assert "no weights in safetensors" in fails(capsys, "predict", "user/there", "글")


def test_only_listed_files_are_fetched(hub, trained, tmp_path):
    files = {path.name: path.read_bytes() for path in (trained / "model").iterdir()}
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    hub.put("user/mixed", {**files, "evil.py": b"1/0", "pytorch_model.bin": bomb, "training_args.bin": bomb})
    directory = fetch("user/mixed")
    assert {path.name for path in Path(directory).iterdir()} == set(files)
    assert not any(
        "evil" in request.path or ".bin" in request.path for request in hub.requests if "resolve" in request.path
    )


def test_a_hub_that_cannot_be_reached(capsys):
    """The tests have no network, and say so by a variable."""
    assert "the Hub did not give it" in fails(capsys, "predict", "owner/name", "글")
