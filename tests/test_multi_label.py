"""Task multi_label from the recipe to the card: rows with none, one or several labels, through every command."""

import json
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from command_line import fails
from crashes import Crash, crash_at
from kill_loop import outcome
from reviews import MODELS, TOPICS, small_recipe, topic_rows, write_csv, write_topics
from sklearn import metrics as sk
from torch import nn

import finetune.models
from finetune import tasks
from finetune.attribution import attribute
from finetune.cli import main
from finetune.demo.answers import Answers
from finetune.demo.batch import label_file
from finetune.demo.endpoints import _compared
from finetune.demo.models import models_of
from finetune.demo.words import SENTENCES
from finetune.errors import UserError
from finetune.hub import proof, push
from finetune.predict import load_classifier
from finetune.recipe import dump_recipe
from finetune.reporting.set_comparison import exact_matches
from finetune.run import RunDirectory

LABELS = list(TOPICS)
TEXTS = ["배우가 훌륭하다 노래가 귀에 남는다", "어제 봤는데 친구와 함께", "결말이 아쉽다", "극장에서 연기가 어색하다 1"]
LSTM = {**MODELS["lstm"], "pooling": "max"}
TRAINING = {"num_train_epochs": 10, "learning_rate": 2e-2, "batch_size": 16, "logging_steps": 5}


def recipe_of(directory, model=LSTM, rows=400, **sections):
    data = {"train_file": str(write_topics(directory / "topics.csv", rows)), **sections.pop("data", {})}
    training = {**TRAINING, **sections.pop("training", {})}
    return small_recipe(directory, model, task="multi_label", data=data, training=training, **sections)


def trained(directory, *arguments, **values):
    recipe = recipe_of(directory, **values)
    file = directory / f"{recipe.name}.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert main(["train", str(file), *arguments]) == 0
    return RunDirectory(directory / "runs" / recipe.name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An LSTM and both floors, trained on the same rows."""
    directory = tmp_path_factory.mktemp("topics")
    return {
        "lstm": trained(directory, name="lstm"),
        "tfidf": trained(directory, name="tfidf", model={"family": "tfidf"}),
        "majority": trained(directory, name="majority", model={"family": "majority"}),
    }


def scores(run, split="test"):
    return {name: metric["value"] for name, metric in run.scores()["splits"][split]["metrics"].items()}


def test_it_is_learnt_well_above_chance(runs):
    by_run = {name: scores(run) for name, run in runs.items()}
    assert by_run["lstm"]["micro_f1"] > 0.9 > by_run["majority"]["micro_f1"] + 0.2
    assert by_run["lstm"]["subset_accuracy"] > 0.8
    assert by_run["tfidf"]["micro_f1"] > 0.8
    config = json.loads((runs["lstm"].model_directory / "config.json").read_text(encoding="utf-8"))
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {str(i): name for i, name in enumerate(LABELS)}
    validated = [record["validation"] for record in runs["lstm"].log() if "validation" in record]
    assert set(validated[0]) == {"micro_f1", "macro_f1", "subset_accuracy", "loss"}


def test_the_scores_are_those_of_the_predictions_by_scikit_learn(runs):
    for run in runs.values():
        table = pq.read_table(run.predictions_file("test")).to_pydict()
        wanted, found = (
            np.array([[name in row for name in LABELS] for row in table[key]]) for key in ("reference", "predicted")
        )
        assert (found == (np.array(table["scores"]) >= 0.5)).all()
        assert not wanted.any(axis=1).all()  # rows without labels are scored like the others
        said = scores(run)
        assert said["micro_f1"] == pytest.approx(sk.f1_score(wanted, found, average="micro", zero_division=0))
        assert said["subset_accuracy"] == pytest.approx(sk.accuracy_score(wanted, found))


def test_the_majority_is_each_labels_own(runs):
    table = pq.read_table(runs["majority"].predictions_file("test")).to_pydict()
    counts = runs["majority"].data()["splits"]["train"]
    shares = [counts["label_counts"][name] / counts["count"] for name in LABELS]
    assert table["scores"][0] == pytest.approx(shares)
    assert set(map(tuple, table["predicted"])) == {
        tuple(name for name, share in zip(LABELS, shares, strict=True) if share >= 0.5)
    }


def test_a_pipeline_gives_the_probabilities_that_predict_gives(runs, capsys):
    assert finetune.models  # which tells transformers of recurrent models
    classify = transformers.pipeline(
        "text-classification", model=str(runs["lstm"].model_directory), top_k=None, function_to_apply="sigmoid"
    )
    classifier = load_classifier(str(runs["lstm"].path))
    expected = classifier.classify(TEXTS)
    for row, given in zip(expected, classify(TEXTS), strict=True):
        said = {one["label"]: one["score"] for one in given}
        assert [said[name] for name in LABELS] == pytest.approx(row.tolist(), abs=1e-6)
    assert not np.allclose(expected.sum(axis=1), 1, atol=0.05)  # each label is by itself
    # Of itself it knows that its labels are no alternatives.
    plain = transformers.pipeline("text-classification", model=str(runs["lstm"].model_directory), top_k=None)
    assert plain(TEXTS[0]) == classify(TEXTS[0])
    capsys.readouterr()
    assert main(["predict", str(runs["lstm"].path), *TEXTS]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    for (labels, sure, text), row, given in zip(lines, expected, TEXTS, strict=True):
        held = [name for name, value in zip(LABELS, row, strict=True) if value >= 0.5]
        assert labels == ("|".join(held) or "(none)")
        values = [row[LABELS.index(name)] for name in held] or [row.max()]
        assert sure == " ".join(f"{value:.3f}" for value in values)
        assert text == given
    assert lines[0][0] == "연기|음악"
    assert lines[1][0] == "(none)"


def test_files_are_predicted_and_scored(runs, tmp_path, capsys):
    file = write_topics(tmp_path / "more.csv", 80, seed=9)
    run = str(runs["lstm"].path)
    assert main(["predict", run, "--input", str(file), "--output", str(tmp_path / "said.parquet")]) == 0
    table = pq.read_table(tmp_path / "said.parquet").to_pydict()
    assert list(table) == ["row", "text", "predicted", *(f"probability_{name}" for name in LABELS)]
    expected = load_classifier(run).classify(table["text"])
    assert np.array_equal(np.stack([table[f"probability_{name}"] for name in LABELS], axis=1), expected)
    wanted = [labels for _, labels in topic_rows(80, seed=9)]
    assert (
        np.mean([said.split("|") == (labels or [""]) for said, labels in zip(table["predicted"], wanted, strict=True)])
        > 0.8
    )
    assert main(["evaluate", run, "--data", str(file), "--output", str(tmp_path / "scored")]) == 0
    assert "micro F1" in capsys.readouterr().out
    scored = RunDirectory(tmp_path / "scored").scores()["splits"]["data"]
    held = np.array([[name in labels for name in LABELS] for labels in wanted])
    assert scored["metrics"]["subset_accuracy"]["value"] == pytest.approx(sk.accuracy_score(held, expected >= 0.5))
    assert (
        main(["evaluate", str(runs["lstm"].model_directory), "--data", str(file), "--output", str(tmp_path / "m")]) == 0
    )
    again = RunDirectory(tmp_path / "m").scores()["splits"]["data"]
    assert again["metrics"]["micro_f1"] == scored["metrics"]["micro_f1"]
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\nx,연기\ny,연기|영상\n", encoding="utf-8")
    said = fails(capsys, "evaluate", run, "--data", str(bad), "--output", str(tmp_path / "no"))
    assert "bad.csv, row 3: the label '영상' is not among 연기, 음악, 이야기" in said


def test_a_split_is_scored_again_by_every_family(runs, capsys):
    for name, run in runs.items():
        before = run.scores()["splits"]["validation"]
        assert main(["evaluate", str(run.path), "--split", "validation"]) == 0
        after = run.scores()["splits"]["validation"]
        assert after["times_scored"] == before["times_scored"] + 1
        assert after["metrics"] == before["metrics"], name


def test_runs_compare_with_paired_intervals(runs, tmp_path, capsys):
    paths = [str(runs[name].path) for name in ("majority", "tfidf", "lstm")]
    assert main(["compare", *paths, "--output", str(tmp_path / "report")]) == 0
    found = json.loads((tmp_path / "report" / "comparison.json").read_text(encoding="utf-8"))
    assert [run["name"] for run in found["runs"]][-1] == "majority"
    best, *_, last = found["runs"]
    assert best["behind"] is None
    gap = best["metrics"]["micro_f1"]["value"] - last["metrics"]["micro_f1"]["value"]
    assert last["behind"]["value"] == pytest.approx(gap)
    assert last["behind"]["low"] < gap < last["behind"]["high"]
    right = {
        name: [a == b for a, b in zip(table["reference"], table["predicted"], strict=True)]
        for name in (best["name"], "majority")
        if (table := pq.read_table(runs[name].predictions_file("test")).to_pydict())
    }
    alone = sum(a and not b for a, b in zip(right[best["name"]], right["majority"], strict=True))
    assert last["matches"]["best_only"] == alone
    assert last["matches"]["p_value"] < 1e-3
    for run in found["runs"]:
        latency = run["cost"]["latency_ms"]
        assert 0 < latency["p50"] <= latency["p95"]
        assert (run["cost"]["disk_bytes"] is None) == run["is_floor"]
    printed = capsys.readouterr().out
    assert "has the highest test micro F1" in printed
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert all(label in page for label in LABELS)
    assert "What each costs" in page
    assert "McNemar" in (tmp_path / "report" / "comparison.md").read_text(encoding="utf-8")
    # A second report over the first is the same.
    assert main(["compare", *paths, "--output", str(tmp_path / "report")]) == 0
    assert json.loads((tmp_path / "report" / "comparison.json").read_text(encoding="utf-8")) == found


def test_mcnemars_test_is_the_binomial():
    from scipy.stats import binomtest

    generator = np.random.default_rng(0)
    for shift in (0.0, 0.05, 0.3):
        one, other = generator.random(300) < 0.5 + shift, generator.random(300) < 0.5
        found = exact_matches(one, other)
        expected = binomtest(found.best_only, found.best_only + found.this_only).pvalue
        assert found.p_value == pytest.approx(expected, rel=1e-9)
    assert exact_matches(one, one).p_value == 1


def test_what_does_not_compare_is_refused(runs, tmp_path, capsys):
    recipe = small_recipe(tmp_path, {"family": "majority"}, name="single")
    (tmp_path / "single.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert main(["train", str(tmp_path / "single.yaml")]) == 0
    single, several = str(tmp_path / "runs" / "single"), str(runs["majority"].path)
    for pair in ((single, several), (several, single)):
        assert "gives a text several labels" in fails(capsys, "compare", *pair, "--output", str(tmp_path / "r"))


def test_the_card_says_what_it_is(runs):
    run = runs["lstm"]
    assert main(["card", str(run.path), "--beside", str(runs["majority"].path), "--license", "mit"]) == 0
    card = run.card_file.read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in card
    assert "Multi-Label Text Classification" in card
    assert "none, one or several of 3 labels: 연기, 음악, 이야기" in card
    assert re.search(r"micro F1 \d+\.\d % \[", card)
    assert "| Wrong decisions (Hamming loss) |" in card
    assert all(re.search(rf"\| {label} \| \d+\.\d % \[", card) for label in LABELS)
    assert "at least 0.5" in card
    assert "highest test micro F1" in card
    assert (run.plots_directory / "validation.svg").exists()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    said = {}
    code = code.replace('model="runs/lstm/model"', f"model={str(run.model_directory)!r}").replace("print(", "keep(")
    exec(code, {"keep": lambda given: said.update({"found": given})})  # what the card tells a reader to run
    assert {one["label"] for one in np.ravel(said["found"])} == set(LABELS)


def test_a_push_proves_it(runs, tmp_path, capsys, monkeypatch):
    shown = []

    def prove(directory):
        result = proof.prove(directory)
        assert not result["problems"], result["problems"]
        config = directory / "config.json"
        told = json.loads(config.read_text(encoding="utf-8"))
        kept = config.read_bytes()
        config.write_text(json.dumps({**told, "problem_type": "single_label_classification"}), encoding="utf-8")
        shown.extend(proof.prove(directory)["problems"])
        config.write_bytes(kept)
        return result["shown"]

    monkeypatch.setattr(push, "prove", prove)
    assert main(["card", str(runs["lstm"].path), "--license", "mit"]) == 0
    assert main(["push", str(runs["lstm"].path), "--repo", "user/topics", "--dry_run"]) == 0
    assert "nothing was pushed" in capsys.readouterr().out
    assert len(shown) == 1
    assert "probabilities would not be each label's own" in shown[0]


def test_an_onnx_file_says_the_same(runs):
    assert main(["export", str(runs["lstm"].path)]) == 0
    agreement = json.loads((runs["lstm"].onnx_directory / "agreement.json").read_text(encoding="utf-8"))
    assert agreement["of"] == "probability"
    floats = agreement["files"]["model.onnx"]
    assert floats["largest_difference"] < 1e-5
    assert floats["same_label"] == 1


def test_attributions_add_up_for_each_label(runs):
    classifier = load_classifier(str(runs["lstm"].path))
    row = classifier.classify(TEXTS[:1])[0]
    for number, label in enumerate(LABELS):
        found = attribute(classifier, TEXTS[0], label)
        assert found.value == pytest.approx(row[number], abs=1e-6)
        total = sum(token.score for token in found.tokens)
        assert total == pytest.approx(found.value - found.baseline, abs=0.02)
    # What speaks of acting speaks for its label, and what speaks of music hardly does.
    of_acting = attribute(classifier, TEXTS[0], "연기")
    by_half = [sum(t.score for t in of_acting.tokens if (t.start < 8) == first) for first in (True, False)]
    assert by_half[0] > 3 * abs(by_half[1])


def test_the_demo_shows_probabilities_that_need_not_add_up(runs, tmp_path):
    words = SENTENCES["en"]
    predictors, writers = models_of([str(runs["lstm"].path)])
    answers = Answers(predictors, writers)
    _, said, note = answers.predict(TEXTS[0], "", words)
    expected = load_classifier(str(runs["lstm"].path)).classify(TEXTS)
    assert list(said.probabilities.values()) == pytest.approx(expected[0].tolist())
    assert (said.labels, said.rating, note) == (["연기", "음악"], None, "")
    rows, _ = answers.compare(TEXTS[1], words)
    assert rows[0].prediction.labels == []
    assert _compared(rows[0])["labels"] == []
    _, found = answers.explain(TEXTS[0], "", words)
    assert found.label in ("연기", "음악")
    file = tmp_path / "texts.csv"
    file.write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    *_, labelled = label_file(next(iter(predictors.values())), file, "text", tmp_path, words)
    assert [row[1] for row in labelled.rows][:2] == ["연기|음악", ""]
    assert labelled.counts == list(zip(LABELS, (expected >= 0.5).sum(axis=0).tolist(), strict=True))
    assert replace(said, gives_several=False).labels == [said.label]


def test_the_doctor_counts_labels(tmp_path, capsys):
    file = write_topics(tmp_path / "topics.csv", 100)
    wanted = [labels for _, labels in topic_rows(100)]
    assert main(["doctor", str(file), "--task", "multi_label", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    sets = report["splits"]["rows"]["label_sets"]
    assert sets["mean"] == pytest.approx(np.mean([len(labels) for labels in wanted]))
    assert sets["without"] == sum(not labels for labels in wanted)
    assert sets["different"] == len({tuple(labels) for labels in wanted})
    names = "{연기: 연기, 음악: 음악, 이야기: 이야기, 편집: 편집}"
    assert main(["doctor", str(file), "--task", "multi_label", "--data.labels", names]) == 0
    assert "no row has the label 편집" in capsys.readouterr().out
    file.write_text("text,label\nx y,a\nx y,a|b\nz,b\n", encoding="utf-8")
    assert main(["doctor", str(file), "--task", "multi_label"]) == 0
    assert "1 texts stand under different labels (2 rows)" in capsys.readouterr().out


def test_a_crashed_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    options = {"rows": 120, "training": {"num_train_epochs": 3, "save_steps": 2, "logging_steps": 1}}
    whole = trained(tmp_path, name="whole", **options)
    with monkeypatch.context() as patch:
        crash_at(patch, 8)
        with pytest.raises(Crash):
            trained(tmp_path, name="cut", **options)
    cut = trained(tmp_path, "--resume", name="cut", **options)
    assert outcome(cut.path) == outcome(whole.path)


class Fixed(nn.Module):
    """Logits that do not look at the text."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.config = logits, SimpleNamespace(problem_type="multi_label_classification")

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=self.logits[: len(input_ids)])


def test_a_row_is_one_target_however_a_step_is_cut(runs):
    """A mean over labels and a sum over rows: cut otherwise, a step comes to the same."""
    tokenizer = load_classifier(str(runs["lstm"].path)).tokenizer
    sets = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    batch = tasks.collate({"input_ids": [[5], [5, 6], [7], [8]], "label": sets}, tokenizer)
    assert batch["labels"].tolist() == sets
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    whole = tasks.loss_sum(Fixed(logits), batch)
    assert tasks.target_count(batch) == 4
    halves = [
        tasks.loss_sum(Fixed(logits[some]), {name: tensor[some] for name, tensor in batch.items()})
        for some in (slice(0, 1), slice(1, 4))
    ]
    assert sum(halves).item() == pytest.approx(whole.item())
    expected = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(sets))
    assert whole.item() / 4 == pytest.approx(expected.item())
    idle = {**batch, "labels": tasks.without_targets(batch["labels"])}
    assert (tasks.target_count(idle), tasks.loss_sum(Fixed(logits), idle).item()) == (0, 0)
    said = tasks.outputs(Fixed(logits), {name: tensor for name, tensor in batch.items() if name != "labels"})
    assert np.allclose(said, 1 / (1 + np.exp(-logits.double().numpy())))


def test_an_encoder_learns_sets_by_columns(tmp_path):
    lines = ["text," + ",".join(LABELS)]
    lines += [f"{text}," + ",".join(str(int(name in labels)) for name in LABELS) for text, labels in topic_rows(300)]
    file = tmp_path / "columns.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = {"이야기": "story", "음악": "music", "연기": "acting"}
    data = {"train_file": str(file), "label_columns": LABELS, "labels": names}
    training = {"num_train_epochs": 12, "learning_rate": 2e-3, "batch_size": 8, "metric_for_best_model": "macro_f1"}
    run = trained(tmp_path, name="encoder", model={**MODELS["encoder"], "dropout": 0.0}, data=data, training=training)
    assert scores(run)["micro_f1"] > 0.8
    assert run.scores()["splits"]["test"]["labels"] == ["story", "music", "acting"]
    assert run.recipe().data.labels == names
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run.model_directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model_directory)
    encoded = tokenizer(TEXTS[0], return_tensors="pt")
    wanted = torch.tensor([[0.0, 1.0, 1.0]])
    with torch.inference_mode():
        output = model(**encoded, labels=wanted)
    expected = nn.functional.binary_cross_entropy_with_logits(output.logits, wanted)
    assert output.loss.item() == pytest.approx(expected.item())


def test_balanced_weights_find_rare_labels_more_often(tmp_path):
    draw = random.Random(0)
    rows = []
    for number in range(400):
        labels = [name for name, share in (("흔함", 0.5), ("드묾", 0.08)) if draw.random() < share]
        words = [draw.choice("가나다라마바사아") * 2 for _ in range(3)]
        # The words that tell a label stand in four of five of its rows, and now and then in others.
        for name, word in (("흔함", "만족"), ("드묾", "고장")):
            if draw.random() < (0.8 if name in labels else 0.1):
                words.insert(draw.randrange(len(words)), word)
        rows.append(f"{' '.join(words)} {number % 7},{'|'.join(labels)}")
    file = tmp_path / "unbalanced.csv"
    file.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    values = {"data": {"train_file": str(file), "test_fraction": 0.5}, "training": {"num_train_epochs": 8}}
    recalls = {}
    for kind in ("none", "balanced"):
        run = trained(tmp_path, name=kind, loss={"class_weights": kind}, **values)
        recalls[kind] = run.scores()["splits"]["test"]["per_class"]["드묾"]["recall"]["value"]
    assert recalls["balanced"] > recalls["none"] + 0.1


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"loss": {"kind": "mse"}}, "task multi_label learns by binary cross-entropy or focal loss"),
        ({"loss": {"label_smoothing": 0.1}}, "without label_smoothing"),
        ({"model": {"family": "tfidf"}, "loss": {"kind": "focal"}}, "loss is for neural models that classify"),
        ({"training": {"metric_for_best_model": "accuracy"}}, "is none of task multi_label's: micro_f1, macro_f1"),
        ({"data": {"label_columns": ["a"]}}, "label_columns needs two columns or more, each once"),
        ({"data": {"label_columns": ["a", "b"], "labels": {"a": "x", "c": "y"}}}, "labels has no name for b"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, sections, message):
    with pytest.raises(UserError, match=re.escape(message)):
        recipe_of(tmp_path, rows=20, **sections)


def test_columns_of_labels_are_for_this_task_alone(tmp_path):
    data = {"train_file": str(write_csv(tmp_path / "a.csv", 20)), "label_columns": ["a", "b"]}
    with pytest.raises(UserError, match="are for multi_label; the task is classify"):
        small_recipe(tmp_path, data=data)


def test_what_is_not_made_for_sets_says_so(runs, tmp_path, capsys):
    recipe = str(runs["lstm"].path)
    assert "task multi_label" in fails(capsys, "gradients", recipe, "--output", str(tmp_path / "g"))
    assert "only classify and generate have a curve" in fails(
        capsys, "curve", recipe, "--sizes", "50", "--output", str(tmp_path / "c")
    )
