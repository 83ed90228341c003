"""Ten steps of the loop against plain PyTorch."""

import pytest
import torch
from reviews import MODELS
from torch.nn.functional import cross_entropy
from training_setup import prepare, run_loop

from finetune import tasks
from finetune.training.batches import plan_epoch


@pytest.mark.parametrize("family", MODELS)
def test_ten_steps_equal_plain_pytorch(tmp_path, family):
    setup = prepare(tmp_path, family, rows=60, dropout=0.0, max_steps=10, micro_batch_size=8)
    training = setup.recipe.training
    model = setup.fresh_model()
    rows = setup.encoded["train"].to_list()
    plan = [batch for epoch in (0, 1) for batch in plan_epoch(tasks.lengths(setup.encoded["train"]), 8, 50, 42, epoch)]
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    decayed = [p for p in model.parameters() if p.ndim > 1 and id(p) not in embeddings]
    others = [p for p in model.parameters() if p.ndim <= 1 or id(p) in embeddings]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate)
    expected = []
    for number, batch in enumerate(plan[:10]):
        warmup = round(training.warmup_ratio * 10)
        rate = training.learning_rate * (number / warmup if number < warmup else (10 - number) / (10 - warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        longest = max(len(rows[i]["input_ids"]) for i in batch)
        ids = torch.tensor([rows[i]["input_ids"] + [1] * (longest - len(rows[i]["input_ids"])) for i in batch])
        labels = torch.tensor([rows[i]["label"] for i in batch])
        model.train()
        loss = cross_entropy(model(input_ids=ids, attention_mask=(ids != 1).long()).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
        optimizer.step()
        expected.append((loss.item(), norm.item(), rate))

    records = run_loop(setup)
    assert len(records) == 10
    for record, (loss, norm, rate) in zip(records, expected, strict=True):
        assert record["loss"] == pytest.approx(loss, rel=1e-5)
        assert record["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert record["learning_rate"] == pytest.approx(rate, rel=1e-12)
