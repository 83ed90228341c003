"""From text to a model that writes, and from there to one that writes on demand, as a user types it."""

import json

import pyarrow.parquet as pq
import pytest
from command_line import fails
from decoders import TEXTS, write_decoder
from reviews import NEGATIVE, POSITIVE

from finetune.cli import main

RECIPE = """
name: small
task: generate
data: {train_file: texts.txt, validation_fraction: 0.1, test_fraction: 0.1}
text: {unit: unigram, vocabulary_size: 300, max_length: 48}
model:
  family: decoder
  from_scratch:
    {hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 128, initial_embeddings: ppmi}
  dropout: 0
training: {num_train_epochs: 4, batch_size: 16, learning_rate: 1e-2, threads: 1}
evaluation: {bootstrap_samples: 100}
"""
PROMPTED = """
name: prompted
task: generate
data: {train_file: prompted.csv, prompt_column: mood}
text: {max_length: 48}
model: {family: decoder, model_name_or_path: ./runs/small/model}
training:
  {num_train_epochs: 30, batch_size: 16, learning_rate: 5e-3, threads: 1, metric_for_best_model: token_accuracy}
evaluation: {bootstrap_samples: 100}
"""


MOODS = {"positive": "재미있다", "negative": "지루하다"}
"""Prompts that the small vocabulary knows."""
PHRASES = {"positive": POSITIVE, "negative": NEGATIVE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("generate")
    (directory / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    (directory / "small.yaml").write_text(RECIPE, encoding="utf-8")
    (directory / "prompted.yaml").write_text(PROMPTED, encoding="utf-8")
    phrases = [(phrase, MOODS[label]) for label, several in PHRASES.items() for phrase in several]
    lines = [f"{phrase} {number},{mood}" for number in range(20) for phrase, mood in phrases]
    (directory / "prompted.csv").write_text("\n".join(["text,mood", *lines]) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert main(["pretrain", "small.yaml"]) == 0
        assert main(["train", "prompted.yaml"]) == 0
    return directory


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_the_run_tells_how_well_it_reads_whole_texts(folder):
    test = json.loads((folder / "runs" / "small" / "scores.json").read_text(encoding="utf-8"))["splits"]["test"]
    for name in ("loss", "perplexity", "token_accuracy", "bits_per_byte", "bits_per_character"):
        metric = test["metrics"][name]
        assert metric["low"] <= metric["value"] <= metric["high"], name
    rows = pq.read_table(folder / "runs" / "small" / "predictions" / "test.parquet").to_pydict()
    assert set(rows) == {"id", "nats", "correct", "tokens", "bytes", "characters", "unknown_bytes"}
    assert len(rows["id"]) == test["count"] == len(set(rows["id"]))
    texts = {text: len(text.encode()) for text in TEXTS}
    assert set(rows["bytes"]) <= set(texts.values())
    log = [json.loads(line) for line in (folder / "runs" / "small" / "train_log.jsonl").read_text().splitlines()]
    validations = [record["validation"] for record in log if "validation" in record]
    assert validations[-1]["loss"] < validations[0]["loss"]
    assert validations[0].keys() == {"loss", "token_accuracy", "bits_per_byte"}


def test_windows_of_long_documents_count_as_one_text(folder):
    flags = ("--training.max_steps", "0", "--model", "{family: decoder, model_name_or_path: ./runs/small/model}")
    found = {}
    for length in ("6", "48"):
        assert main(["train", "small.yaml", "--name", f"windows-{length}", "--text.max_length", length, *flags]) == 0
        scores = json.loads((folder / "runs" / f"windows-{length}" / "scores.json").read_text(encoding="utf-8"))
        found[length] = scores["splits"]["test"]
    assert found["6"]["count"] == found["48"]["count"]
    assert found["6"]["tokens"] == found["48"]["tokens"]
    # Less is seen of what came before.
    assert found["6"]["metrics"]["loss"]["value"] > found["48"]["metrics"]["loss"]["value"]


def test_no_steps_score_a_model_as_it_is(folder):
    flags = ("--training.max_steps", "0", "--model", "{family: decoder, model_name_or_path: ./runs/small/model}")
    assert main(["train", "small.yaml", "--name", "as-it-is", *flags]) == 0
    trained, as_it_is = (
        json.loads((folder / "runs" / name / "scores.json").read_text(encoding="utf-8"))
        for name in ("small", "as-it-is")
    )
    assert as_it_is["splits"] == trained["splits"]
    assert as_it_is["samples"] == trained["samples"]
    assert as_it_is["cost"]["steps"] == 0


def test_it_is_scored_again_and_on_other_files(folder, capsys):
    scores = folder / "runs" / "small" / "scores.json"
    once = json.loads(scores.read_text(encoding="utf-8"))["splits"]["validation"]
    assert main(["evaluate", "runs/small", "--split", "validation"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    again = json.loads(scores.read_text(encoding="utf-8"))["splits"]["validation"]
    assert again == {**once, "times_scored": again["times_scored"]}
    for name, model in (("of-run", "runs/small"), ("of-model", "runs/small/model")):
        assert main(["evaluate", model, "--data", "texts.txt", "--output", name]) == 0
    both = [pq.read_table(folder / name / "predictions" / "data.parquet") for name in ("of-run", "of-model")]
    assert both[0].drop(["nats"]).equals(both[1].drop(["nats"]))
    # Of batches of another size the last bits may differ.
    assert both[0]["nats"].to_pylist() == pytest.approx(both[1]["nats"].to_pylist(), rel=1e-5)


def test_prompts_that_the_vocabulary_does_not_know_are_an_alarm(folder, capsys):
    lines = (folder / "prompted.csv").read_text(encoding="utf-8").replace("재미있다\n", "good\n")
    (folder / "latin.csv").write_text(lines, encoding="utf-8")
    renamed = ("--data", "{train_file: latin.csv, prompt_column: mood, labels: {good: 재미있다, bad: 나쁘다}}")
    assert main(["doctor", "prompted.yaml", *renamed]) == 0
    assert "of the prompts" not in capsys.readouterr().out
    assert main(["doctor", "prompted.yaml", "--data.train_file", "latin.csv"]) == 0
    assert "% of the prompts have tokens that the tokenizer does not know (such as good)" in capsys.readouterr().out


def test_it_writes_by_its_prompt(capsys):
    for label, other in (("positive", "negative"), ("negative", "positive")):
        assert main(["generate", "runs/prompted", MOODS[label], "--max_new_tokens", "40"]) == 0
        written = capsys.readouterr().out.removeprefix(MOODS[label])
        assert any(phrase in written for phrase in PHRASES[label]), written
        assert not any(phrase in written for phrase in PHRASES[other])


def test_a_run_keeps_samples_and_measures_them(folder):
    for name, prompted in (("small", False), ("prompted", True)):
        run = folder / "runs" / name
        lines = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        samples = [json.loads(line) for line in lines]
        found = json.loads((run / "scores.json").read_text(encoding="utf-8"))["samples"]
        test = pq.read_table(run / "predictions" / "test.parquet").to_pydict()
        assert found["count"] == len(samples) == min(100, len(test["id"]))
        assert {sample["id"] for sample in samples} <= set(test["id"])
        assert {sample["prompt"] for sample in samples} == (set(MOODS.values()) if prompted else {""})
        assert found["metrics"]["stopped"] == pytest.approx(sum(s["stopped"] for s in samples) / len(samples))
        assert 0 < found["metrics"]["distinct_2"] <= 1
        assert ("chrf" in found["metrics"]) == prompted
    assert found["metrics"]["chrf"] > 5


def test_runs_that_write_are_compared_on_the_same_texts(folder, capsys):
    lstm = ("--model", "{family: recurrent, embedding_size: 32, hidden_size: 32}", "--text.unit", "word")
    assert main(["train", "small.yaml", "--name", "lstm", *lstm]) == 0
    capsys.readouterr()
    assert main(["compare", "runs/small", "runs/lstm", "--output", "report"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "bits per byte" in said
    assert "of the text was unknown tokens" in said  # new numbers are unknown words
    data = json.loads((folder / "report" / "comparison.json").read_text(encoding="utf-8"))
    best, other = data["runs"]
    gap = other["metrics"]["bits_per_byte"]["value"] - best["metrics"]["bits_per_byte"]["value"]
    assert gap > 0
    assert best["lead"] is None
    assert other["lead"]["value"] == pytest.approx(gap)
    assert other["lead"]["low"] < gap < other["lead"]["high"]
    both = [pq.read_table(folder / "runs" / run["name"] / "predictions" / "test.parquet") for run in data["runs"]]
    assert both[0]["bytes"].equals(both[1]["bytes"])  # the same text, whatever its tokens
    assert not both[0]["tokens"].equals(both[1]["tokens"])
    assert len(data["samples"]) == 10
    assert all(len(row["texts"]) == 2 for row in data["samples"])
    for name in ("comparison.md", "index.html"):
        text = (folder / "report" / name).read_text(encoding="utf-8")
        assert "Distinct-1" in text
        assert data["samples"][0]["texts"][0] in text
    assert "Validation bits per byte over epochs</title>" in text
    assert text.count('class="key"') == 2  # the legend
    assert "different test rows" in fails(capsys, "compare", "runs/small", "runs/prompted", "--output", "other")


def test_it_writes_while_one_reads_and_a_seed_repeats_it(capsys):
    texts = []
    for seed in ("1", "1", "2"):
        assert main(["generate", "runs/small", "--seed", seed, "어제", "--temperature", "2"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("어제")
    assert main(["generate", "runs/small", "--num_return_sequences", "3", "--top_p", "0.9", "--seed", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_file_of_prompts_is_written_to_row_by_row(folder, capsys):
    lines = ["prompt", "재미있다", "지루하다", '""', "재미있다"]
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = ("--max_new_tokens", "10", "--num_return_sequences", "2", "--temperature", "1.5", "--seed", "3")
    for name in ("out.jsonl", "again.jsonl"):
        assert main(["generate", "runs/prompted", "--input", "prompts.csv", "--output", name, *flags]) == 0
    assert "8 texts written" in capsys.readouterr().out
    assert (folder / "out.jsonl").read_bytes() == (folder / "again.jsonl").read_bytes()
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["row"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [row["prompt"] for row in rows[::2]] == ["재미있다", "지루하다", "", "재미있다"]
    assert {type(row["stopped"]) for row in rows} == {bool}
    assert "exists" in fails(capsys, "generate", "runs/prompted", "--input", "prompts.csv", "--output", "out.jsonl")


def test_chats_are_learnt_and_answered(folder, capsys):
    chats = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in (("1+1", "two"), ("2+2", "four"), ("3+3", "six"))
    ] * 4
    lines = "".join(json.dumps(chat) + "\n" for chat in chats)
    for name in ("chats.jsonl", "held.jsonl"):
        (folder / name).write_text(lines, encoding="utf-8")
    write_decoder(folder / "qwen2", "qwen2")
    recipe = (
        "name: chat\ntask: generate\n"
        "data:\n  {train_file: chats.jsonl, validation_file: held.jsonl, test_file: held.jsonl,\n"
        "   messages_column: messages}\n"
        "text: {max_length: 40}\nmodel: {family: decoder, model_name_or_path: ./qwen2}\n"
        "training: {num_train_epochs: 40, batch_size: 12, learning_rate: 1e-2, threads: 1, eval_steps: 40}\n"
        "evaluation: {bootstrap_samples: 100}\n"
    )
    (folder / "chat.yaml").write_text(recipe, encoding="utf-8")
    assert main(["train", "chat.yaml"]) == 0
    capsys.readouterr()
    for question, answer in (("1+1", "two"), ("3+3", "six")):
        assert main(["generate", "runs/chat", question, "--max_new_tokens", "10"]) == 0
        assert capsys.readouterr().out.strip() == answer
    assert main(["generate", "runs/chat", "1+1", "--num_beams", "2", "--max_new_tokens", "10"]) == 0
    assert capsys.readouterr().out.strip() == "two"
    found = json.loads((folder / "runs" / "chat" / "scores.json").read_text(encoding="utf-8"))["samples"]["metrics"]
    assert found["copies"] > 0.5  # the answers are those of the training
    assert found["rouge1"] > 0.3
    data = (folder / "runs" / "chat" / "data.json").read_text(encoding="utf-8")
    assert "are cut" not in data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "runs/small", "x", "--nonsense", "1"], "--nonsense is no field of GenerationConfig"),
        (["generate", "runs/small", "x", "--temperature", "-1"], "temperature"),
        (["generate", "runs/small", "x", "--max_length", "9"], "with --max_new_tokens"),
        (["generate", "runs/small", "x", "--num_beams", "four"], "generation settings"),
        (["generate", "runs/small", "x", "--seed", "1", "y"], "one prompt is needed, not 2"),
        (["generate", "embedded:mini-bert-ko", "x"], "reads in both directions"),
        (
            [
                "train",
                "small.yaml",
                "--name",
                "e",
                "--model",
                "{family: decoder, model_name_or_path: embedded:mini-bert-ko}",
            ],
            "reads in both directions",
        ),
        (["train", "prompted.yaml", "--model.lora.rank", "4"], "lora is for tuning lora"),
        (["evaluate", "runs/none", "--data", "texts.txt", "--output", "none"], "no such run or model directory"),
        (["generate", "runs/small", "x", "--max_new_tokens", "0"], "a whole number is needed, one or more"),
        (["generate", "runs/none", "x"], "no such run or model directory"),
        (["generate", "runs/small", "--input", "prompts.csv"], "--input FILE with --output FILE"),
        (["predict", "runs/small", "x"], "it writes text, it has no labels"),
        (["train", "small.yaml", "--task", "classify"], "learns to generate; the task is classify"),
        (["train", "small.yaml", "--data.labels", "{a: a, b: b}"], "needs no labels"),
        (["pretrain", "small.yaml", "--model", "{family: tfidf}"], "is for models of family decoder, recurrent,"),
        (["train", "small.yaml", "--text.subword_sampling_alpha", "0.2"], "not for generate"),
        (["train", "prompted.yaml", "--data.messages_column", "m"], "leave prompt_column"),
        (["train", "prompted.yaml", "--data.prompt_column", "none", "--name", "z"], "no column 'none'"),
        (["train", "prompted.yaml", "--name", "x", "--text.max_length", "400"], "more than the 48 positions"),
    ],
)
def test_a_users_error_is_one_line(capsys, arguments, message):
    assert message in fails(capsys, *arguments)


def test_bad_chats_name_their_row(folder, capsys):
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    bad = {"messages": [{"role": "user", "content": None}]}
    lines = "".join(json.dumps(chat) + "\n" for chat in [good] * 3 + [bad])
    (folder / "bad.jsonl").write_text(lines, encoding="utf-8")
    flags = ("--data", "{train_file: bad.jsonl, messages_column: messages}")
    assert "bad.jsonl, row 4: a chat is a list of messages" in fails(
        capsys, "train", "small.yaml", "--name", "y", *flags
    )
