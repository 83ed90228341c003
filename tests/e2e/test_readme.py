"""The README is true: its commands run, and its numbers are those that a run wrote."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from reviews import review_rows
from transformers import pipeline

from finetune.cli import main
from finetune.recipe import embedded_model
from finetune.reporting.ablation import ablation_markdown
from finetune.reporting.learning_curve import curve_markdown

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_two_commands_are_the_set_up_scripts():
    shell = blocks("bash")
    assert shell[:2] == ["bash scripts/quickstart.sh\n", "bash scripts/test.sh\n"]
    assert len(shell) == 9


def test_own_csv_in_five_minutes(tmp_path, monkeypatch, capsys):
    """The recipe and the commands of the section, word for word, on a file like the one that it shows."""
    header, *examples = blocks("csv")[0].splitlines()
    names = {"positive": "긍정", "negative": "부정"}
    assert [line.rsplit(",", 1)[1] for line in examples] == ["긍정", "부정"]
    rows = [f"{text},{names[label]}" for text, label in review_rows(300)]
    (tmp_path / "reviews.csv").write_text("\n".join([header, *examples, *rows]) + "\n", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    activate, *commands = blocks("bash")[2].splitlines()
    assert activate == "source .venv/bin/activate"
    assert len(commands) == 4
    monkeypatch.chdir(tmp_path)
    for program, *arguments in map(shlex.split, commands):
        assert program == "finetune"
        capsys.readouterr()
        assert main(arguments) == 0, arguments
    assert capsys.readouterr().out.split("\t")[0] in ("긍정", "부정")
    assert (tmp_path / "reports" / "mine" / "index.html").exists()


def topics(text):
    """What a review speaks of: nothing, one thing, or two."""
    words = {"연기": "acting", "영화": "film", "친구": "company"}
    return [name for word, name in words.items() if word in text]


@pytest.mark.slow
def test_the_doctor_pretraining_and_ratings(tmp_path, monkeypatch, capsys):
    """The commands of the four sections, word for word, in this process."""
    monkeypatch.chdir(tmp_path)
    stars = {"positive": 9, "negative": 2}
    rows = [
        f"{text},{label},{stars[label] + number % 2},{'|'.join(topics(text))}"
        for number, (text, label) in enumerate(review_rows(300))
    ]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label,stars,topics", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    (tmp_path / "texts.txt").write_text("\n".join(text for text, _ in review_rows(300)), encoding="utf-8")
    commands = [shlex.split(line) for block in blocks("bash")[3:] for line in block.splitlines()]
    assert len(commands) == 15
    for program, *arguments in commands:
        assert program == "finetune"
        assert main(arguments) == 0, arguments
    assert "unknown tokens" in capsys.readouterr().out
    for name in ("stars", "stars-mean", "stars-tfidf"):
        scores = json.loads((tmp_path / "runs" / name / "scores.json").read_text(encoding="utf-8"))
        assert "rmse" in scores["splits"]["test"]["metrics"]
    for name in ("topics", "topics-tfidf"):
        scores = json.loads((tmp_path / "runs" / name / "scores.json").read_text(encoding="utf-8"))
        assert "micro_f1" in scores["splits"]["test"]["metrics"]


def test_the_kobert_command_with_a_standin_for_what_lies_on_the_hub(tmp_path):
    """The command as it stands, its data and its checkpoint replaced by small ones in the same layout."""
    line = next(line for line in README.splitlines() if line.startswith("    finetune train nsmc-kobert"))
    checkpoint = write_checkpoint(tmp_path / "kobert", "kobert")
    data = tmp_path / "reviews.csv"
    rows = [f"{number},{text},{int(label == 'positive')}" for number, (text, label) in enumerate(review_rows(120))]
    data.write_text("\n".join(["id,document,label", *rows]) + "\n", encoding="utf-8")
    source = f"{{train_file: {data}, id_column: id, text_column: document, labels: {{0: negative, 1: positive}}}}"
    overrides = ["--model.model_name_or_path", str(checkpoint), "--data", source, "--text.max_length", "64"]
    assert main([*shlex.split(line)[1:], *overrides, "--output_dir", str(tmp_path / "runs")]) == 0
    answers = pipeline("text-classification", model=str(tmp_path / "runs" / "nsmc-kobert" / "model"), device="cpu")
    assert answers("정말 재미있다")[0]["label"] in ("negative", "positive")


def test_every_file_and_recipe_that_it_names_exists():
    tree = README.split("## Files")[1].split("## Licence")[0]
    named = re.findall(r"^ {4,6}(\w+(?:\.py|/)) ", tree, re.MULTILINE)
    assert len(named) >= 15
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "finetune" / name).exists(), name
    recipes = re.findall(r"`((?:nsmc|sst2|imdb)-[a-z0-9-]+)`", README)
    assert len(recipes) >= 10
    for name in recipes:
        assert (ROOT / "finetune" / "recipes" / f"{name}.yaml").exists(), name


def test_every_block_that_is_written_by_the_program_has_been():
    blocks = re.findall(r"<!-- ([a-z0-9-]+): written by .*?-->\n(.*?)<!-- end of \1 -->", README, re.DOTALL)
    assert len(blocks) == README.count(": written by scripts/update_readme.py -->") >= 6
    for name, shown in blocks:
        assert "| ---: |" in shown or "| :--- |" in shown, name


@pytest.mark.parametrize(
    ("block", "model", "study"),
    [
        ("transfer-nsmc", "mini-bert-ko", "transfer-nsmc"),
        ("transfer-nsmc3", "mini-bert-ko", "transfer-nsmc3"),
        ("curve", "mini-bert-ko", "curve-nsmc"),
        ("curve-writers", "mini-gpt-ko", "curve-nsmc"),
    ],
)
def test_its_curves_are_what_the_files_say(block, model, study):
    account = embedded_model(f"embedded:{model}") / "pretraining" / f"{study}.json"
    begin, end = f"<!-- {block}: written by scripts/update_readme.py -->", f"<!-- end of {block} -->"
    shown = README.split(begin)[1].split(end)[0]
    assert shown.strip() == curve_markdown(json.loads(account.read_text(encoding="utf-8"))).strip()


@pytest.mark.parametrize(
    ("block", "data"),
    [
        ("word-vectors", "vectors"),
        ("ways", "nsmc"),
        ("noise", "noise-nsmc"),
        ("ways-encoder-reviews", "encoder-reviews-ko"),
        ("ways-from-scratch-reviews", "from-scratch-reviews-ko"),
    ],
)
def test_its_tables_of_variants_are_what_the_files_say(block, data):
    account = embedded_model("embedded:mini-bert-ko") / "pretraining" / f"ablation-{data}.json"
    begin, end = f"<!-- {block}: written by scripts/update_readme.py -->", f"<!-- end of {block} -->"
    shown = README.split(begin)[1].split(end)[0]
    assert shown.strip() == ablation_markdown(json.loads(account.read_text(encoding="utf-8"))).strip()


@pytest.mark.slow
@pytest.mark.timeout(2700)  # on the one core of a worker, the set-up before it
def test_the_quickstart_command_in_a_fresh_clone(tmp_path):
    """`bash scripts/quickstart.sh` from a clean checkout, its trainings cut short: set-up, runs, report."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=60)
    # pip needs its registry; what it installs runs with the network of every test.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    setup = subprocess.run(
        ["bash", "scripts/setup.sh"],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert setup.returncode == 0, setup.stderr
    assert "to download" in setup.stdout.splitlines()[0]
    done = subprocess.run(
        ["bash", "scripts/quickstart.sh", "--training.max_steps", "12"],
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Setting up" not in done.stdout
    assert "Next:" in done.stdout
    comparison = json.loads((clone / "reports" / "quickstart" / "comparison.json").read_text(encoding="utf-8"))
    assert {run["name"] for run in comparison["runs"]} == {
        "quickstart-majority",
        "quickstart-tfidf",
        "quickstart-lstm",
        "quickstart-encoder",
        "quickstart-mini-bert-frozen",
        "quickstart-mini-bert",
    }
    reviews = (clone / "reports" / "quickstart-writers" / "reviews.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (부정|중립|긍정) \| .+ \| .+ \|$", reviews, re.MULTILINE) == ["부정", "중립", "긍정"]
    assert not subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    shutil.rmtree(clone)
