"""Rows for causal language models: what is read, what is learnt from it, and how a long document is cut.

A row is a document (the start token, the text, the end token), a prompt and what follows it, or a chat. The inputs are
all tokens but the last, the labels the same tokens one place on, so that each place names the token to be found there.
Nothing is learnt of the start token, of a prompt, or of what others than the assistant say. The end token is learnt
like any other: it is how a model knows when to stop. A document longer than the model's context is cut into windows,
each of which begins with the last token of the one before, so that every token is a target once. Rows never share
a sequence, so that no document sees another; batches of like length have little padding to spare.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
from jinja2.exceptions import TemplateError
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from finetune.errors import UserError
from finetune.text.masking import IGNORED_LABEL

SIZES = ("tokens", "bytes", "characters", "unknown_bytes")
"""What is counted of a document's targets; `unknown_bytes` are those of text that became unknown tokens."""


KOGPT2_SPECIALS = {
    "bos_token": "</s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
"""KoGPT2's special tokens, as its authors give them (README of SKT-AI/KoGPT2); its files do not name them."""
_KOGPT2_VOCABULARY = ("<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>")


@dataclass(frozen=True)
class Part:
    """A part of a row: its tokens, the characters that each stands for, and whether they are learnt."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    text: str
    is_target: bool
    is_cut: bool = False
    """Whether tokens are left out at its end."""


def is_kogpt2(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a vocabulary is KoGPT2's while its special tokens are not."""
    ids = tokenizer.convert_tokens_to_ids(list(_KOGPT2_VOCABULARY))
    return ids == list(range(len(_KOGPT2_VOCABULARY))) and tokenizer.eos_token != KOGPT2_SPECIALS["eos_token"]


def for_generation(tokenizer: PreTrainedTokenizerBase, *, joined: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer, made fit for a decoder: it has an end token and begins texts, but does not end them.

    A tokenizer made for encoders has [CLS] and [SEP]; they serve as the start and the end. A prompt must not end in the
    end token, after which a model has nothing left to say. Padding goes to the left, where a batch of prompts needs it.
    Where texts are `joined` into one, a text begins with the end token of the one before it.

    Raises:
        UserError: there is neither an end token nor one that could serve as such, or no fast tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError("task generate needs a fast tokenizer (tokenizer.json); this one is slow")
    if tokenizer.eos_token is None:
        if tokenizer.sep_token is None:
            raise UserError("the tokenizer has no end token, so a model could never learn to stop; use another one")
        tokenizer.eos_token = tokenizer.sep_token
        if tokenizer.bos_token is None:
            tokenizer.bos_token = tokenizer.cls_token
    if joined:
        tokenizer.bos_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked and never a target
    tokenizer.padding_side = "left"
    tokenizer.init_kwargs["padding_side"] = "left"  # what is saved
    if tokenizer("")["input_ids"][-1:] == [tokenizer.eos_token_id] and tokenizer.bos_token is not None:
        bos, bos_id = tokenizer.bos_token, tokenizer.bos_token_id
        backend.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bos_id)])
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def start_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that a text begins with; the end token where there is none, as between documents."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert start is not None
    return int(start)


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a prompt as the model saw prompts in training: one start token, and no end token."""
    ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    start = start_id(tokenizer)
    return ids if ids[:1] == [start] else [start, *ids]


def chat_ids(messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a chat up to where the assistant is to speak."""
    text = _render(messages, tokenizer, "chat", add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_documents(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, *, chats: bool = False
) -> datasets.Dataset:
    """Rows with id and text (and prompt) -> windows: id, row, input_ids, label, length, and `SIZES` of the row.

    `row` is the number of the row that a window is of; the sizes stand in its first window, the others have zeros. Rows
    with a prompt, and chats, are one window each: of a prompt too long the beginning is left out, of an answer, or of
    a chat, the end. Without a `max_length` every document is one window.

    Raises:
        UserError: a chat that the tokenizer's template cannot render.
    """

    def encode(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        windows: dict[str, list[Any]] = {name: [] for name in ("id", "row", "input_ids", "label", "length", *SIZES)}
        rows_in_parts = _row_parts(batch, tokenizer, chats=chats)
        for row_id, number, parts in zip(batch["id"], numbers, rows_in_parts, strict=True):
            is_document = not chats and "prompt" not in batch
            kept = parts if is_document or max_length is None else _fit(parts, max_length, cut_prompt=not chats)
            ids = np.array([token for part in kept for token in part.ids], dtype=np.int64)
            learnt = np.array([part.is_target for part in kept for _ in part.ids], dtype=bool)
            labels = np.where(learnt, ids, IGNORED_LABEL)[1:]
            sizes = sizes_of(kept, tokenizer, int((labels != IGNORED_LABEL).sum()))
            length = max_length or len(labels)
            for start in range(0, len(labels), length):
                windows["id"].append(row_id)
                windows["row"].append(number)
                windows["input_ids"].append(ids[:-1][start : start + length])
                windows["label"].append(labels[start : start + length])
                windows["length"].append(len(windows["label"][-1]))
                for name, size in zip(SIZES, sizes, strict=True):
                    windows[name].append(size if start == 0 else 0)
        return windows

    return rows.map(
        encode, batched=True, with_indices=True, remove_columns=rows.column_names, load_from_cache_file=False
    )


def answers(chat: str) -> list[str]:
    """What the assistant says in a chat, which is JSON."""
    return [message["content"] for message in json.loads(chat) if message["role"] == "assistant"]


def _row_parts(
    batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, *, chats: bool
) -> list[list[Part]]:
    """The parts of each row, special tokens among them."""
    if chats:
        chats_by_row = zip(batch["id"], batch["text"], strict=True)
        texts = [_chat_texts(json.loads(text), tokenizer, row_id) for row_id, text in chats_by_row]
    elif "prompt" in batch:
        texts = [[(p, False), (t, True)] for p, t in zip(batch["prompt"], batch["text"], strict=True)]
    else:
        texts = [[(text, True)] for text in batch["text"]]
    flat = [text for row in texts for text, _ in row]
    # Each part by itself, as a prompt is encoded by itself when the model is used.
    encoded = tokenizer(flat, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    ids, offsets = iter(encoded["input_ids"]), iter(encoded["offset_mapping"])
    rows = []
    for row in texts:
        parts = [Part(next(ids), next(offsets), text, is_target) for text, is_target in row]
        if not chats:  # a template has its own tokens for starts and ends
            start, end = start_id(tokenizer), tokenizer.eos_token_id
            if parts[0].ids[:1] != [start]:
                parts.insert(0, Part([start], [(0, 0)], "", is_target=False))
            parts.append(Part([end], [(0, 0)], "", is_target=True))
        rows.append(parts)
    return rows


def _chat_texts(
    messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase, row_id: str
) -> list[tuple[str, bool]]:
    """A chat as its template writes it, cut where the assistant begins and ends to speak."""
    whole, parts, done = _render(messages, tokenizer, row_id), [], 0
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(messages[:number], tokenizer, row_id, add_generation_prompt=True)
        after = _render(messages[: number + 1], tokenizer, row_id)
        if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
            raise UserError(
                f"row {row_id}: the chat template of this tokenizer writes earlier messages otherwise once later ones "
                "follow, so that what the assistant says cannot be told apart; use chats of one answer each"
            )
        parts += [(whole[done : len(before)], False), (whole[len(before) : len(after)], True)]
        done = len(after)
    return parts


def _render(
    messages: Sequence[Mapping[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    where: str,
    *,
    add_generation_prompt: bool = False,
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except (ValueError, TemplateError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"row {where}: the tokenizer's chat template does not take this chat: {reason}") from None
    assert isinstance(text, str)
    return text


def _fit(parts: Sequence[Part], max_length: int, *, cut_prompt: bool) -> list[Part]:
    """Parts of `max_length` + 1 tokens at most (the last is a label alone), without the middle or the end of a row."""
    too_many = sum(len(part.ids) for part in parts) - (max_length + 1)
    kept = list(parts)
    for number, part in enumerate(kept):
        if part.is_target or not cut_prompt or too_many <= 0:
            break
        first = 1 if number == 0 else 0  # the start token stays
        cut = min(too_many, len(part.ids) - first)
        ids, offsets = part.ids[:first] + part.ids[first + cut :], part.offsets[:first] + part.offsets[first + cut :]
        kept[number] = replace(part, ids=ids, offsets=offsets)
        too_many -= cut
    while too_many > 0:
        part = kept.pop()
        left = max(0, len(part.ids) - too_many)
        if left:
            kept.append(replace(part, ids=part.ids[:left], offsets=part.offsets[:left], is_cut=True))
        too_many -= len(part.ids) - left
    return kept


def sizes_of(parts: Sequence[Part], tokenizer: PreTrainedTokenizerBase, targets: int) -> tuple[int, int, int, int]:
    """`SIZES` of what is learnt of a row."""
    size_in_bytes, characters, unknown = 0, 0, 0
    for part in parts:
        if not (part.is_target and part.ids):
            continue
        # All of the text where all of its tokens are kept: a normalizer may drop what stands at its end.
        text = part.text[: part.offsets[-1][1]] if part.is_cut else part.text
        size_in_bytes += len(text.encode())
        characters += len(text)
        spans = (span for token, span in zip(part.ids, part.offsets, strict=True) if token == tokenizer.unk_token_id)
        unknown += sum(len(part.text[begin:end].encode()) for begin, end in spans)
    return targets, size_in_bytes, characters, unknown
