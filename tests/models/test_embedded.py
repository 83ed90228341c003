"""The embedded models: small, complete, what their cards say, and usable without this package."""

import json
import re
import subprocess
import sys

import embed_model
import pytest
import render_cards
import torch
from checkpoints import write_checkpoint
from command_line import fails
from reviews import write_csv
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from finetune.cli import main
from finetune.data.sources import embedded_file
from finetune.errors import UserError
from finetune.recipe import embedded_model, load_recipe
from finetune.text.canary import check_tokenizer

MINI = embedded_model("embedded:mini-bert-ko")
GPT = embedded_model("embedded:mini-gpt-ko")
EMBEDDED = pytest.mark.parametrize("directory", [MINI, GPT], ids=lambda directory: directory.name)
PLAIN = """
import sys
from transformers import pipeline
fill = pipeline("fill-mask", model=sys.argv[1], device="cpu")
assert fill.model.dtype.is_floating_point and fill.model.dtype.itemsize == 4, fill.model.dtype
assert "finetune" not in sys.modules
for answer in fill("배우들 연기가 정말 [MASK]"):
    print(answer["token_str"])
"""


PLAIN_WRITER = """
import sys
from transformers import pipeline
write = pipeline("text-generation", model=sys.argv[1], device="cpu")
assert write.model.dtype.itemsize == 4, write.model.dtype
assert "finetune" not in sys.modules
found = write(["이 영화는"] * 20, max_new_tokens=100, do_sample=True, return_tensors=True)
print(sum(texts[0]["generated_token_ids"][-1] == write.tokenizer.eos_token_id for texts in found))
"""


def test_plain_transformers_loads_it_in_float32_and_fills_masks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(MINI)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 5


def test_plain_transformers_writes_texts_that_end():
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_WRITER, str(GPT)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15


@EMBEDDED
def test_it_is_small_and_half_precise_on_the_disk_alone(directory):
    file = directory / "model.safetensors"
    assert file.stat().st_size <= embed_model.MOST_BYTES
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}
    assert json.loads((directory / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"
    assert AutoModel.from_pretrained(directory).dtype == torch.float32


def test_its_tokenizer_has_koberts_layout_and_reads_korean():
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    assert len(tokenizer) == 8002
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    check_tokenizer(tokenizer, "mini-bert-ko")
    ids = tokenizer("배우들 연기가 정말 좋았어요 ㅋㅋㅋ ㅠㅠ", "두 번째 글")
    assert tokenizer.unk_token_id not in ids["input_ids"]
    assert set(ids["token_type_ids"]) == {0, 1}


@EMBEDDED
def test_its_account_names_no_machine(directory):
    for file in (path for path in (directory / "pretraining").rglob("*") if path.is_file()):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|tmp|work|Users|mnt)/", text), file
        assert not re.search(r"(file|path): \.{0,2}/", text), file
    runs = [path for path in (directory / "pretraining").iterdir() if path.is_dir()]
    assert runs
    for run in runs:
        recipe = load_recipe(str(run / "recipe.yaml"))
        assert recipe.task == ("masked_lm" if directory == MINI else "generate")
        assert recipe.text.tokenizer_name_or_path in ("embedded:mini-bert-ko", None)
        scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
        assert scores["splits"]["test"]["times_scored"] == 1


def test_it_guesses_hidden_tokens_of_text_that_it_has_not_read():
    """The embedded reviews are no part of its training text; a model of unigrams would be right in some 6 of 100."""
    lines = embedded_file("reviews-ko", "test").read_text(encoding="utf-8").splitlines()[1:201]
    texts = [line.split("\t")[1] for line in lines]
    tokenizer, model = AutoTokenizer.from_pretrained(MINI), AutoModelForMaskedLM.from_pretrained(MINI).eval()
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.rand(batch["input_ids"].shape, generator=generator) < 0.15) & (batch["input_ids"] > 4)
    labels = batch["input_ids"][hidden]
    with torch.no_grad():
        logits = model(**{**batch, "input_ids": batch["input_ids"].masked_fill(hidden, 4)}).logits[hidden]
    assert (logits.argmax(dim=-1) == labels).float().mean() > 0.15


@EMBEDDED
def test_its_card_is_what_its_files_say(directory):
    card = render_cards.CARDS / f"{directory.name}.md"
    assert card.read_text(encoding="utf-8") == render_cards.render(card.with_suffix(".md.jinja"))


def test_the_writers_card_has_ten_samples_that_nobody_picked():
    samples = [record["text"] for record in render_cards._json_lines(next(GPT.glob("pretraining/*/samples.jsonl")))]
    assert len(samples) == 10
    assert all(any("가" <= character <= "힣" for character in text) for text in samples)
    card = (render_cards.CARDS / "mini-gpt-ko.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\d+\. ", card, re.MULTILINE)) == 10


def test_recipes_fine_tune_it_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "reviews.csv", 120)
    data = ("--data", "{train_file: reviews.csv}", "--training.num_train_epochs", "1")
    for name in ("quickstart-mini-bert", "quickstart-mini-bert-frozen"):
        assert main(["train", name, *data]) == 0
        run = tmp_path / "runs" / name
        assert "embedded:mini-bert-ko" in (run / "recipe.yaml").read_text(encoding="utf-8")
        assert str(MINI.parent) not in (run / "model" / "config.json").read_text(encoding="utf-8")
        assert main(["predict", f"runs/{name}", "너무 지루하다"]) == 0
    assert "no trained classification head" in fails(capsys, "predict", "embedded:mini-bert-ko", "글")
    assert "there is mini-bert-ko, mini-gpt-ko" in fails(
        capsys, "train", "quickstart-mini-bert", "--name", "x", "--model.model_name_or_path", "embedded:none", *data
    )


def test_only_a_finished_run_is_put_into_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(embed_model, "EMBEDDED", tmp_path / "embedded")
    with pytest.raises(UserError, match="no such run directory"):
        embed_model.main("mini", str(tmp_path / "none"))
    with pytest.raises(UserError, match="which runs is mini made of"):
        embed_model.main("mini")
    (tmp_path / "run").mkdir()
    write_checkpoint(tmp_path / "run" / "model", "bert")
    (tmp_path / "run" / "recipe.yaml").write_text("name: run\n", encoding="utf-8")
    with pytest.raises(UserError, match="not finished"):
        embed_model.main("mini", str(tmp_path / "run"))
    assert not (tmp_path / "embedded").exists()
