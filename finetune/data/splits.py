"""`Splits`: clean, labelled, fingerprinted training, validation and test rows, and an account of them.

Text to pretrain on has no labels; all else is the same.
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from finetune.data.columns import check_columns
from finetune.data.exercises import EXERCISES, make_rows
from finetune.data.sources import FileOptions, embedded_file, read_file, read_hub
from finetune.errors import UserError
from finetune.recipe import EMBEDDED_PREFIX, FILE_FORMATS, TEXT_FORMATS, TEXT_TASKS, Data, Task

Indices = NDArray[np.int64]
Keys = NDArray[np.uint64]
SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """Three data sets with the columns id, text, label (and text_pair, or prompt), and the account of them.

    `label` is an index into `labels`, or a 1.0 or 0.0 for each of them, or a rating, or missing; `label_values` are the
    values that the data has for them. `leaked_test_ids` are the test rows whose text, after normalisation, also stands
    in training or validation.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset
    labels: list[str]
    label_values: dict[str, str]
    leaked_test_ids: frozenset[str]
    report: dict[str, Any]

    def __getitem__(self, split: str) -> datasets.Dataset:
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


def load_splits(data: Data, task: Task = "classify") -> Splits:
    """Read, clean, label and split the rows that a recipe's `data` section describes.

    Where the `task` is to rate, `label` is a number, and there are no label names; for multi_label it holds a number
    for each label. Text to learn from has no labels at all. Chats stand in `text` as JSON.

    Raises:
        UserError: anything in the data that the user has to mend, with file and row.
    """
    sources = _sources(data)
    more_files = [Path(file) for file in data.more_train_files]
    whole, dropped, labels = _whole_splits(data, task, sources, more_files)
    rows = dict(whole)
    if data.train_part is not None:
        rows["train"] = _part(rows["train"], data.train_part)
    limits = (data.max_train_rows, data.max_validation_rows, data.max_test_rows)
    for split, limit in zip(SPLIT_NAMES, limits, strict=True):
        if limit is not None and limit < len(rows[split]):
            seed = data.train_sample_seed if split == "train" else None
            order = stratified_order(_strata(rows[split]), data.split_seed if seed is None else seed)
            rows[split] = rows[split].select(np.sort(order[:limit]))
    names = list(labels.names) if labels is not None else []
    for split in SPLIT_NAMES:
        if len(rows[split]) == 0:
            raise UserError(f"the {split} split has no rows; give more data or another fraction")
    counts = label_counts(rows["train"], len(names)) if names else ()
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        raise UserError(f"no training row has the label {', '.join(map(repr, absent))}; give rows or leave it out")
    if data.leaked_test_rows == "drop":
        # Against all training rows: a smaller sample of them must not have other test rows.
        _, leaked = _overlap({**whole, "test": rows["test"]})
        kept = [number for number, row_id in enumerate(column(rows["test"], "id")) if row_id not in leaked]
        if not kept:
            raise UserError("every test row's text stands in train or validation too; give other test rows")
        rows["test"] = rows["test"].select(kept)
        dropped.setdefault("test", {})["leaked"] = len(leaked)
    overlap, leaked = _overlap(rows)
    report = {
        "source": data.dataset_name or "local files",
        "revision": data.dataset_revision,
        "files": {split: {"name": source.name, "sha256": _file_sha256(source)} for split, source in sources.items()
                  if isinstance(source, Path)},
        **({"more_train_files": [{"name": file.name, "sha256": _file_sha256(file)} for file in more_files]}
           if more_files else {}),
        "labels": names,
        "splits": {split: _describe(rows[split], names, dropped.get(split, {})) for split in SPLIT_NAMES},
        "set_aside_from_train": [split for split in ("validation", "test") if split not in sources],
        **overlap,
    }  # fmt: skip
    values = labels.values() if labels is not None else {}
    return Splits(rows["train"], rows["validation"], rows["test"], names, values, leaked, report)


_kept: dict[tuple[str, Task, tuple[tuple[int, int], ...]], "_Whole"] = {}
"""The rows that were read last, by what they were read from."""


def _whole_splits(data: Data, task: Task, sources: "Mapping[str, _Source]", more_files: Sequence[Path]) -> "_Whole":
    """All rows, cleaned and split, what was dropped, and what the labels mean.

    What was read last is kept: a learning curve takes samples of the same rows many times over.
    """
    of_samples = {
        "train_part",
        "max_train_rows",
        "train_sample_seed",
        "max_validation_rows",
        "max_test_rows",
        "leaked_test_rows",
    }
    paths = [source for source in (*sources.values(), *more_files) if isinstance(source, Path)]
    states = [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.exists()]
    key = (data.model_dump_json(exclude=of_samples), task, tuple(states))
    if key not in _kept:
        read = _read_and_split(data, task, sources, more_files)
        _kept.clear()
        _kept[key] = read
    rows, dropped, labels = _kept[key]
    return dict(rows), {split: dict(counts) for split, counts in dropped.items()}, labels


def _read_and_split(data: Data, task: Task, sources: "Mapping[str, _Source]", more_files: Sequence[Path]) -> "_Whole":
    raw = {split: _read(data, task, source) for split, source in sources.items()}
    more = [_read(data, task, file) for file in more_files]
    labels = _targets(data, task, [raw["train"], *more], str(sources["train"]))
    rows: dict[str, datasets.Dataset] = {}
    dropped: dict[str, dict[str, int]] = {}
    for split, dataset in raw.items():
        rows[split], dropped[split] = _clean(dataset, split, data, labels, str(sources[split]))
    for number, (file, further_raw) in enumerate(zip(more_files, more, strict=True), start=2):
        # Row numbers, and the ids made of them, are each file's own.
        further, left_out = _clean(further_raw, f"train{number}", data, labels, str(file))
        rows["train"] = datasets.concatenate_datasets([rows["train"], further])
        dropped["train"]["empty"] += left_out["empty"]
    if more_files and data.id_column:
        _check_ids(rows["train"], data.id_column, f"{sources['train']} and {', '.join(map(str, more_files))} together")
    _carve(rows, "test", data.test_fraction, data.split_seed)
    _carve(rows, "validation", data.validation_fraction, data.split_seed + 1)
    return rows, dropped, labels


def load_rows(data: Data, task: Task = "classify") -> tuple[datasets.Dataset, list[str], dict[str, int]]:
    """The rows of `data.train_file` as they are, nothing set aside: (rows, label names, what was dropped).

    Raises:
        UserError: anything in the file that the user has to mend.
    """
    source = Path(str(data.train_file))
    raw = _read(data, task, source)
    labels = _targets(data, task, [raw], str(source))
    rows, dropped = _clean(raw, "row", data, labels, str(source))
    if len(rows) == 0:
        raise UserError(f"{source}: no row has a text")
    return rows, list(labels.names) if labels is not None else [], dropped


def load_file(data: Data, file: Path, task: Task = "classify") -> datasets.Dataset:
    """The rows of one file, read with the columns and the label names of `data` (whose own sources are not read).

    Raises:
        UserError: anything in the file that the user has to mend.
    """
    labels: _Labels | _Ratings | None = None if task in TEXT_TASKS else _Ratings()
    if task in ("classify", "multi_label"):
        assert data.labels is not None
        names = tuple(dict.fromkeys(data.labels.values()))
        kind = _Labels if task == "classify" else _LabelSets
        labels = kind(names, {value: names.index(name) for value, name in data.labels.items()})
    rows, _ = _clean(_read(data, task, file), "data", data, labels, str(file))
    if len(rows) == 0:
        raise UserError(f"{file}: no row has a text")
    return rows


def further_column(data: Data, splits: Splits, split: str, name: str, task: Task = "classify") -> list[str]:
    """A column of the user's data that the splits do not have, as texts in the order of a split's rows.

    What is absent is an empty text.

    Raises:
        UserError: the data has no such column, or lists or objects in it.
    """
    sources = _sources(data)
    whence = split if split in sources else "train"
    held = {whence: sources[whence]}
    if whence == "train":
        held |= {f"train{number}": Path(file) for number, file in enumerate(data.more_train_files, start=2)}
    values: dict[str, str] = {}
    for prefix, source in held.items():
        rows = _read(data, task, source)
        check_columns(source, rows.column_names, [name])
        if not isinstance(rows.features[name], datasets.Value | datasets.ClassLabel):
            raise UserError(f"{source}: the column {name!r} holds lists or objects; one value per row is needed")
        texts = [_label_value(value) or "" for value in column(rows, name)]
        if isinstance(rows.features[name], datasets.ClassLabel):
            texts = [rows.features[name].names[int(text)] if text else "" for text in texts]
        ids = column(rows, data.id_column) if data.id_column else [f"{prefix}-{n}" for n in range(len(rows))]
        values |= {str(row_id): text for row_id, text in zip(ids, texts, strict=True)}
    return [values[row_id] for row_id in column(splits[split], "id")]


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _NamedSplit:
    """A split of a data set of the Hub, or of an exercise that is made here."""

    name: str
    split: str

    def __str__(self) -> str:
        return f"{self.name}, split {self.split}"


_Source = Path | _NamedSplit


def _sources(data: Data) -> dict[str, _Source]:
    name = data.dataset_name
    if name is None:
        files = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
        return {split: Path(file) for split, file in files.items() if file is not None}
    if name.startswith(EMBEDDED_PREFIX):
        embedded = name.removeprefix(EMBEDDED_PREFIX)
        if embedded in EXERCISES:
            return {split: _NamedSplit(name, split) for split in SPLIT_NAMES}
        return {split: embedded_file(embedded, split) for split in SPLIT_NAMES}
    splits = {"train": data.train_split, "validation": data.validation_split, "test": data.test_split}
    return {split: _NamedSplit(name, named) for split, named in splits.items() if named is not None}


def _read(data: Data, task: Task, source: _Source) -> datasets.Dataset:
    label_columns = () if task in TEXT_TASKS else data.label_columns or (data.label_column,)
    text_columns = (data.messages_column or data.text_column, data.text_pair_column, data.prompt_column)
    columns = [name for name in (data.id_column, *text_columns, *label_columns) if name is not None]
    if isinstance(source, Path):
        file_format = "text" if task in TEXT_TASKS and _is_text(data, source.name) else data.file_format
        return read_file(source, FileOptions(file_format, data.encoding, data.quoting), columns)
    if source.name.startswith(EMBEDDED_PREFIX):
        rows = make_rows(source.name.removeprefix(EMBEDDED_PREFIX), source.split)
    else:
        rows = read_hub(source.name, data.dataset_config_name, data.dataset_revision, source.split)
    for column in columns:
        if column not in rows.column_names:
            raise UserError(f"{source}: no column {column!r} among {', '.join(rows.column_names)}")
    return rows


def _is_text(data: Data, name: str) -> bool:
    """Whether a file without labels is text, a line each: with labels a .txt is a table (NSMC's is)."""
    return data.file_format == "text" or (data.file_format == "auto" and name.lower().endswith(TEXT_FORMATS))


# --- labels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Labels:
    """Label values of the data -> indices into names."""

    names: tuple[str, ...]
    index: dict[str, int]

    @property
    def feature(self) -> Any:
        return datasets.Value("int64")

    def values(self) -> dict[str, str]:
        return {value: self.names[i] for value, i in self.index.items()}

    def target(self, value: str) -> int | None:
        return self.index.get(value)

    def refusal(self, value: str) -> str:
        return f"the label {value!r} is not among {', '.join(self.index)}; mend the row or data.labels"


@dataclass(frozen=True)
class _LabelSets(_Labels):
    """Label values of the data -> indices into names, of which a row has any number."""

    @property
    def feature(self) -> Any:
        return datasets.List(datasets.Value("float32"))

    def targets(self, values: Sequence[str], where: str) -> list[float]:
        """1.0 for each label of a row, 0.0 for the others, in the order of the names."""
        row = [0.0] * len(self.names)
        for value in values:
            if value not in self.index:
                raise UserError(f"{where}: {self.refusal(value)}")
            row[self.index[value]] = 1.0
        return row


@dataclass(frozen=True)
class _Ratings:
    """Labels that are numbers, to be rated."""

    names: tuple[str, ...] = ()

    @property
    def feature(self) -> Any:
        return datasets.Value("float64")

    def values(self) -> dict[str, str]:
        return {}

    def target(self, value: str) -> float | None:
        try:
            number = float(value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def refusal(self, value: str) -> str:
        return f"the rating {value!r} is no number; mend the row, or set task classify"


_Whole = tuple[dict[str, datasets.Dataset], dict[str, dict[str, int]], _Labels | _Ratings | None]
"""Rows and what was dropped, by split, and what the labels mean."""


def _targets(data: Data, task: Task, files: Sequence[datasets.Dataset], source: str) -> _Labels | _Ratings | None:
    """What the labels of the training rows mean, over all of their files; None where there are to be none."""
    if task in TEXT_TASKS:
        return None
    if task == "classify":
        return _label_names(data, files, source)
    if task == "multi_label":
        return _label_sets(data, files, source)
    if len(_label_values(data, files)) < 2:
        raise UserError(f"{source}: two different ratings or more are needed in {data.label_column!r}")
    return _Ratings()


def _label_value(value: object) -> str | None:
    """A label as text, so that 1, 1.0, "1" and " 1" are one label; None where there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value).strip() or None


def prompt_text(value: object, names: Mapping[str, str] | None) -> str:
    """A prompt as text, by the name that its value has in `names` if it has one; an absent one is empty."""
    text = _label_value(value) or ""
    return (names or {}).get(text, text)


def _label_values(data: Data, files: Sequence[datasets.Dataset]) -> set[str]:
    raw = {value for rows in files for value in rows.unique(data.label_column)}
    return {text for value in raw if (text := _label_value(value)) is not None}


def _values_of_row(raw: object, separator: str, where: str) -> list[str]:
    """The labels of a cell as texts: of a list, or of a text whose labels are parted; an empty one has none.

    Raises:
        UserError: one of them is empty, or no label at all.
    """
    if isinstance(raw, dict):
        raise UserError(f"{where}: the labels are an object; write them as a list or as one text, a{separator}b")
    if not isinstance(raw, list):
        text = _label_value(raw)
        if text is None:
            return []
        values = [part.strip() for part in text.split(separator)]
        if "" in values:
            raise UserError(f"{where}: an empty label in {text!r}, parted by {separator!r}; mend the row")
        return values
    found = []
    for one in raw:
        value = None if isinstance(one, list | dict) else _label_value(one)
        if value is None:
            raise UserError(f"{where}: {one!r} among the labels is no label; mend the row")
        found.append(value)
    return found


def _columns_of_row(values: Mapping[str, object], where: str) -> list[str]:
    """The columns that hold 1.

    Raises:
        UserError: one holds neither 0 nor 1.
    """
    chosen = []
    for name, raw in values.items():
        value = (_label_value(raw) or "").lower()
        if value not in _BITS:
            said = repr(raw) if value else "nothing"
            raise UserError(f"{where}: the column {name!r} holds {said}, not 0 or 1; mend the row or remove it")
        if _BITS[value]:
            chosen.append(name)
    return chosen


_BITS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def _label_sets(data: Data, files: Sequence[datasets.Dataset], source: str) -> _LabelSets:
    feature = files[0].features[data.label_columns[0] if data.label_columns else data.label_column]
    inner = getattr(feature, "feature", feature)
    class_names = inner.names if isinstance(inner, datasets.ClassLabel) and not data.label_columns else []
    if data.labels is not None:
        names = tuple(dict.fromkeys(data.labels.values()))
        index = {value: names.index(name) for value, name in data.labels.items()}
        index |= {str(i): index[name] for i, name in enumerate(class_names) if name in index and str(i) not in index}
    else:
        names = tuple(data.label_columns or class_names or _set_values(data, files, source))
        index = {str(i) if class_names else name: i for i, name in enumerate(names)}
    if ambiguous := [name for name in names if data.label_separator in name]:
        raise UserError(
            f"{source}: the label {ambiguous[0]!r} holds {data.label_separator!r}, which parts labels; set "
            "data.label_separator to something else"
        )
    return _LabelSets(names, index)


def _set_values(data: Data, files: Sequence[datasets.Dataset], source: str) -> list[str]:
    """The labels that stand in any row, in their order."""
    values: set[str] = set()
    for rows in files:
        for batch in rows.select_columns([data.label_column]).iter(batch_size=10_000):
            for raw in batch[data.label_column]:
                # What is malformed is named with its row when the rows are read.
                parts = raw if isinstance(raw, list) else (_label_value(raw) or "").split(data.label_separator)
                values |= {text for one in parts if (text := _label_value(one)) is not None}
    if len(values) < 2:
        raise UserError(f"{source}: two labels or more are needed in {data.label_column!r}, found {sorted(values)}")
    _refuse_many(values, data, source)
    return _ordered(values)


def _ordered(values: set[str]) -> list[str]:
    """By their numbers where all are numbers."""
    numeric = all(value.lstrip("-").isdecimal() for value in values)
    return sorted(values, key=int) if numeric else sorted(values)


def _refuse_many(values: set[str], data: Data, source: str) -> None:
    if len(values) > 1000:
        raise UserError(
            f"{source}: {len(values)} different labels in {data.label_column!r}; is that the label column? "
            "Set data.label_column"
        )


def _label_names(data: Data, files: Sequence[datasets.Dataset], source: str) -> _Labels:
    feature = files[0].features[data.label_column]
    if not all(isinstance(rows.features[data.label_column], datasets.Value | datasets.ClassLabel) for rows in files):
        raise UserError(
            f"{source}: the column {data.label_column!r} holds lists or objects; one label per row is needed"
        )
    class_names = feature.names if isinstance(feature, datasets.ClassLabel) else []
    if data.labels is not None:
        names = tuple(dict.fromkeys(data.labels.values()))
        index = {value: names.index(name) for value, name in data.labels.items()}
        # A Hub set's own class names may stand for its numbers.
        index |= {str(i): index[name] for i, name in enumerate(class_names) if name in index and str(i) not in index}
        return _Labels(names, index)
    if class_names:
        return _Labels(tuple(class_names), {str(i): i for i in range(len(class_names))})
    values = _label_values(data, files)
    if len(values) < 2:
        raise UserError(f"{source}: two labels or more are needed in {data.label_column!r}, found {sorted(values)}")
    _refuse_many(values, data, source)
    names = tuple(_ordered(values))
    return _Labels(names, {name: i for i, name in enumerate(names)})


# --- cleaning ---------------------------------------------------------------------------------------------------------


def _clean(
    dataset: datasets.Dataset, split: str, data: Data, labels: _Labels | _Ratings | None, source: str
) -> tuple[datasets.Dataset, dict[str, int]]:
    """Rename the columns, map the labels, drop empty texts; count what was dropped."""
    first_row = (
        2 if FILE_FORMATS.get(Path(source).suffix) in ("csv", "tsv", "xlsx") and not _is_text(data, source) else 1
    )
    kinds: dict[str, Any] = {"id": datasets.Value("string"), "text": datasets.Value("string")}
    if labels is not None:
        kinds["label"] = labels.feature
    if data.text_pair_column:
        kinds["text_pair"] = datasets.Value("string")
    if data.prompt_column:
        kinds["prompt"] = datasets.Value("string")
    text_column = data.messages_column or data.text_column

    def convert(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        output: dict[str, list[Any]] = {name: [] for name in kinds}
        for position, number in enumerate(numbers):
            where = f"{source}, row {number + first_row}"
            texts = [batch[c][position] for c in (text_column, data.text_pair_column) if c]
            if data.messages_column:
                texts = [_chat(texts[0], where)]
            if any(text is None or not str(text).strip() for text in texts):
                continue
            if not all(isinstance(text, str) for text in texts):
                raise UserError(f"{where}: the text is {texts[0]!r}, not text; set data.text_column")
            if isinstance(labels, _LabelSets):
                if data.label_columns:
                    held = _columns_of_row({name: batch[name][position] for name in data.label_columns}, where)
                else:
                    held = _values_of_row(batch[data.label_column][position], data.label_separator, where)
                output["label"].append(labels.targets(held, where))
            elif labels is not None:
                output["label"].append(_target(labels, batch[data.label_column][position], where))
            row_id = batch[data.id_column][position] if data.id_column else f"{split}-{number}"
            output["id"].append(str(row_id))
            output["text"].append(texts[0])
            if data.text_pair_column:
                output["text_pair"].append(texts[1])
            if data.prompt_column:
                output["prompt"].append(prompt_text(batch[data.prompt_column][position], data.labels))
        return output

    cleaned = dataset.map(
        convert,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=datasets.Features(kinds),
        # The cache does not see changes in the code that `convert` calls, and cleaning is fast.
        load_from_cache_file=False,
    )
    if data.id_column:
        _check_ids(cleaned, data.id_column, source)
    return cleaned, {"empty": len(dataset) - len(cleaned)}


def _chat(messages: object, where: str) -> str | None:
    """A chat as JSON, in which equal chats are equal; None where the assistant says nothing.

    Raises:
        UserError: it is no list of messages with a role and a content each.
    """
    if messages is None:
        return None
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    ):
        raise UserError(f"{where}: a chat is a list of messages, each with a role and a content that are text")
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        return None
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    return json.dumps(plain, ensure_ascii=False)


def _check_ids(rows: datasets.Dataset, id_column: str, source: str) -> None:
    counts = pc.value_counts(id_array(rows))
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(twice):
        row_id = twice[0].as_py()
        raise UserError(f"{source}: the id {row_id!r} in {id_column!r} stands twice; ids must be unique")


def _target(labels: _Labels | _Ratings, raw: object, where: str) -> int | float:
    value = _label_value(raw)
    if value is None:
        raise UserError(f"{where}: no label; fill it in or remove the row")
    target = labels.target(value)
    if target is None:
        raise UserError(f"{where}: {labels.refusal(value)}")
    return target


# --- splitting --------------------------------------------------------------------------------------------------------


def normalized_key(text: str) -> str:
    """The text without what people vary: NFKC, lower case, letters and digits only.

    A text without a letter or digit is its punctuation, without spaces: "…" is "...", and is not "!!!".
    """
    folded = unicodedata.normalize("NFKC", text).lower()
    return "".join(filter(str.isalnum, folded)) or "".join(folded.split())


def text_keys(rows: datasets.Dataset, *, normalize: bool = True) -> Keys:
    """A 64-bit hash per row of its text (and pair), (n,), by `normalized_key` perhaps; equal texts have equal ones."""
    return np.fromiter((_key(row, normalize=normalize) for row in _iterate(rows)), dtype=np.uint64, count=len(rows))


def _key(row: dict[str, Any], *, normalize: bool) -> int:
    parts = [row["text"], row.get("text_pair") or row.get("prompt") or ""]
    if normalize:
        parts = [normalized_key(part) for part in parts]
    return _hash("\0".join(parts))


def _hash(text: str) -> int:
    """64 bits of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def stratified_order(labels: NDArray[np.number], seed: int) -> Indices:
    """A shuffled order, (n,), of which every prefix has the labels in proportion; prefixes nest by construction."""
    generator = np.random.default_rng(seed)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        position[rows] = (generator.permutation(len(rows)) + generator.random()) / len(rows)
    return np.argsort(position, kind="stable")


def _carve(rows: dict[str, datasets.Dataset], split: str, fraction: float, seed: int) -> None:
    """Set rows of train aside as `split`, stratified; repeats of a text stay together, so that none leaks across."""
    if split in rows:
        return
    train = rows["train"]
    keys, first, inverse = np.unique(text_keys(train), return_index=True, return_inverse=True)
    sizes = np.bincount(inverse, minlength=len(keys))
    order = stratified_order(_strata(train)[first], seed)
    before = np.concatenate([[0], np.cumsum(sizes[order])[:-1]])
    chosen = order[before < round(fraction * len(train))]
    aside = np.isin(inverse, chosen)
    rows[split] = train.select(np.flatnonzero(aside))
    rows["train"] = train.select(np.flatnonzero(~aside))


def _part(train: datasets.Dataset, part: str) -> datasets.Dataset:
    """The rows of a part such as `1/2`, about as many in each: by the text alone, whatever labels or prompts it has."""
    number, count = (int(found) for found in part.split("/"))
    if number > count:
        raise UserError(f"data.train_part {part}: there are {count} parts")
    keys = (_hash(normalized_key(text)) for text in column(train, "text"))
    parts = np.fromiter((key % count for key in keys), dtype=np.int64, count=len(train))
    return train.select(np.flatnonzero(parts == number - 1))


_FREQUENT = 10
"""Rows of a set of labels that make it a stratum of its own."""


def _strata(rows: datasets.Dataset) -> NDArray[np.number]:
    """What to stratify by, (n,): the labels, or one stratum where there are none.

    Rows with several labels go by the set of them where it is frequent, else by the rarest of them.
    """
    if "label" not in rows.column_names:
        return np.zeros(len(rows))
    labels = label_array(rows)
    if labels.ndim == 1 or len(rows) == 0:
        return labels if labels.ndim == 1 else np.zeros(0)
    codes, sizes = label_set_codes(labels)
    frequency = np.where(labels > 0, labels.sum(axis=0), np.inf)
    # Numbers below those of the sets; rows without labels are rows of a kind as well.
    by_rarest = -1 - np.where(labels.any(axis=1), frequency.argmin(axis=1), labels.shape[1])
    return np.where(sizes[codes] >= _FREQUENT, codes, by_rarest)


def label_set_codes(labels: NDArray[Any]) -> tuple[Indices, Indices]:
    """Rows of zeros and ones, (n, labels) -> a number for each set of labels, (n,), and how many rows each has."""
    _, codes, sizes = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    return codes.reshape(-1), sizes


# --- the account ------------------------------------------------------------------------------------------------------


def _overlap(rows: dict[str, datasets.Dataset]) -> tuple[dict[str, Any], frozenset[str]]:
    """Repeats within train, and test rows that stand in train or validation too: exact and normalised."""
    exact = {split: text_keys(rows[split], normalize=False) for split in SPLIT_NAMES}
    normal = {split: text_keys(rows[split]) for split in SPLIT_NAMES}
    seen = np.concatenate([normal["train"], normal["validation"]])
    leaks = np.isin(normal["test"], seen)
    known = np.concatenate([exact["train"], exact["validation"]])
    leaks_exact = np.isin(exact["test"], known)
    ids = column(rows["test"], "id")
    leaked = frozenset(ids[int(i)] for i in np.flatnonzero(leaks))
    report = {
        "repeated_train_rows": len(known) - len(np.unique(known)),
        "leaked_test_rows": {"exact": int(leaks_exact.sum()), "normalized": int(leaks.sum())},
    }
    return report, leaked


def _describe(rows: datasets.Dataset, names: Sequence[str], dropped: dict[str, int]) -> dict[str, Any]:
    account: dict[str, Any] = {}
    if names:
        counts = label_counts(rows, len(names))
        account = {"label_counts": {name: int(count) for name, count in zip(names, counts, strict=True)}}
        if holds_label_sets(rows):
            account["without_labels"] = int((label_array(rows).sum(axis=1) == 0).sum())
    elif "label" in rows.column_names:
        ratings = label_array(rows)
        account = {"ratings": {name: float(getattr(ratings, name)()) for name in ("mean", "std", "min", "max")}}
    return {
        "count": len(rows),
        **account,
        "dropped": dropped,
        "rows_fingerprint": rows_fingerprint(rows, names),
    }


def rows_fingerprint(rows: datasets.Dataset, names: Sequence[str]) -> str:
    """sha256 over ids, texts and label names (or ratings) in order: equal only for the same rows."""
    digest = hashlib.sha256()
    for row in _iterate(rows):
        second = row.get("text_pair", row.get("prompt"))
        label = row.get("label")
        if isinstance(label, list):
            label = [name for name, held in zip(names, label, strict=True) if held]
        fields = [row["id"], row["text"], second, names[label] if names and isinstance(label, int) else label]
        digest.update(json.dumps(fields, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def column(rows: datasets.Dataset, name: str) -> list[Any]:
    """A whole column as a list, read by Arrow: `rows[name]` would go through Python row by row."""
    return rows.select_columns([name]).with_format("arrow")[:][name].to_pylist()


def id_array(rows: datasets.Dataset) -> pa.StringArray:
    """The ids as one Arrow array, (n,)."""
    return pa.array(rows.select_columns(["id"]).with_format("arrow")[:]["id"].combine_chunks(), type=pa.string())


def label_array(rows: datasets.Dataset) -> NDArray[Any]:
    """The label ids, or the ratings as floats, (n,); of label sets zeros and ones, (n, labels), as floats."""
    labels = rows.select_columns(["label"]).with_format("arrow")[:]["label"]
    if not holds_label_sets(rows):
        return labels.to_numpy()
    values = labels.combine_chunks().flatten().to_numpy()
    return values.reshape(len(rows), -1) if len(rows) else values.reshape(0, 0)


def holds_label_sets(rows: datasets.Dataset) -> bool:
    """Whether `label` holds a 1.0 or 0.0 for each label rather than one label, a rating or tokens."""
    feature = rows.features.get("label")
    return isinstance(feature, datasets.List) and getattr(feature.feature, "dtype", None) == "float32"


def label_counts(rows: datasets.Dataset, label_count: int) -> NDArray[np.int64]:
    """How many rows have each label, (labels,)."""
    labels = label_array(rows)
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype=np.int64) if len(labels) else np.zeros(label_count, dtype=np.int64)
    return np.bincount(labels, minlength=label_count)


def _iterate(rows: datasets.Dataset) -> Iterator[dict[str, Any]]:
    for batch in rows.iter(batch_size=10_000):
        columns = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
