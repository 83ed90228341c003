"""The data doctor: what is wrong with these rows for this tokenizer, said before any training.

`examine` gives a report of plain JSON values: numbers per split, and findings in three grades. A note is worth knowing,
a warning will colour the scores, an alarm means that something is broken.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from finetune.data import Splits, load_rows, load_splits
from finetune.data.splits import holds_label_sets, id_array, label_array, label_counts, label_set_codes, text_keys
from finetune.recipe import MajorityFloor, Recipe, TfidfFloor
from finetune.text import build_tokenizer, load_tokenizer

Report = dict[str, Any]
_SAMPLE = 20_000
"""Rows per split that are tokenized to find lengths and unknown tokens."""
_EXAMPLES = 5
_GRADES = ("alarm", "warning", "note")
_SCRIPTS = {
    "Hangul": "가-힣ᄀ-ᇿ㄰-㆏ꥠ-꥿ힰ-퟿",
    "Latin": "A-Za-zÀ-ɏ",
    "Han": "㐀-䶿一-鿿豈-﫿",
    "Kana": "぀-ヿ",
    "Cyrillic": "Ѐ-ӿ",
    "Arabic": "؀-ۿ",
    "Thai": "฀-๿",
    "Devanagari": "ऀ-ॿ",
    "Greek": "Ͱ-Ͽ",
}
_SCRIPT_PATTERNS = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
# What is left of text that was read in a wrong encoding: the replacement character and the C1 control codes.
_BROKEN = re.compile("[�\x80-\x9f]")
_LETTER = re.compile(r"[^\W\d_]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# Where a finding changes its grade. Rates are shares of rows or tokens.
_TRUNCATED_WARNING, _TRUNCATED_ALARM = 0.05, 0.5
_UNKNOWN_WARNING, _UNKNOWN_ALARM = 0.01, 0.05
_UNKNOWN_WORDS_WARNING = 0.2
_UNKNOWN_PROMPTS_ALARM = 0.2
_IMBALANCE_WARNING = 10.0
_SECOND_SCRIPT_NOTE, _SECOND_SCRIPT_WARNING = 0.01, 0.05
_BROKEN_WARNING = 0.001
_FEW_TEST_ROWS = 400


def diagnose(recipe: Recipe) -> Report:
    """The report on a recipe's data: by split, or on one file as it is where the recipe names no more than that.

    Raises:
        UserError: anything in the data that the user has to mend before it can be read.
    """
    data, text = recipe.data, recipe.text
    is_floor = isinstance(recipe.model, MajorityFloor | TfidfFloor)
    if is_floor and data.train_file and not (data.validation_file or data.test_file or data.more_train_files):
        rows, labels, dropped = load_rows(data, recipe.task)
        name = text.tokenizer_name_or_path
        tokenizer = load_tokenizer(name) if name is not None else None
        return examine({"rows": rows}, labels, {"rows": dropped}, tokenizer, text.max_length)
    splits = load_splits(data, recipe.task)
    tokenizer = None if is_floor else build_tokenizer(recipe, splits)
    return examine_splits(splits, tokenizer, recipe.text_limit, chats=data.holds_chats)


def examine_splits(
    splits: Splits, tokenizer: PreTrainedTokenizerBase | None, max_length: int, *, chats: bool = False
) -> Report:
    """`examine` for the three splits of a run; of chats what is said in them."""
    rows = {name: splits[name] for name in ("train", "validation", "test")}
    if chats:
        rows = {name: split.map(_said, load_from_cache_file=False) for name, split in rows.items()}
    dropped = {name: splits.report["splits"][name]["dropped"] for name in rows}
    return examine(rows, splits.labels, dropped, tokenizer, max_length)


def _said(row: Mapping[str, Any]) -> dict[str, str]:
    return {"text": "\n".join(message["content"] for message in json.loads(row["text"]))}


def examine(
    rows: Mapping[str, datasets.Dataset],
    labels: Sequence[str],
    dropped: Mapping[str, Mapping[str, int]],
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int,
) -> Report:
    """Look at cleaned rows by split (id, text, label, perhaps text_pair), and at what cleaning dropped.

    Without a tokenizer lengths are counted in characters, and `max_length` plays no part.
    """
    report: Report = {"splits": {}, "findings": []}
    add = report["findings"].append
    exact = {name: text_keys(split, normalize=False) for name, split in rows.items()}
    normal = {name: text_keys(split) for name, split in rows.items()}
    for name, split in rows.items():
        measured = {
            "rows": len(split),
            "empty": dropped.get(name, {}).get("empty", 0),
            "labels": _label_counts(split, labels) if labels else {},
            **({"label_sets": _label_sets(split)} if holds_label_sets(split) else {}),
            "repeats": {"exact": _repeats(exact[name]), "normalized": _repeats(normal[name])},
            "lengths": _lengths(split, tokenizer, max_length),
            "scripts": _scripts(split),
        }
        report["splits"][name] = measured
        for finding in _findings_of_split(name, measured, tokenizer, max_length):
            add(finding)
        if tokenizer is not None and "prompt" in split.column_names:
            for finding in _prompt_findings(name, split, tokenizer):
                add(finding)
    if all("label" in split.column_names for split in rows.values()):
        for finding in _conflicts(rows, exact):
            add(finding)
    report["overlaps"] = {}
    # Validation rows may be carved from train and choose the weights: for the test both are seen.
    for later, earlier in (("validation", ["train"]), ("test", ["train", "validation"])):
        if later in rows:
            overlap = _overlap(exact, normal, report["splits"], earlier, later)
            report["overlaps"][later] = {"in": earlier, **overlap}
            if overlap["normalized"]:
                add(_overlap_finding(earlier, later, overlap, len(rows[later])))
    if "test" in rows and len(rows["test"]) < _FEW_TEST_ROWS:
        add(_few_test_rows(len(rows["test"])))
    report["findings"].sort(key=lambda finding: _GRADES.index(finding["grade"]))
    return report


def _finding(check: str, grade: str, message: str, examples: Sequence[str] = ()) -> dict[str, Any]:
    return {"check": check, "grade": grade, "message": message, "examples": list(examples)[:_EXAMPLES]}


# --- one split --------------------------------------------------------------------------------------------------------


def _findings_of_split(
    name: str, measured: Report, tokenizer: PreTrainedTokenizerBase | None, max_length: int
) -> Iterator[dict[str, Any]]:
    if measured["empty"]:
        yield _finding("empty", "note", f"{name}: {measured['empty']:,} empty rows are left out")
    repeats, count = measured["repeats"], measured["rows"]
    if repeats["normalized"]:
        grade = "warning" if repeats["normalized"] > 0.01 * count else "note"
        yield _finding(
            "repeats",
            grade,
            f"{name}: {repeats['exact']:,} rows repeat another's text, {repeats['normalized']:,} when case, spacing "
            f"and punctuation are ignored ({repeats['normalized'] / count:.1%} of the rows)",
        )
    if (sets := measured.get("label_sets")) is not None:
        yield _finding(
            "labels",
            "note",
            f"{name}: {sets['mean']:.2f} labels a row on the average, {sets['most']} at most, in {sets['different']:,} "
            f"different sets; {sets['without']:,} rows ({sets['without'] / count:.1%}) have none",
        )
    yield from _balance(name, measured["labels"], count, advice=_ADVICE["label_sets" in measured])
    yield from _length_findings(name, measured["lengths"], tokenizer, max_length)
    yield from _script_findings(name, measured["scripts"], count)


def _label_counts(split: datasets.Dataset, labels: Sequence[str]) -> dict[str, int]:
    return {label: int(count) for label, count in zip(labels, label_counts(split, len(labels)), strict=True)}


def _label_sets(split: datasets.Dataset) -> Report:
    """How many labels a row has: on the average (the label cardinality), at most, none; and how many different sets."""
    labels = label_array(split)
    sizes = labels.sum(axis=1)
    return {
        "mean": float(sizes.mean()),
        "most": int(sizes.max()),
        "without": int((sizes == 0).sum()),
        "different": len(label_set_codes(labels)[1]),
    }


_ADVICE = {False: "read macro F1 rather than accuracy", True: "read macro F1 beside micro F1"}
"""By whether a row may have several labels."""


def _balance(name: str, counts: Mapping[str, int], rows: int, *, advice: str) -> Iterator[dict[str, Any]]:
    absent = [label for label, count in counts.items() if count == 0]
    if absent:
        yield _finding("balance", "warning", f"{name}: no row has the label {', '.join(absent)}: it cannot be scored")
    present = [count for count in counts.values() if count]
    if present and max(present) > _IMBALANCE_WARNING * min(present):
        shares = ", ".join(f"{label} {count / rows:.1%}" for label, count in counts.items())
        yield _finding("balance", "warning", f"{name}: unbalanced ({shares}); {advice}")


def _repeats(keys: NDArray[np.uint64]) -> int:
    """Rows beyond the first of each text."""
    return len(keys) - len(np.unique(keys))


def _sample(split: datasets.Dataset) -> datasets.Dataset:
    if len(split) <= _SAMPLE:
        return split
    return split.select(np.linspace(0, len(split) - 1, _SAMPLE).astype(np.int64))


def _lengths(split: datasets.Dataset, tokenizer: PreTrainedTokenizerBase | None, max_length: int) -> Report:
    """Percentiles of untruncated lengths over a sample, what is cut, and how much the tokenizer does not know."""
    sample = _sample(split)
    lengths: list[int] = []
    unknown_tokens = tokens = unknown_rows = 0
    unknown_texts: Counter[str] = Counter()
    for batch in sample.iter(batch_size=1000):
        if tokenizer is None:
            lengths += [len(text) for text in batch["text"]]
            continue
        # `verbose`: a warning of transformers on each long text would say what the finding says.
        encoded = tokenizer(batch["text"], batch.get("text_pair"), add_special_tokens=True, verbose=False)
        for row, ids in enumerate(encoded["input_ids"]):
            lengths.append(len(ids))
            unknown = ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
            tokens += len(ids)
            unknown_tokens += unknown
            if unknown:
                unknown_rows += 1
                if len(unknown_texts) < 1000:
                    unknown_texts.update(_unknown_pieces(encoded, row, ids, tokenizer, batch["text"][row]))
    values = np.array(lengths)
    report: Report = {
        "unit": "characters" if tokenizer is None else "tokens",
        "sampled": len(values),
        **{f"p{q}": int(np.percentile(values, q)) for q in (50, 90, 95, 99)},
        "max": int(values.max()),
    }
    if tokenizer is not None:
        report["truncated"] = float((values > max_length).mean())
        report["unknown_tokens"] = unknown_tokens / max(tokens, 1)
        report["rows_with_unknown"] = unknown_rows / len(values)
        report["most_unknown"] = [piece for piece, _ in unknown_texts.most_common(8)]
    return report


_NAMED_PROMPTS = 10


def _prompt_findings(
    name: str, split: datasets.Dataset, tokenizer: PreTrainedTokenizerBase
) -> Iterator[dict[str, Any]]:
    """Prompts that the tokenizer does not know: a model that is to be led by them learns nothing from them."""
    prompts = [prompt for prompt in _sample(split)["prompt"] if prompt.strip()]
    encoded = tokenizer(prompts, add_special_tokens=False, verbose=False)["input_ids"] if prompts else []
    unknown = [prompt for prompt, ids in zip(prompts, encoded, strict=True) if tokenizer.unk_token_id in ids]
    share = len(unknown) / max(len(prompts), 1)
    if share > _UNKNOWN_WARNING:
        # Prompts that are labels can be named; texts of the data are not for a report that travels.
        kinds = list(dict.fromkeys(unknown))
        examples = f" (such as {' '.join(kind[:20] for kind in kinds)[:60]})" if len(kinds) <= _NAMED_PROMPTS else ""
        yield _finding(
            "unknown",
            "alarm" if share > _UNKNOWN_PROMPTS_ALARM else "warning",
            f"{name}: {share:.1%} of the prompts have tokens that the tokenizer does not know{examples}: "
            "what they say is lost on the model",
        )


def _unknown_pieces(
    encoded: Any, row: int, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, text: str
) -> Iterator[str]:
    """The pieces of text behind unknown tokens, where the tokenizer knows whence a token came."""
    if not tokenizer.is_fast:
        return
    for position, token in enumerate(ids):
        if token == tokenizer.unk_token_id and encoded.encodings[row].sequence_ids[position] == 0:
            start, end = encoded.encodings[row].offsets[position]
            if text[start:end].strip():
                yield text[start:end].strip()[:20]


def _length_findings(
    name: str, lengths: Report, tokenizer: PreTrainedTokenizerBase | None, max_length: int
) -> Iterator[dict[str, Any]]:
    if tokenizer is None:
        return
    truncated = lengths["truncated"]
    if truncated > _TRUNCATED_WARNING:
        yield _finding(
            "length",
            "alarm" if truncated > _TRUNCATED_ALARM else "warning",
            f"{name}: {truncated:.1%} of the texts are longer than text.max_length {max_length} and are cut; 95 % have "
            f"at most {lengths['p95']:,} tokens",
        )
    rate = lengths["unknown_tokens"]
    pieces = " ".join(lengths["most_unknown"])
    what = (
        f"{name}: {rate:.1%} of the tokens are unknown to the tokenizer, in {lengths['rows_with_unknown']:.1%} of the "
    )
    what += f"rows (such as {pieces})" if pieces else "rows"
    if _is_word_vocabulary(tokenizer):
        if rate > _UNKNOWN_WORDS_WARNING:
            yield _finding("unknown", "warning", f"{what}; words beyond a vocabulary of words: try text.unit subword")
    elif rate > _UNKNOWN_ALARM:
        yield _finding("unknown", "alarm", f"{what}; is this the model's own tokenizer, and made for this language?")
    elif rate > _UNKNOWN_WARNING:
        yield _finding("unknown", "warning", what)


def _is_word_vocabulary(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and type(backend.model).__name__ == "WordLevel"


def _scripts(split: datasets.Dataset) -> Report:
    """Shares of a sample's rows by the script of most of their letters; of all rows, those that look damaged."""
    main: Counter[str] = Counter()
    sample = _sample(split)
    for batch in sample.iter(batch_size=10_000):
        main.update(map(_main_script, batch["text"]))
    broken, control, without = [], [], 0
    for batch in split.iter(batch_size=10_000):
        for row_id, text in zip(batch["id"], batch["text"], strict=True):
            without += not _LETTER.search(text)
            if _BROKEN.search(text):
                broken.append(row_id)
            if _CONTROL.search(text):
                control.append(row_id)
    return {
        "main_script": {script: rows / len(sample) for script, rows in main.most_common() if script != "none"},
        "without_letters": without,
        "broken": {"rows": len(broken), "examples": broken[:_EXAMPLES]},
        "control": {"rows": len(control), "examples": control[:_EXAMPLES]},
    }


def _main_script(text: str) -> str:
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPT_PATTERNS.items()}
    script = max(counts, key=lambda name: counts[name])
    if counts[script]:
        return script
    return "other" if _LETTER.search(text) else "none"


def _script_findings(name: str, scripts: Report, count: int) -> Iterator[dict[str, Any]]:
    shares = list(scripts["main_script"].items())
    if len(shares) > 1 and shares[1][1] > _SECOND_SCRIPT_NOTE:
        grade = "warning" if shares[1][1] > _SECOND_SCRIPT_WARNING else "note"
        mixture = ", ".join(f"{script} {share:.1%}" for script, share in shares[:4])
        yield _finding("scripts", grade, f"{name}: texts in several scripts ({mixture}); score each alone as well")
    if scripts["without_letters"]:
        yield _finding("scripts", "note", f"{name}: {scripts['without_letters']:,} texts have no letter in them")
    broken = scripts["broken"]
    if broken["rows"]:
        yield _finding(
            "encoding",
            "alarm" if broken["rows"] > _BROKEN_WARNING * count else "warning",
            f"{name}: {broken['rows']:,} texts hold signs of a wrong encoding (U+FFFD or C1 codes); set data.encoding",
            broken["examples"],
        )
    control = scripts["control"]
    if control["rows"]:
        yield _finding(
            "encoding", "note", f"{name}: {control['rows']:,} texts hold control characters", control["examples"]
        )


# --- across rows and splits -------------------------------------------------------------------------------------------


def _conflicts(
    rows: Mapping[str, datasets.Dataset], keys: Mapping[str, NDArray[np.uint64]]
) -> Iterator[dict[str, Any]]:
    """One text under different labels, over all splits."""
    all_keys = np.concatenate([keys[name] for name in rows])
    all_labels = np.concatenate([label_array(split) for split in rows.values()])
    if all_labels.ndim > 1:
        all_labels, _ = label_set_codes(all_labels)
    texts, inverse = np.unique(all_keys, return_inverse=True)
    lowest, highest = np.full(len(texts), np.inf), np.full(len(texts), -np.inf)
    np.minimum.at(lowest, inverse, all_labels)
    np.maximum.at(highest, inverse, all_labels)
    conflicting = lowest != highest
    if conflicting.any():
        concerned = np.flatnonzero(conflicting[inverse])
        ids = pa.chunked_array([id_array(split) for split in rows.values()])
        yield _finding(
            "conflicts",
            "warning",
            f"{int(conflicting.sum()):,} texts stand under different labels ({len(concerned):,} rows): nothing can get "
            "all of them right",
            ids.take(pa.array(concerned[:_EXAMPLES])).to_pylist(),
        )


def _overlap(
    exact: Mapping[str, NDArray[np.uint64]],
    normal: Mapping[str, NDArray[np.uint64]],
    measured: Mapping[str, Report],
    earlier: Sequence[str],
    later: str,
) -> dict[str, int]:
    """Rows of `later` whose text stands in `earlier`.

    Rows that are empty in both count, since they are in the files, although nothing is trained or scored on them.
    """
    empty = measured[later]["empty"] if any(measured[name]["empty"] for name in earlier) else 0
    seen_exact = np.concatenate([exact[name] for name in earlier])
    seen_normal = np.concatenate([normal[name] for name in earlier])
    return {
        "exact": int(np.isin(exact[later], seen_exact).sum()) + empty,
        "normalized": int(np.isin(normal[later], seen_normal).sum()) + empty,
        "empty": empty,
    }


def _overlap_finding(earlier: Sequence[str], later: str, overlap: Mapping[str, int], count: int) -> dict[str, Any]:
    share = (overlap["normalized"] - overlap["empty"]) / count
    empty = f" ({overlap['empty']:,} of them empty)" if overlap["empty"] else ""
    advice = "; scores are given without them too, data.leaked_test_rows drop leaves them out"
    advice = advice if later == "test" else ""
    return _finding(
        "overlap",
        "alarm" if share > 0.2 else "warning",
        f"{later}: {overlap['exact']:,} rows have their exact text in {' or '.join(earlier)}, "
        f"{overlap['normalized']:,} when case, spacing and punctuation are ignored{empty}, {share:.1%} of the rows "
        f"with text{advice}",
    )


def _few_test_rows(count: int) -> dict[str, Any]:
    half_width = 1.96 * math.sqrt(0.8 * 0.2 / count)
    return _finding(
        "size",
        "note",
        f"test: {count:,} rows tell accuracies of about 80 % only to ± {100 * half_width:.0f} points (95 % interval)",
    )


# --- for a person -----------------------------------------------------------------------------------------------------


def summarize(report: Report) -> list[str]:
    """The alarms and warnings, a line each, and how many notes there are."""
    lines = [f"{f['grade']}: {f['message']}" for f in report["findings"] if f["grade"] != "note"]
    notes = sum(finding["grade"] == "note" for finding in report["findings"])
    return [*lines, f"{notes} note(s) more in `finetune doctor`"] if notes else lines


def print_report(report: Report, title: str, console: Console) -> None:
    """The page: numbers per split in a table, then the findings, the gravest first."""
    splits = report["splits"]
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in splits:
        table.add_column(name, justify="right")
    for heading, cell in _table_rows(splits):
        table.add_row(escape(heading), *(escape(cell(measured)) for measured in splits.values()))
    console.print(table)
    console.print()
    colours = {"alarm": "bold red", "warning": "yellow", "note": "cyan"}
    if not report["findings"]:
        console.print("Nothing found.")
    for finding in report["findings"]:
        grade = finding["grade"]
        console.print(f"[{colours[grade]}]{grade:8}[/] {escape(finding['message'])}", highlight=False)
        if finding["examples"]:
            console.print(f"         rows {escape(', '.join(finding['examples']))}", highlight=False)


def _table_rows(splits: Mapping[str, Report]) -> Iterator[tuple[str, Any]]:
    first = next(iter(splits.values()))
    yield "rows", lambda m: f"{m['rows']:,}"
    yield "empty, left out", lambda m: f"{m['empty']:,}"
    for label in first["labels"]:
        yield f"label {label}", lambda m, label=label: f"{m['labels'][label]:,} ({m['labels'][label] / m['rows']:.1%})"
    if "label_sets" in first:
        yield "labels a row", lambda m: f"{m['label_sets']['mean']:.2f}"
        yield "rows without labels", lambda m: f"{m['label_sets']['without']:,}"
    yield "repeated texts, exact", lambda m: f"{m['repeats']['exact']:,}"
    yield "repeated texts, normalised", lambda m: f"{m['repeats']['normalized']:,}"
    unit = first["lengths"]["unit"]
    for quantile in ("p50", "p95", "p99", "max"):
        yield f"{unit}, {quantile}", lambda m, quantile=quantile: f"{m['lengths'][quantile]:,}"
    if unit == "tokens":
        yield "longer than max_length", lambda m: f"{m['lengths']['truncated']:.1%}"
        yield "unknown tokens", lambda m: f"{m['lengths']['unknown_tokens']:.2%}"
    for script in list(first["scripts"]["main_script"])[:4]:
        yield f"mostly {script}", lambda m, script=script: f"{m['scripts']['main_script'].get(script, 0.0):.1%}"
