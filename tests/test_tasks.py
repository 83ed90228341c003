"""What a batch of labels and a batch of ratings mean for loss, targets and outputs."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES, write_checkpoint
from torch import nn
from torch.nn import functional
from transformers import AutoModelForMaskedLM

from finetune import tasks
from finetune.training.loop import Job, LoopState, _keep_best


class Fixed(nn.Module):
    """A model that says the same whatever it reads."""

    def __init__(self, logits, problem_type):
        super().__init__()
        self.logits = logits
        self.config = SimpleNamespace(problem_type=problem_type)

    def forward(self, **inputs):
        return SimpleNamespace(logits=self.logits)


RATINGS = torch.tensor([1.0, 4.0, 10.0])
GIVEN = torch.tensor([[2.0], [4.5], [7.0]])


def test_the_loss_of_ratings_is_the_summed_squared_error():
    model = Fixed(GIVEN, "regression")
    loss = tasks.loss_sum(model, {"labels": RATINGS})
    assert loss.item() == pytest.approx(functional.mse_loss(GIVEN[:, 0], RATINGS, reduction="sum").item())
    assert tasks.target_count({"labels": RATINGS}) == 3
    assert tasks.outputs(model, {"labels": RATINGS}).tolist() == GIVEN.tolist()


@pytest.mark.parametrize("labels", [RATINGS, torch.tensor([0, 1, 1])])
def test_rows_without_targets_add_nothing(labels):
    none = tasks.without_targets(labels)
    assert none.dtype == labels.dtype
    assert tasks.target_count({"labels": none}) == 0
    logits = torch.zeros(3, 1 if labels.is_floating_point() else 2, requires_grad=True)
    model = Fixed(logits, "regression" if labels.is_floating_point() else "single_label_classification")
    loss = tasks.loss_sum(model, {"labels": none})
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum().item() == 0


def test_collate_keeps_whole_numbers_apart_from_ratings():
    tokenizer = SimpleNamespace(pad_token_id=0)
    columns = {"input_ids": [[1], [2]]}
    assert tasks.collate({**columns, "label": [1, 0]}, tokenizer)["labels"].dtype == torch.long
    assert tasks.collate({**columns, "label": [1.0, 0.5]}, tokenizer)["labels"].dtype == torch.float32


def test_an_undefined_score_never_wins_and_never_blocks():
    training = SimpleNamespace(metric_for_best_model="pearson")
    accelerator = SimpleNamespace(is_main_process=False)
    job = Job(*[None] * 4, training, *[None] * 2, accelerator, *[None] * 2)  # type: ignore[arg-type]
    state = LoopState()
    for state.step, score in enumerate([float("nan"), 0.1, float("nan"), 0.05, 0.3], start=1):
        _keep_best(job, state, {"pearson": score})
    assert (state.best_step, state.best_score) == (5, 0.3)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "kobert"])
def test_a_head_that_sees_the_targets_alone_gives_the_same_loss(architecture, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", architecture)
    model = AutoModelForMaskedLM.from_pretrained(checkpoint, attn_implementation="eager", dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, 200, (3, 9), generator=generator)
    labels = torch.where(torch.rand(3, 9, generator=generator) < 0.4, input_ids, tasks.IGNORED_LABEL)
    assert any(hasattr(model, name) for name in tasks._HEADS)
    batch = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}
    with torch.no_grad():
        logits = model(input_ids=input_ids, attention_mask=batch["attention_mask"]).logits
        seen = tasks._logits(model, batch)[0]
        loss = tasks.loss_sum(model, batch)
        outputs = tasks.outputs(model, batch)
        assert model(input_ids=input_ids, attention_mask=batch["attention_mask"]).logits.shape == logits.shape
    are_targets = labels != tasks.IGNORED_LABEL
    assert seen.shape == (int(are_targets.sum()), logits.shape[-1])
    expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert outputs[:, 0].sum() == pytest.approx(expected.item(), rel=1e-5)
    hits = (logits.argmax(dim=-1) == labels) & are_targets
    assert outputs[:, 1].tolist() == hits.sum(dim=1).tolist()
    assert tasks.target_count(batch) == int(are_targets.sum())


def test_targets_among_tokens_are_counted_with_their_bytes():
    ignored = tasks.IGNORED_LABEL
    rows = datasets.Dataset.from_dict(
        {"label": [[ignored, 2, 3], [ignored], [1, ignored]]},
        features=datasets.Features({"label": datasets.List(datasets.Value("int64"))}),
    )
    assert tasks.target_sizes(rows, np.array([0, 1, 10, 100])).tolist() == [[2, 110], [0, 0], [1, 1]]
    assert tasks.target_sizes(rows.select([2, 0]), np.array([0, 1, 10, 100])).tolist() == [[1, 1], [2, 110]]
