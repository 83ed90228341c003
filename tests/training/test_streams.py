"""Truncated backpropagation through time: every token once, the state carried, and cut or not the same training."""

import json

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from command_line import fails
from decoders import TEXTS

from finetune import tasks
from finetune.cli import main
from finetune.evaluation import predict_outputs
from finetune.generate import load_generator
from finetune.models.recurrent import RecurrentConfig
from finetune.models.recurrent_lm import RecurrentForCausalLM
from finetune.text.masking import IGNORED_LABEL
from finetune.text.streams import Streams
from finetune.training.streams import StreamBatches

END = 2
RECIPE = """
name: stream
task: generate
data: {train_file: texts.txt, validation_fraction: 0.1, test_fraction: 0.1}
text: {unit: whitespace, vocabulary_size: 300, min_frequency: 1}
model: {family: recurrent, cell: lstm, embedding_size: 24, hidden_size: 32, num_layers: 2, dropout: 0}
training: {num_train_epochs: 3, batch_size: 8, truncated_bptt: 9, learning_rate: 1e-2, threads: 1, logging_steps: 1}
evaluation: {bootstrap_samples: 100, batch_size: 4}
"""


def documents(*lengths):
    """Documents as `encode_documents` gives them: inputs begin with the end token, labels end with it."""
    generator, rows = np.random.default_rng(0), []
    for number, length in enumerate(lengths):
        tokens = generator.integers(3, 9, length).tolist()
        rows.append({"id": f"d{number}", "row": number, "input_ids": [END, *tokens], "label": [*tokens, END]})
    return datasets.Dataset.from_list(rows)


def build(cell="lstm"):
    torch.manual_seed(0)
    config = RecurrentConfig(
        vocab_size=9, cell=cell, embedding_size=8, hidden_size=12, num_hidden_layers=2, dropout=0.0, pad_token_id=0,
        bos_token_id=END, eos_token_id=END, tie_word_embeddings=True,
    )  # fmt: skip
    return RecurrentForCausalLM(config)


def batches(encoded, **options):
    given = {"length": 5, "batch_size": 4, "micro_batch_size": 4, "rank": 0, "world_size": 1, **options}
    return StreamBatches(encoded, **given)


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_every_token_is_read_once_in_its_order(count):
    encoded = documents(7, 1, 20, 3, 12)
    streams = Streams(encoded, count)
    inputs = [token for row in encoded["input_ids"] for token in row]
    labels = [token for row in encoded["label"] for token in row]
    assert labels[:-1] == inputs[1:]  # one text: each document's end is the next one's beginning
    assert streams.labels[streams.labels != IGNORED_LABEL].tolist() == labels
    assert streams.inputs.ravel()[: len(inputs)].tolist() == inputs
    assert streams.labels.shape == (count, -(-len(inputs) // count))
    assert streams.ends.sum() == 5
    rows = np.concatenate([np.full(len(row), i) for i, row in enumerate(encoded["input_ids"])])
    assert streams.rows.ravel()[: len(rows)].tolist() == rows.tolist()


def test_steps_hold_all_of_it_and_resume_in_the_middle():
    encoded = documents(7, 1, 20, 3, 12)
    whole = batches(encoded)
    steps = list(whole.steps(0))
    assert len(steps) == whole.steps_per_epoch
    assert sum(step.token_count for step in steps) == 43 + 5
    assert sum(step.row_count for step in steps) == 5
    assert whole.row_ids(steps[0].rows)[0] == "d0"
    for late, step in zip(whole.steps(3, first_step=1), steps[1:], strict=True):
        assert torch.equal(late.micro_batches[0]["input_ids"], step.micro_batches[0]["input_ids"])
    parts = [list(batches(encoded, rank=rank, world_size=2, micro_batch_size=1).steps(0)) for rank in (0, 1)]
    for step, *shares in zip(steps, *parts, strict=True):
        rows = [torch.cat([batch["labels"] for batch in share.micro_batches]) for share in shares]
        assert [len(share.micro_batches) for share in shares] == [2, 2]
        together = torch.stack(rows, dim=1).flatten(0, 1)  # the processes take turns
        assert torch.equal(together, step.micro_batches[0]["labels"])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_scored_in_steps_is_scored_in_one_go(cell):
    encoded, model = documents(7, 1, 20, 3, 12), build(cell).eval()
    accelerator = Accelerator(cpu=True)
    found = predict_outputs(model, encoded, None, accelerator, 1, stream_length=5)
    inputs = torch.tensor([token for row in encoded["input_ids"] for token in row])[None]
    labels = torch.tensor([token for row in encoded["label"] for token in row])
    with torch.no_grad():
        logits = model(input_ids=inputs).logits[0]
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
    ends = np.cumsum([len(row) for row in encoded["label"]])
    expected = [part.sum().item() for part in torch.tensor_split(losses, ends[:-1].tolist())]
    assert found[:, 0] == pytest.approx(expected, rel=1e-5)
    assert found[:, 1].sum() == (logits.argmax(dim=-1) == labels).sum()
    cut = predict_outputs(model, encoded, None, accelerator, 3, stream_length=5)
    assert not np.allclose(cut[:, 0], found[:, 0])  # a stream begins without what stands before it
    assert cut[0, 0] == pytest.approx(found[0, 0], rel=1e-5)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    (tmp_path / "stream.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def log(folder, name):
    lines = (folder / "runs" / name / "train_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_reads_its_rows_as_one_text(folder):
    assert main(["train", "stream.yaml"]) == 0
    losses = [record["loss"] for record in log(folder, "stream") if "loss" in record]
    assert losses[-1] < 0.8 * losses[0]
    words = sum(len(text.split()) + 1 for text in TEXTS)
    scores = json.loads((folder / "runs" / "stream" / "scores.json").read_text(encoding="utf-8"))
    held_out = sum(scores["splits"][split]["tokens"] for split in ("validation", "test"))
    assert scores["cost"]["training_tokens"] == 3 * (words - held_out)
    generator = load_generator(str(folder / "runs" / "stream"))
    assert generator.encode("", 5) == [generator.tokenizer.eos_token_id]
    assert generator.generate(["어제 봤는데"], {"max_new_tokens": 30})[0][0].stopped


def test_how_a_step_is_cut_changes_nothing_and_what_is_carried_does(folder, monkeypatch):
    for name, flags in (("whole", []), ("cut", ["--training.micro_batch_size", "2"])):
        assert main(["train", "stream.yaml", "--name", name, *flags]) == 0
    original = tasks.loss_and_state
    monkeypatch.setattr(tasks, "loss_and_state", lambda model, batch, state, criterion: original(model, batch))
    assert main(["train", "stream.yaml", "--name", "forgetful"]) == 0
    losses = {
        name: [record["loss"] for record in log(folder, name) if "loss" in record]
        for name in ("whole", "cut", "forgetful")
    }
    assert losses["cut"] == pytest.approx(losses["whole"], rel=1e-3)
    assert losses["forgetful"][0] == losses["whole"][0]
    assert losses["forgetful"][1] != losses["whole"][1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "{family: decoder, from_scratch: {}}"], "for a recurrent model that generates"),
        (["--data.prompt_column", "prompt"], "reads plain text"),
        (["--model.bidirectional", "true"], "from left to right"),
        (["--model.adaptive_softmax_cutoffs", "[20, 60]"], "need tie_embeddings false"),
        (
            ["--model", "{family: recurrent, tie_embeddings: false, adaptive_softmax_cutoffs: [5000]}"],
            "the vocabulary has 284 tokens only",
        ),
    ],
)
def test_a_users_error_is_one_line(folder, capsys, flags, message):
    assert message in fails(capsys, "train", "stream.yaml", *flags)
