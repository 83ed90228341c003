"""Model cards: what the files say and nothing else, readable by the Hub, and what people wrote in them stays."""

import json
import re
import shutil
from functools import cache, partial
from xml.etree import ElementTree

import pytest
import render_cards
from command_line import fails
from huggingface_hub import ModelCard
from published_runs import train_run

from finetune.cli import main
from finetune.reporting.card import PERSON_SECTIONS, read_card, render_card
from finetune.run import open_run

FAMILIES = ("encoder", "bilstm-stacked", "writer", "tfidf")
KEPT = sorted(path for path in (render_cards.CARDS / "runs").glob("*") if path.is_dir())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs by family, each trained once, on the same rows."""
    return cache(partial(train_run, tmp_path_factory.mktemp("card")))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run, to be changed."""
    return shutil.copytree(trained("encoder"), tmp_path / "runs" / "mine")


def text_of(run):
    return (run / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_says_what_the_files_say(trained, family, tmp_path):
    run = shutil.copytree(trained(family), tmp_path / family)
    assert main(["card", str(run), "--license", "apache-2.0"]) == 0
    text, card = text_of(run), ModelCard.load(run / "README.md")
    test = open_run(run).scores()["splits"]["test"]
    results = {result.metric_type: result for result in card.data.eval_results}
    main_metric = "bits_per_byte" if family == "writer" else "accuracy"
    assert results[main_metric].metric_value == pytest.approx(test["metrics"][main_metric]["value"], abs=1e-6)
    assert results[main_metric].metric_args["confidence_level"] == 0.95
    assert card.data.pipeline_tag == ("text-generation" if family == "writer" else "text-classification")
    assert card.data.license == "apache-2.0"
    assert card.data.language == "ko"
    assert "## 한국어 요약" in text
    assert "The test split was scored once" in text
    account = open_run(run).data()
    assert account["splits"]["test"]["rows_fingerprint"][:16] in text
    assert next(iter(account["files"].values()))["sha256"][:16] in text
    for finding in account["doctor"]["findings"]:
        assert f"- {finding['grade']}: " in text
    assert ("there is nothing to load" in text) == (family == "tfidf")
    assert "it was not compared with a baseline" in text
    assert not re.search(r"None|\bnan\b|Undefined", text.partition("## Training")[0])
    assert "\n\n\n" not in text


def test_a_card_says_what_the_run_costs_and_nothing_of_what_was_not_recorded(run):
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    cost = scores["cost"]
    assert main(["card", str(run)]) == 0
    section = text_of(run).split("## Cost\n")[1].split("\n## ")[0]
    assert f"| Model with its tokenizer, on disk | {cost['disk_bytes']:,} bytes |" in section
    assert re.search(r"\| One text by itself, from text to label \| .* ms in the median, .* ms at the 95th ", section)
    assert f"({cost['latency_ms']['count']} validation texts; cpu, 1 thread)" in section
    assert re.search(r"\| Memory of the training process at its peak \| (≤ )?[\d.]+ [MG]B", section)
    later = ("disk_bytes", "latency_ms", "peak_memory_bytes", "peak_memory_before_bytes", "peak_gpu_memory_bytes")
    (run / "scores.json").write_text(
        json.dumps({**scores, "cost": {name: value for name, value in cost.items() if name not in later}}),
        encoding="utf-8",
    )
    assert main(["card", str(run)]) == 0
    earlier = text_of(run).split("## Cost\n")[1].split("\n## ")[0]
    assert "| Weights |" in earlier
    assert "at its peak" not in earlier
    assert "by itself" not in earlier
    assert "\n\n|" not in earlier.strip().partition("\n")[2]


def test_equal_files_give_an_equal_card(run):
    assert main(["card", str(run)]) == 0
    first = text_of(run)
    assert main(["card", str(run)]) == 0
    assert text_of(run) == first


def test_what_is_missing_is_said_to_be_missing(run):
    shutil.rmtree(run / "plots", ignore_errors=True)
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    del scores["splits"]["test"]
    (run / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    assert main(["card", str(run)]) == 0
    text = text_of(run)
    assert "The test split was not scored: a score on it is missing here." in text
    assert "nobody has said under which licence" in text
    assert "model-index" not in text
    assert "license" not in text.partition("\n# ")[0]


@pytest.mark.parametrize("family", ["encoder", "writer"])
def test_rows_that_leaked_and_texts_that_were_copied(trained, family, tmp_path):
    run = shutil.copytree(trained(family), tmp_path / family)
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    test = scores["splits"]["test"]
    test["without_leaked_rows"] = {"count": test["count"] - 1, "left_out": 1, "metrics": test["metrics"]}
    (run / "scores.json").write_text(json.dumps({**scores, "cost": {}}), encoding="utf-8")
    if family == "writer":
        records = open_run(run).samples()
        open_run(run).write_samples({**records[0], "text": f"text{i}", "copied": i == 1} for i in range(4))
    assert main(["card", str(run)]) == 0
    assert "1 of the test rows stand in the training or validation rows too" in text_of(run)
    if family == "writer":
        assert "The first 4 texts" in text_of(run)
        assert "without 1 that stand in the training texts word for word" in text_of(run)
        assert "text2" in text_of(run)
        assert "text1" not in text_of(run)


def test_how_an_exported_model_agrees(run):
    found = {"rows": 24, "largest_difference": 2.4e-7, "mean_difference": 3.8e-8, "bytes": 2086790, "same_label": 0.995}
    open_run(run).write_json(
        run / "onnx" / "agreement.json", {"files": {"model.onnx": found, "model_int8.onnx": found}}
    )
    assert main(["card", str(run)]) == 0
    lines = text_of(run).split("## Exported\n\n")[1].splitlines()[:4]
    assert len({line.count("|") for line in lines}) == 1
    assert lines[3] == "| onnx/model_int8.onnx | 2,086,790 | 24 | 2.4e-07 | 3.8e-08 | 99.50 % |"


def test_what_people_write_stays(run, capsys):
    assert main(["card", str(run), "--license", "mit", "--language", "ko"]) == 0
    said = capsys.readouterr().out
    assert all(title in said for title in PERSON_SECTIONS.values())
    text = text_of(run)
    for name in PERSON_SECTIONS:
        text = re.sub(
            rf"(<!-- person: {name} -->\n).*?(\n<!-- end of {name} -->)",
            rf"\1About {name}.\n\nMore.\2",
            text,
            flags=re.S,
        )
    (run / "README.md").write_text(text, encoding="utf-8")
    capsys.readouterr()
    assert main(["card", str(run)]) == 0
    assert text_of(run) == text
    assert "still to be written" not in capsys.readouterr().out
    assert read_card(run / "README.md").sections["risks"] == "About risks.\n\nMore."
    assert main(["card", str(run), "--license", "apache-2.0"]) == 0
    assert read_card(run / "README.md").license == "apache-2.0"


def test_beside_others(trained, run, capsys):
    others = [str(trained("tfidf")), str(trained("bilstm-stacked"))]
    assert main(["card", str(run), "--beside", *others]) == 0
    text = text_of(run)
    assert "| tfidf | TF-IDF" in text
    assert "bilstm-stacked" in text
    assert "the highest test accuracy" in text
    # The table is the run's own from now on: the others may go.
    assert main(["card", str(run)]) == 0
    assert text_of(run) == text
    line = fails(capsys, "card", str(run), "--beside", str(trained("writer")))
    assert "learnt from text" in line


def test_names_that_mean_something_to_yaml_and_markdown(run):
    strange = {"negative": "no: [yes]", "positive": "a|b*c* <b>"}
    for name in ("scores.json", "data.json"):
        text = (run / name).read_text(encoding="utf-8")
        for plain, label in strange.items():
            text = text.replace(json.dumps(plain), json.dumps(label))
        (run / name).write_text(text, encoding="utf-8")
    assert main(["card", str(run), "--license", "other: [x]"]) == 0
    text = text_of(run)
    assert ModelCard.load(run / "README.md").data.license == "other: [x]"
    assert "a\\|b\\*c\\* &lt;b&gt;" in text
    assert "<b>" not in text.partition("```yaml")[0]


def test_plots_are_files_of_their_own(run):
    assert main(["card", str(run)]) == 0
    drawn = sorted((run / "plots").glob("*.svg"))
    assert [file.name for file in drawn] == ["loss.svg", "validation.svg"]
    for file in drawn:
        text = file.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        addresses = set(re.findall(r"https?://[^\s\"']+", text))
        assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        assert "prefers-color-scheme: dark" in text
        assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= set(re.findall(r"(--[\w-]+):", text))
        assert f"plots/{file.name}" in text_of(run)


def test_a_run_that_is_not_finished_has_no_card(run, capsys):
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    (run / "environment.json").write_text(json.dumps({**environment, "end": None}), encoding="utf-8")
    assert "not finished" in fails(capsys, "card", str(run))


def test_a_damaged_card_is_named(run, capsys):
    (run / "README.md").write_text("---\na: [b\n---\n", encoding="utf-8")
    assert "its metadata is not readable as YAML" in fails(capsys, "card", str(run))


def test_there_are_cards_of_every_kind():
    families = {open_run(path).recipe().model.family for path in KEPT}
    assert families >= {"encoder", "recurrent", "decoder"}
    tunings = {getattr(open_run(path).recipe().model, "tuning", None) for path in KEPT}
    assert "lora" in tunings


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_a_kept_card_is_what_the_command_renders(path):
    run = open_run(path)
    assert text_of(path) == render_card(run, read_card(run.card_file))
    assert not [file for file in path.rglob("*") if file.suffix in (".safetensors", ".parquet")]
    for file in path.rglob("*"):
        if file.is_file() and file.suffix != ".svg":
            assert not re.search(r"/(home|root|tmp|work|Users|mnt)/", file.read_text(encoding="utf-8")), file
