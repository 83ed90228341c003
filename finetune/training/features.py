"""The features of a frozen encoder, computed once for all epochs."""

import datasets
import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import tasks
from finetune.models.features import FrozenEncoder, can_be_cut
from finetune.progress import ProgressBar, say
from finetune.recipe import EncoderModel, Recipe


def cut_frozen(
    model: PreTrainedModel,
    recipe: Recipe,
    encoded: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
) -> FrozenEncoder | None:
    """The head of a frozen encoder, to be trained on features; None where every epoch has to read the texts.

    That is where the encoder is trained, where texts or their tokens are others in each epoch, and where the head looks
    at more than one vector of a text, as is tried on a few rows.
    """
    is_frozen = isinstance(recipe.model, EncoderModel) and recipe.model.tuning == "frozen"
    changes = recipe.text.subword_sampling_alpha is not None or bool(recipe.text.noise)
    if not is_frozen or changes or not can_be_cut(model):
        return None
    cut = FrozenEncoder(model.to(accelerator.device))
    few = encoded.select(range(min(len(encoded), 4)))
    batch = tasks.collate(few.select_columns(tasks.input_columns(few))[:], tokenizer)
    if cut.says_the_same(send_to_device(_inputs(batch), accelerator.device)):
        return cut
    say(
        f"{recipe.name}: {type(model).__name__} looks at more than one state of a text, so each epoch reads all texts",
        main_process=accelerator.is_main_process,
    )
    return None


def with_features(
    cut: FrozenEncoder,
    encoded: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    batch_size: int,
    split: str,
) -> datasets.Dataset:
    """The rows with `features`, (hidden,) in float32, in place of tokens; ids, lengths and labels stay.

    So the order of batches, which goes by lengths, stays too. Every process computes all of them, in the same batches.
    They are held in memory: 3 KiB for a row of a base model.
    """
    order = np.argsort(tasks.lengths(encoded), kind="stable")
    columns = encoded.select_columns(tasks.input_columns(encoded))
    found: np.ndarray | None = None
    cut.eval()
    with ProgressBar(f"features of {split}", len(order), main_process=accelerator.is_main_process) as bar:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = send_to_device(_inputs(tasks.collate(columns[indices.tolist()], tokenizer)), accelerator.device)
            with accelerator.autocast():
                features = cut.features(batch).float().cpu().numpy()
            if found is None:
                found = np.empty((len(order), features.shape[1]), dtype=np.float32)
            found[indices] = features
            bar.advance(len(indices))
    assert found is not None
    kept = encoded.select_columns([name for name in ("id", "length", "label") if name in encoded.column_names])
    values = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1])
    return datasets.concatenate_datasets([kept, datasets.Dataset(pa.table({"features": values}))], axis=1)


def _inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}
