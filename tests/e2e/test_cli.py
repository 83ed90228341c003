"""The command line from recipe to report, in process, on a file of the user's own."""

import json

import pyarrow.parquet as pq
import pytest
from command_line import fails
from reviews import write_csv, write_ratings

from finetune.cli import main, parse_overrides
from finetune.errors import UserError

CHECKPOINT = (
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "generators.safetensors",
    "state.json",
    "best.safetensors",
)
RECIPE = """
name: mine
data: {train_file: reviews.csv}
text: {vocabulary_size: 300, max_length: 32}
model: {family: recurrent, embedding_size: 16, hidden_size: 16}
training: {num_train_epochs: 2, batch_size: 16, learning_rate: 1e-2, threads: 1}
evaluation: {bootstrap_samples: 100}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "reviews.csv", 200)
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def files(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_train_evaluate_predict_compare(folder, capsys):
    assert main(["train", "mine.yaml"]) == 0
    run = folder / "runs" / "mine"
    assert files(run) == {
        "recipe.yaml",
        "environment.json",
        "data.json",
        "probe.json",
        "train_log.jsonl",
        "scores.json",
        "predictions/validation.parquet",
        "predictions/test.parquet",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "checkpoints/best.safetensors",
        *(f"checkpoints/step-{step:06d}/{name}" for step in (9, 18) for name in CHECKPOINT),
    }
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert scores["splits"]["test"]["times_scored"] == 1
    assert scores["splits"]["test"]["count"] == 40
    assert scores["cost"]["parameters"] > 1000
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert environment["threads"] == 1
    assert environment["end"] >= environment["start"]
    first = pq.read_table(run / "predictions" / "test.parquet")

    # The model in the run directory gives the recorded predictions, and the second look at the test split is counted.
    assert main(["evaluate", "runs/mine", "--split", "test"]) == 0
    assert "has now been scored 2 times" in capsys.readouterr().out
    assert pq.read_table(run / "predictions" / "test.parquet").equals(first)
    again = json.loads((run / "scores.json").read_text(encoding="utf-8"))["splits"]["test"]
    assert again["times_scored"] == 2
    assert again["metrics"] == scores["splits"]["test"]["metrics"]

    write_csv(folder / "fresh.csv", 60, seed=5)
    assert main(["evaluate", "runs/mine", "--data", "fresh.csv", "--output", "checked"]) == 0
    assert "on 60 rows" in capsys.readouterr().out
    assert files(folder / "checked") == {"scores.json", "predictions/data.parquet"}
    assert main(["evaluate", "runs/mine/model", "--data", "fresh.csv", "--output", "checked-model"]) == 0
    both = [pq.read_table(folder / name / "predictions" / "data.parquet") for name in ("checked", "checked-model")]
    assert both[0].equals(both[1])

    assert main(["predict", "runs/mine", "최고의 영화 감동이 크다", "시간이 아깝다"]) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split("\t")[0] for line in lines] == ["positive", "negative"]

    assert main(["train", "mine.yaml", "--name", "floor", "--model", "{family: tfidf}"]) == 0
    floor = folder / "runs" / "floor"
    assert "model" not in {path.name for path in floor.iterdir()}
    assert "a tfidf floor keeps predictions and scores but no model" in fails(capsys, "predict", "runs/floor", "x")
    once = json.loads((floor / "scores.json").read_text())["splits"]["test"]
    assert main(["evaluate", "runs/floor", "--split", "test"]) == 0
    again = json.loads((floor / "scores.json").read_text())["splits"]["test"]
    assert again == {**once, "times_scored": 2}
    assert main(["compare", "runs/mine", "runs/floor", "--output", "report"]) == 0
    assert {"comparison.json", "comparison.md", "index.html"} == files(folder / "report")


def test_the_run_directory_repeats_the_run(folder):
    assert main(["train", "mine.yaml"]) == 0
    assert main(["train", "runs/mine", "--name", "again"]) == 0
    weights = [(folder / "runs" / name / "model" / "model.safetensors").read_bytes() for name in ("mine", "again")]
    assert weights[0] == weights[1]


def test_tracking_and_workers_by_recipe(folder):
    flags = ["--training.report_to", "tensorboard", "--training.dataloader_num_workers", "2"]
    assert main(["train", "mine.yaml"]) == 0
    assert main(["train", "mine.yaml", "--name", "tracked", *flags]) == 0
    assert any("tfevents" in name for name in files(folder / "runs" / "tracked"))
    weights = [(folder / "runs" / name / "model" / "model.safetensors").read_bytes() for name in ("mine", "tracked")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing.yaml"], "no recipe file and no shipped recipe named 'nothing.yaml'"),
        (["train", "mine.yaml", "--training.batch_sise", "3"], "did you mean training.batch_size?"),
        (["train", "mine.yaml", "--training.batch_size"], "--training.batch_size needs a value"),
        (["train", "mine.yaml", "stray"], "unknown argument 'stray'"),
        (["train", "mine.yaml", "--data.train_file", "none.csv"], "none.csv: no such file"),
        (["train", "mine.yaml", "--data.text_column", "txt"], "no column 'txt'"),
        (["train", "mine.yaml", "--training.micro_batch_size", "5"], "training.micro_batch_size 5 does not divide"),
        (["train", "mine.yaml", "--training.mixed_precision", "fp16"], "fp16 needs a GPU"),
        (["train", "mine.yaml", "--training.report_to", "trackio"], "training.report_to trackio: not installed"),
        (["predict", "runs/none", "x"], "runs/none: no such run or model directory"),
        (["evaluate", "runs/none"], "evaluate needs one of --split and --data FILE"),
        (["evaluate", "runs/none", "--data", "x.csv"], "needs --output DIR"),
        (["recipes", "show", "nsmc-lsmt"], "did you mean nsmc-lstm?"),
        (["predict", "x", "--loud"], "unknown argument --loud"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(folder, capsys, arguments, message):
    assert message in fails(capsys, *arguments)


def test_ratings_are_learnt_scored_and_given(folder, capsys):
    write_ratings(folder / "reviews.csv", 300)
    rate = ["--task", "rate", "--training.num_train_epochs", "6"]
    assert main(["train", "mine.yaml", *rate]) == 0
    floors = {"mean": '{"family": "majority"}', "ridge": '{"family": "tfidf"}'}
    for name, model in floors.items():
        assert main(["train", "mine.yaml", *rate, "--name", name, "--model", model]) == 0
    runs = {name: folder / "runs" / name for name in ("mine", *floors)}
    scores = {name: json.loads((run / "scores.json").read_text(encoding="utf-8")) for name, run in runs.items()}
    rmse = {name: entry["splits"]["test"]["metrics"]["rmse"]["value"] for name, entry in scores.items()}
    assert rmse["mine"] < 2 < rmse["mean"]
    assert rmse["ridge"] < rmse["mean"]
    assert json.loads((runs["mine"] / "model" / "config.json").read_text())["problem_type"] == "regression"
    capsys.readouterr()
    assert main(["predict", str(runs["mine"]), "정말 재미있다", "너무 지루하다"]) == 0
    good, bad = (float(line.split("\t")[0]) for line in capsys.readouterr().out.splitlines())
    assert bad < 5.5 < good
    assert main(["evaluate", str(runs["mine"]), "--data", "reviews.csv", "--output", "again"]) == 0
    assert "RMSE" in capsys.readouterr().out
    assert main(["predict", str(runs["mine"]), "--input", "reviews.csv", "--output", "rated.csv"]) == 0
    assert (folder / "rated.csv").read_text(encoding="utf-8").splitlines()[0] == '"row","text","rating"'
    assert "rates texts" in fails(capsys, "compare", str(runs["mine"]), str(runs["mean"]), "--output", "report")
    (folder / "words.csv").write_text("text,label\na,1\nb,gut\n", encoding="utf-8")
    message = fails(capsys, "train", "mine.yaml", *rate, "--name", "bad", "--data.train_file", "words.csv")
    assert "words.csv, row 3: the rating 'gut' is no number" in message


def test_bad_data_leaves_no_run_behind(folder, capsys):
    reviews = folder / "reviews.csv"
    good = reviews.read_text(encoding="utf-8")
    reviews.write_text(good + "one field\n", encoding="utf-8")
    assert "row 202" in fails(capsys, "train", "mine.yaml")
    assert not (folder / "runs" / "mine").exists()
    reviews.write_text(good, encoding="utf-8")
    assert main(["train", "mine.yaml"]) == 0


def test_shards_are_refused(folder, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(["train", "mine.yaml"]) == 2
    assert "FSDP keeps weights in shards" in capsys.readouterr().err


def test_an_existing_run_is_refused(folder, capsys):
    assert main(["train", "mine.yaml", "--training.max_steps", "1"]) == 0
    before = files(folder / "runs" / "mine")
    assert "exists; choose another --name, or pass --overwrite" in fails(capsys, "train", "mine.yaml")
    assert files(folder / "runs" / "mine") == before
    assert main(["train", "mine.yaml", "--training.max_steps", "1", "--overwrite"]) == 0


def test_overrides_are_pairs_or_equations():
    assert parse_overrides(["--a.b", "1", "--c=2", "--d", "-3"]) == [("a.b", "1"), ("c", "2"), ("d", "-3")]
    with pytest.raises(UserError):
        parse_overrides(["a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.train_file", "mine.csv"], "data.train_file is each recipe's own"),
        (["--model.dropout", "0.2"], "model.dropout is each recipe's own"),
        (["--training.learning_rat", "1"], "did you mean training.learning_rate?"),
    ],
)
def test_what_the_quickstart_does_not_take_is_refused_before_any_training(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, "quickstart", *arguments)
    assert not (tmp_path / "runs").exists()
