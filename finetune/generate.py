"""The one way to let a trained decoder write: a run directory or a model becomes `generate(prompts)`."""

import collections.abc
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from threading import Event
from typing import Any, cast

import datasets
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
)

from finetune.data.sources import FileOptions, read_file
from finetune.data.splits import prompt_text
from finetune.errors import UserError
from finetune.models import SAMPLING_FIELDS, is_encoder_decoder, load_writer, max_positions
from finetune.predict_file import check_output, fingerprint, sha256, write_in_chunks
from finetune.run import run_of
from finetune.text import load_tokenizer
from finetune.text.causal import chat_ids, prompt_ids

_NEW_TOKENS = 100
_WORD_TOKENS = 6
"""The most tokens of a word that is suggested."""
_REAL = ("temperature", "top_p", "repetition_penalty", "length_penalty", "encoder_repetition_penalty", "guidance_scale")
_NOT_HERE = {
    "max_length": "say how many tokens are to be written with --max_new_tokens",
    "return_dict_in_generate": "what is written comes as text",
}


Prompt = str | Sequence[Mapping[str, str]]
"""What is written after: a text, or the messages of a chat so far."""


@dataclass(frozen=True)
class Written:
    """What was written after a prompt."""

    text: str
    tokens: int
    """How many tokens it has, the end token included."""
    stopped: bool
    """Whether the model ended it by itself, rather than at the limit."""


@dataclass(frozen=True)
class Suggestion:
    """A word to go on with, with the space before it if there is one, and how likely it is."""

    text: str
    probability: float


@dataclass(frozen=True)
class _Spelling:
    """Of each token how the tokenizer spells it; whether it begins a word or ends the text; whether it is no text."""

    tokens: list[str]
    begins_word: Tensor
    is_none: Tensor


@dataclass(frozen=True)
class Generator:
    """A trained decoder with its tokenizer; `chats` means that a prompt is the user's message in a chat."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chats: bool = False
    batch_size: int = 32
    labels: Mapping[str, str] = field(default_factory=dict)
    """Values of prompt columns and what they were called in training."""

    @property
    def has_encoder(self) -> bool:
        """Whether prompts are read by an encoder, and what is written does not begin with them."""
        return is_encoder_decoder(self.model)

    @property
    def answers(self) -> bool:
        """Whether what is written answers its prompt, rather than going on with it."""
        return self.chats or self.has_encoder

    def generate(
        self, prompts: Sequence[Prompt], options: Mapping[str, Any] | None = None, *, seed: int | None = None
    ) -> list[list[Written]]:
        """For each prompt what was written after it: `num_return_sequences` of them, one unless `options` ask for more.

        `options` are fields of transformers' GenerationConfig. Prompts of like length share a batch, so that there is
        little padding; padding changes nothing. Equal seeds write the same, given the same prompts and batch size.

        Raises:
            UserError: options that do not exist or do not go together.
        """
        config, new_tokens = self.configuration(options or {})
        encoded = [self.encode(prompt, new_tokens) for prompt in prompts]
        # Near the end of the context a prompt leaves less room; none must lose some to a longer one in its batch.
        rooms = [self._room(ids, new_tokens) for ids in encoded]
        order = sorted(range(len(prompts)), key=lambda i: (rooms[i], len(encoded[i])))
        written: list[list[Written]] = [[] for _ in prompts]
        if seed is not None:
            set_seed(seed)
        for room, rows in groupby(order, key=lambda i: rooms[i]):
            for batch in _batched(rows, self.batch_size):
                for row, texts in zip(batch, self._write([encoded[i] for i in batch], config, room), strict=True):
                    written[row] = texts
        return written

    def suggest(self, prompt: str, count: int = 5) -> list[Suggestion]:
        """The likeliest words to go on with, the likeliest first, fast enough to be asked for while one types.

        Behind a prompt that ends in a space a word begins; else its last word is taken for the beginning of one, and
        read anew: the tokens of a part are often not part of the tokens of the whole. A word's probability is that of
        its tokens one after the other and of its ending there (a word's beginning or the text's end comes next), among
        all words that begin as typed, as far as they were looked at: the beginnings that are likeliest, so that of
        words with several tokens a likely one may be missed.

        Raises:
            UserError: a model that does not go on with a text.
        """
        if self.answers:
            raise UserError("words to go on with are a language model's to suggest; this one answers prompts")
        spelt, begins_word = self._spelling.tokens, self._spelling.begins_word
        before = self.encode(prompt.rstrip(), _WORD_TOKENS)
        kept = len(before)
        if prompt and not prompt[-1].isspace():
            starts = [place for place in range(1, kept) if begins_word[before[place]]]
            kept = starts[-1] if starts else kept
        typed = "".join(spelt[token] for token in before[kept:])
        before = before[:kept]
        open_words = [(0.0, list[int](), typed)]
        found: list[Suggestion] = []
        typed_mass, most = 0.0, min(2 * count, len(spelt))
        for place in range(_WORD_TOKENS + 1):
            logits = self._next_logits([[*before, *tokens] for _, tokens, _ in open_words])
            going_on: list[tuple[float, list[int], str]] = []
            for (chance, tokens, rest), of_next in zip(open_words, logits.log_softmax(dim=-1), strict=True):
                if tokens and not rest:
                    text = self._added(prompt.rstrip(), [*before, *tokens])
                    if text:
                        found.append(Suggestion(text, math.exp(chance + float(of_next[begins_word].logsumexp(dim=0)))))
                allowed = (begins_word if place == 0 else ~begins_word) & ~self._spelling.is_none
                if rest:
                    ends = torch.tensor([token.startswith(rest) for token in spelt], device=allowed.device)
                    goes_on = torch.tensor([rest.startswith(token) for token in spelt], device=allowed.device)
                    typed_mass += math.exp(chance) * float(of_next[allowed & ends].exp().sum())
                    allowed = allowed & (ends | goes_on)
                best = of_next.masked_fill(~allowed, -math.inf).topk(most)
                for more, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                    if more > -math.inf:
                        going_on.append((chance + more, [*tokens, token], rest[len(spelt[token]) :]))
            found = sorted(found, key=lambda word: -word.probability)[:count]
            # No word that has yet to end is likelier than its beginning.
            least = found[-1].probability if len(found) == count else 0.0
            open_words = [word for word in sorted(going_on, key=lambda word: -word[0]) if math.exp(word[0]) > least]
            open_words = open_words[: 2 * count]
            if not open_words:
                break
        whole = typed_mass if typed else 1.0
        return [Suggestion(word.text, min(1.0, word.probability / whole)) for word in found]

    def _added(self, prompt: str, ids: Sequence[int]) -> str:
        """What the text of tokens has behind the prompt; nothing where it does not begin with it."""
        text = self._decode(ids)
        return text[len(prompt) :] if text.startswith(prompt) else ""

    @cached_property
    def _spelling(self) -> _Spelling:
        """How the tokenizer spells; where no token shows that a word begins, each is one. Told once: keys are quick."""
        tokens = list(self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer)))))
        kind = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]["type"]
        if kind == "WordPiece":
            begins = [not token.startswith("##") for token in tokens]
            tokens = [token.removeprefix("##") for token in tokens]
        elif any(token.startswith(("▁", "Ġ")) for token in tokens):
            begins = [token.startswith(("▁", "Ġ", "Ċ")) for token in tokens]
        else:
            begins = [True] * len(tokens)
        is_special = [False] * len(tokens)
        for token in self.tokenizer.all_special_ids:
            tokens[token], begins[token], is_special[token] = "", True, True
        # Embeddings beyond the tokens are spelt as nothing, and are no part of a word either.
        embeddings: Any = self.model.get_input_embeddings()
        beyond = len(embeddings.weight) - len(tokens)
        device = self.model.device
        return _Spelling(
            [*tokens, *[""] * beyond],
            torch.tensor([*begins, *[False] * beyond], device=device),
            torch.tensor([*is_special, *[True] * beyond], device=device),
        )

    def _next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Of token ids of one length, the logits of what comes next, (rows, vocabulary)."""
        model: Any = self.model
        with torch.inference_mode():
            ids = torch.tensor(rows, device=model.device)
            logits: Tensor = model(input_ids=ids, logits_to_keep=1).logits[:, -1].float().clone()
        return logits

    def prompt_of(self, value: object) -> Prompt:
        """A value of a prompt column as training read it: a text or number, renamed perhaps, or a chat so far."""
        if self.chats and isinstance(value, list):
            return value
        return prompt_text(value, self.labels)

    def stream(self, prompt: str, options: Mapping[str, Any] | None = None, *, seed: int | None = None) -> None:
        """Print what is written after a prompt while it is written, the prompt first.

        Raises:
            UserError: options that do not exist or do not go together.
        """
        config, new_tokens = self.configuration(options or {})
        if seed is not None:
            set_seed(seed)
        ids = self.encode(prompt, new_tokens)
        streamer = TextStreamer(self.tokenizer, skip_prompt=self.answers, skip_special_tokens=True)
        self._write([ids], config, self._room(ids, new_tokens), streamer)

    def pieces(
        self, prompt: Prompt, options: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> collections.abc.Generator[str, None, None]:
        """What is written after a prompt, a piece for each token; joined they are the text.

        A piece is empty while a word is not done. Closing the iterator stops the writing. Equal seeds write the same,
        unless something else draws random numbers in this process meanwhile.

        Raises:
            UserError: options that do not exist or do not go together.
        """
        config, new_tokens = self.configuration(options or {})
        ids = self.encode(prompt, new_tokens)
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=self.answers, skip_special_tokens=True)
        unwanted = _Unwanted()
        if seed is not None:
            set_seed(seed)

        def write() -> None:
            try:
                self._write([ids], config, self._room(ids, new_tokens), streamer, unwanted)
            finally:
                streamer.on_finalized_text("", stream_end=True)  # whoever waits must not wait for ever

        before = 0 if self.answers else len(self._decode(ids))  # what comes first is the prompt
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writing") as thread:
            writing = thread.submit(write)
            try:
                for piece in streamer:
                    yield piece[before:]
                    before = max(0, before - len(piece))
                writing.result()
            finally:
                unwanted.event.set()

    def configuration(self, options: Mapping[str, Any]) -> tuple[GenerationConfig, int]:
        """The model's own settings with `options` in their place, and the most tokens to be written."""
        known = GenerationConfig().to_dict()
        for name in options:
            if name in _NOT_HERE:
                raise UserError(f"--{name}: {_NOT_HERE[name]}")
            if name not in known and name != "max_new_tokens":
                raise UserError(f"--{name} is no field of GenerationConfig; max_new_tokens, temperature, top_p ... are")
        # Transformers takes 2 for no temperature, and 2.0 for one.
        chosen = {
            name: float(value) if name in _REAL and type(value) is int else value for name, value in options.items()
        }
        new_tokens = chosen.pop("max_new_tokens", _NEW_TOKENS)
        if not isinstance(new_tokens, int) or new_tokens < 1:
            raise UserError(f"--max_new_tokens {new_tokens}: a whole number is needed, one or more")
        if any(name in chosen for name in SAMPLING_FIELDS):
            chosen.setdefault("do_sample", True)
        own = self.model.generation_config.to_dict()
        if not chosen.get("do_sample", own.get("do_sample")):
            own = {name: value for name, value in own.items() if name not in SAMPLING_FIELDS}
        config = GenerationConfig.from_dict({**own, **chosen})
        if config.eos_token_id is None:
            config.eos_token_id = self.tokenizer.eos_token_id
        config.pad_token_id = self.tokenizer.pad_token_id
        config.max_length = None
        try:
            config.validate(strict=True)
        except (ValueError, TypeError) as error:
            raise UserError(f"generation settings: {' '.join(str(error).split())}") from None
        return config, new_tokens

    def encode(self, prompt: Prompt, new_tokens: int) -> list[int]:
        """The tokens of a prompt; of one too long for the model's context the beginning is left out, not the start."""
        if self.chats:
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            ids = chat_ids(messages, self.tokenizer)
        elif self.has_encoder:
            # Cut at its end, as in training; the end token stays.
            most = max_positions(self.model)
            return list(self.tokenizer(str(prompt), truncation=most is not None, max_length=most)["input_ids"])
        else:
            ids = prompt_ids(str(prompt), self.tokenizer)
        positions = max_positions(self.model)
        if positions is None:
            return ids
        # Room for what is to be written, but never less than half of the context for what it goes on from.
        most = max(positions - new_tokens, positions // 2, 1)
        return ids if len(ids) <= most else [ids[0], *ids[len(ids) - most + 1 :]] if most > 1 else ids[-1:]

    def _room(self, ids: Sequence[int], new_tokens: int) -> int:
        """How many tokens can be written after a prompt."""
        positions = max_positions(self.model)
        before = 1 if self.has_encoder else len(ids)
        return new_tokens if positions is None else min(new_tokens, positions - before)

    def _write(
        self,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig,
        new_tokens: int,
        streamer: TextStreamer | None = None,
        unwanted: StoppingCriteria | None = None,
    ) -> list[list[Written]]:
        longest = max(len(ids) for ids in prompts)
        pad = self.tokenizer.pad_token_id
        device = self.model.device
        rows = [[pad] * (longest - len(ids)) + list(ids) for ids in prompts]
        shown = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
        if self.has_encoder:  # padded behind, as in training
            rows = [list(ids) + [pad] * (longest - len(ids)) for ids in prompts]
            shown = [of_row[::-1] for of_row in shown]
        input_ids, mask = torch.tensor(rows, device=device), torch.tensor(shown, device=device)
        try:
            with torch.inference_mode():
                writer: Any = self.model
                output = writer.generate(
                    input_ids=input_ids,
                    attention_mask=mask,
                    generation_config=config,
                    max_new_tokens=new_tokens,
                    tokenizer=self.tokenizer,
                    streamer=streamer,
                    stopping_criteria=None if unwanted is None else StoppingCriteriaList([unwanted]),
                )
        except (ValueError, TypeError) as error:  # settings are checked in many places of transformers
            raise UserError(f"generation settings: {' '.join(str(error).split())}") from None
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        of_each = len(output) // len(prompts)
        texts = [
            # An encoder's prompt is not repeated: there is the token that the decoder starts from.
            self._written([], ids[1:].tolist(), ends)
            if self.has_encoder
            else self._written(prompts[number // of_each], ids[longest:].tolist(), ends)
            for number, ids in enumerate(output)
        ]
        return [texts[i : i + of_each] for i in range(0, len(texts), of_each)]

    def _written(self, prompt: Sequence[int], ids: list[int], ends: Sequence[int]) -> Written:
        end = next((number for number, token in enumerate(ids) if token in ends), None)
        kept = ids if end is None else ids[:end]
        # Decoded behind its prompt: by itself, a first token would lose the space that it begins with.
        before, whole = self._decode(prompt), self._decode([*prompt, *kept])
        is_behind = not self.chats and whole.startswith(before)
        text = whole[len(before) :] if is_behind else self._decode(kept)
        return Written(text, len(kept) + (end is not None), end is not None)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


class _Unwanted(StoppingCriteria):
    """Ends the writing once its event is set: nobody reads on."""

    def __init__(self) -> None:
        self.event = Event()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        done = torch.full((len(input_ids),), self.event.is_set(), dtype=torch.bool, device=input_ids.device)
        return cast("torch.BoolTensor", done)


def _batched(rows: Iterable[int], size: int) -> Iterator[list[int]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


def load_generator(run_or_model: str, revision: str | None = None) -> Generator:
    """The decoder of a run directory, a local model directory, an embedded model or a Hub id.

    Raises:
        UserError: there is none, or it does not write text.
    """
    run, source, chats, labels = run_of(run_or_model), run_or_model, False, dict[str, str]()
    if run is not None:
        recipe = run.recipe()
        run.refuse_word_vectors()
        if recipe.task != "generate":
            raise UserError(
                f"{run.path}: its task is {recipe.task}, it does not write text; `finetune predict` uses it"
            )
        source, chats, labels = run.trained_model(), recipe.data.holds_chats, recipe.data.labels or {}
    model = load_writer(source, revision)
    tokenizer = load_tokenizer(source, revision, generates=True, pairs=is_encoder_decoder(model))
    return Generator(model, tokenizer, chats, labels=labels)


def generate_file(
    run_or_model: str,
    source: Path,
    output: Path,
    prompt_column: str = "prompt",
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
    chunk_rows: int = 256,
) -> int:
    """Write after every prompt of `source`; returns the number of texts.

    `output` gets for each: row (from 0), prompt, text, stopped; with `num_return_sequences` several to a row. A killed
    command goes on where it was, and each chunk of rows is sampled from `seed` and its first row's number.

    Raises:
        UserError: an `output` that exists or cannot be written in its format, or anything wrong with model or file.
    """
    check_output(output)
    rows = read_file(source, FileOptions(), [prompt_column]).select_columns([prompt_column])
    generator = load_generator(run_or_model)
    config, _ = generator.configuration(options or {})

    def write(chunk: datasets.Dataset, start: int) -> pa.Table:
        prompts = [generator.prompt_of(value) for value in chunk[prompt_column]]
        written = generator.generate(prompts, options, seed=None if seed is None else seed + start)
        flat = [(start + i, prompts[i], text) for i, texts in enumerate(written) for text in texts]
        return pa.table(
            {
                "row": [row for row, _, _ in flat],
                "prompt": [prompt for _, prompt, _ in flat],
                "text": [text.text for _, _, text in flat],
                "stopped": [text.stopped for _, _, text in flat],
            }
        )

    claim = {
        "source": sha256(source),
        "model": fingerprint(generator.model),
        "prompt_column": prompt_column,
        "options": dict(options or {}),
        "seed": seed,
    }
    accelerator = Accelerator(cpu=generator.model.device.type == "cpu")
    write_in_chunks(rows, output, claim, chunk_rows, write, "writing", accelerator)
    return len(rows) * (config.num_return_sequences or 1)


def generation_options(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """`[("temperature", "0.8")]` -> `{"temperature": 0.8}`: values as JSON, or as text where they are none."""
    options: dict[str, Any] = {}
    for name, value in pairs:
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = {"True": True, "False": False, "None": None}.get(value, value)
    return options
