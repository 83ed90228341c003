"""A run -> its model card: everything from the files of the run, and three sections that a person has to write."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import EvalResult, ModelCardData

from finetune.errors import UserError
from finetune.recipe import (
    EMBEDDED_PREFIX,
    BagModel,
    CnnModel,
    Data,
    EncoderModel,
    MajorityFloor,
    Model,
    Recipe,
    RecurrentModel,
    Seq2SeqModel,
    Task,
    TfidfFloor,
    published_tree,
    write_yaml,
)
from finetune.reporting import plots
from finetune.reporting.compare import read_any_comparison
from finetune.reporting.comparison import Cost, Curve, Metric, describe_model, read_curve, summarize_data
from finetune.reporting.findings import describe_findings
from finetune.reporting.page import style_sheet, template_environment
from finetune.reporting.set_comparison import SetComparison, set_sentences, set_table
from finetune.reporting.tables import (
    NOTHING,
    Cell,
    Column,
    Table,
    byte_size,
    comparison_table,
    data_flaws,
    data_source,
    data_table,
    duration,
    escape_markdown,
    markdown_table,
    metric_cell,
    milliseconds,
    peak_memory,
    percent,
    rate,
    short_count,
    threads_text,
)
from finetune.reporting.text_comparison import TextComparison, describe_writer, sentences, text_table
from finetune.run import RunDirectory

PERSON_SECTIONS = {
    "intended-use": "What it is meant for, and what it is not",
    "risks": "Risks, bias and people concerned",
    "data-rights": "Where the texts come from, and the right to use them",
}
"""What no program can know: a push warns while one of these is empty."""
OWN_CODE = {
    "RecurrentForSequenceClassification": ("recurrent.py", "pooling.py"),
    "RecurrentForCausalLM": ("recurrent_lm.py", "recurrent.py", "pooling.py"),
    "Seq2SeqForConditionalGeneration": ("seq2seq.py", "recurrent.py", "pooling.py"),
    "ShallowForSequenceClassification": ("shallow.py", "recurrent.py", "pooling.py"),
    "PooledEncoderForSequenceClassification": ("pooled.py", "pooling.py"),
}
"""This project's own architectures: the file of this package that defines each, and those that it needs."""
_TASK_NAMES = {
    "classify": ("text-classification", "Text Classification"),
    "multi_label": ("text-classification", "Multi-Label Text Classification"),
    "rate": ("text-classification", "Text Regression"),
    "masked_lm": ("fill-mask", "Masked Language Modeling"),
    "generate": ("text-generation", "Text Generation"),
}
_METRIC_NAMES = {
    "accuracy": "Accuracy",
    "micro_f1": "Micro F1",
    "macro_f1": "Macro F1",
    "samples_f1": "F1 by row",
    "subset_accuracy": "All labels right",
    "hamming_loss": "Wrong decisions (Hamming loss)",
    "mean_average_precision": "Mean average precision",
    "weighted_f1": "Weighted F1",
    "mcc": "Matthews correlation",
    "roc_auc": "ROC AUC",
    "loss": "Loss",
    "mse": "Mean squared error",
    "rmse": "Root mean squared error",
    "mae": "Mean absolute error",
    "pearson": "Pearson correlation",
    "masked_accuracy": "Masked accuracy",
    "token_accuracy": "Next token right",
    "perplexity": "Perplexity (own tokens)",
    "bits_per_byte": "Bits per byte",
    "bits_per_character": "Bits per character",
    "unknown_share": "Unknown text",
}
_SHARES = (
    *("accuracy", "micro_f1", "macro_f1", "samples_f1", "subset_accuracy", "hamming_loss", "mean_average_precision"),
    *("weighted_f1", "roc_auc", "masked_accuracy", "token_accuracy", "unknown_share"),
)
_INDEXED = ("accuracy", "micro_f1", "macro_f1", "subset_accuracy", "mse", "pearson", "perplexity", "bits_per_byte")
"""What goes into the card's metadata, where the Hub reads it."""
_HUB_METRICS = {"macro_f1": "f1", "micro_f1": "f1", "subset_accuracy": "accuracy"}
_EMBEDDED_LICENSE = "cc-by-sa-4.0"
"""Of the embedded models, and so of what is made of them."""
_MOST_SAMPLES = 10
_MOST_MATRIX_LABELS = 6
_MARKED = re.compile(r"<!-- person: ([a-z-]+) -->\n(.*?)\n?<!-- end of \1 -->", re.DOTALL)


@dataclass(frozen=True)
class Written:
    """What people decided or wrote in a card that is there already, and that a new rendering keeps."""

    license: str | None = None
    language: str | None = None
    sections: Mapping[str, str] = field(default_factory=dict)

    @property
    def empty_sections(self) -> list[str]:
        """The titles of the sections that nobody has written yet."""
        return [title for name, title in PERSON_SECTIONS.items() if not self.sections.get(name)]


@dataclass(frozen=True)
class _Logged:
    name: str
    curve: Curve


def write_card(
    run: RunDirectory, beside: Sequence[Path] = (), *, license: str | None = None, language: str | None = None
) -> Written:
    """Write a run's README.md and its plots; returns what people have decided and written in it so far.

    With `beside`, runs that were scored on the same test rows, the table of all of them is kept in the run too. What
    people wrote into an earlier card stays, and so do its licence and language unless others are given.

    Raises:
        UserError: the run is not finished, or the others do not compare with it.
    """
    run.refuse_word_vectors()
    if not run.is_finished():
        raise UserError(f"{run.path}: the run is not finished; go on with --resume first")
    if beside:
        run.write_json(run.beside_file, _beside([run.path, *beside]))
    shutil.rmtree(run.plots_directory, ignore_errors=True)
    for name, drawing in _draw(run).items():
        run.plots_directory.mkdir(exist_ok=True)
        (run.plots_directory / name).write_text(drawing, encoding="utf-8")
    before = read_card(run.card_file)
    inherited = _EMBEDDED_LICENSE if _start(run.recipe()) == "embedded" else None
    written = Written(license or before.license or inherited, language or before.language, before.sections)
    run.write_text(run.card_file, render_card(run, written))
    return written


def read_card(file: Path) -> Written:
    """The licence, the language and the sections of people in a card; nothing of one that is not there.

    Raises:
        UserError: its metadata is no YAML.
    """
    if not file.exists():
        return Written()
    text = file.read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        metadata = yaml.safe_load(found.group(1)) if found else {}
    except yaml.YAMLError as error:
        raise UserError(f"{file}: its metadata is not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(metadata, dict):
        metadata = {}
    sections = {name: content.strip() for name, content in _MARKED.findall(text)}
    license, language = (metadata.get(name) for name in ("license", "language"))
    return Written(
        license if isinstance(license, str) else None,
        language if isinstance(language, str) else None,
        {name: content for name, content in sections.items() if name in PERSON_SECTIONS and not _is_blank(content)},
    )


def render_card(
    run: RunDirectory,
    written: Written,
    repo_id: str | None = None,
    *,
    place: str | None = None,
    as_adapter: bool = False,
) -> str:
    """The card as Markdown, the same for the same files; `repo_id` is where it is to be found on the Hub.

    Where it is not to be found there, it is at `place`, or where training left it.

    With `as_adapter` it is the card of the run's LoRA adapter, whose base is loaded beside it.
    """
    recipe, scores, environment, account = run.recipe(), run.scores(), run.environment(), run.data()
    data = summarize_data(account, [run.name])
    language = written.language or _language(account)
    splits, prompt_labels = scores["splits"], run.prompt_labels()
    values: dict[str, Any] = {
        "metadata": _metadata(run, recipe, account, splits, written.license, language, repo_id, as_adapter=as_adapter),
        "name": run.name,
        "repo_id": repo_id,
        "place": repo_id or place or f"runs/{run.name}/model",
        "recipe": recipe,
        "labels": account.get("labels", []),
        "model": (describe_writer if recipe.task == "generate" else describe_model)(recipe.model),
        "is_floor": isinstance(recipe.model, MajorityFloor | TfidfFloor),
        "own_code": _own_code(recipe.model, recipe.task),
        "as_adapter": as_adapter,
        "base_model": _base_model(recipe),
        "start": _start(recipe),
        "is_korean": language == "ko",
        "language": language,
        "license": written.license,
        "example": _example(recipe, prompt_labels, language),
        "prompt_labels": prompt_labels,
        # Room for them in the context, where what was trained on says how long that is.
        "new_tokens": min(60, recipe.text.max_length // 2),
        "source": data_source(data),
        "files": list({file["sha256"]: file for file in account.get("files", {}).values()}.values()),
        "data_table": markdown_table(data_table(data, account.get("labels", []))),
        "flaws": data_flaws(data, account["splits"].get("test", {}).get("count", 0)),
        "splits": account["splits"],
        "findings": account.get("doctor", {}).get("findings", []),
        "tokenizer_sha256": account.get("tokenizer_sha256"),
        "open_recipe": _yaml(published_tree(_chosen(recipe))),
        "whole_recipe": _yaml(published_tree(recipe.model_dump(mode="json"))),
        "plots": sorted(file.name for file in run.plots_directory.glob("*.svg")),
        "scores_table": markdown_table(_scores_table(splits)) if splits else None,
        "headline": _headline(splits),
        "per_class": _per_class_table(splits.get("test")),
        "matrix": _matrix_table(splits.get("test")),
        "leaked": splits.get("test", {}).get("without_leaked_rows"),
        "times_scored": splits.get("test", {}).get("times_scored", 0),
        "confidence_level": recipe.evaluation.confidence_level,
        "bootstrap_samples": recipe.evaluation.bootstrap_samples,
        "is_bca": any(split.get("interval_method") == "bca" for split in splits.values()),
        "is_pair": recipe.data.text_pair_column is not None,
        "samples": _samples(run, prompt_labels),
        "samples_looked_at": min(len(run.samples()), _MOST_SAMPLES),
        "sample_scores": scores.get("samples"),
        "adapter_class": "AutoPeftModelForSeq2SeqLM" if recipe.reads_prompts else "AutoPeftModelForCausalLM",
        "beside": _beside_text(run),
        "cost": Cost.read(scores.get("cost", {})),
        "environment": environment,
        "agreement": _agreement(run),
        "limits": _limits(recipe, account, splits),
        "person_sections": PERSON_SECTIONS,
        "written": written.sections,
    }
    templates = template_environment(autoescape=False)
    templates.filters |= {
        "escaped": lambda text: escape_markdown(str(text)),
        "count": lambda number: f"{number:,}",
        "short_count": short_count,
        "duration": duration,
        "byte_size": byte_size,
        "milliseconds": milliseconds,
        "peak_memory": peak_memory,
        "threads": threads_text,
        "rate": rate,
        "percent": percent,
        "quoted": lambda text: json.dumps(text, ensure_ascii=False),
    }
    text = templates.get_template("card.md.j2").render(values)
    return re.sub(r"\n{3,}", "\n\n", text)


# --- metadata ---------------------------------------------------------------------------------------------------------


def _metadata(
    run: RunDirectory,
    recipe: Recipe,
    account: Mapping[str, Any],
    splits: Mapping[str, Any],
    license: str | None,
    language: str | None,
    repo_id: str | None,
    *,
    as_adapter: bool,
) -> str:
    """The YAML at the head of a card, as the Hub reads it."""
    pipeline_tag, task_name = _TASK_NAMES[recipe.task]
    name = repo_id.rpartition("/")[2] if repo_id else run.name
    base, hub_data = _base_model(recipe), _hub_data(recipe.data)
    values: dict[str, Any] = {
        "language": language,
        "license": license,
        "library_name": None if isinstance(recipe.model, MajorityFloor | TfidfFloor) else "transformers",
        "pipeline_tag": pipeline_tag,
        "tags": ["finetune", recipe.model.family, *([recipe.model.cell] if recipe.model.family == "recurrent" else [])],
        "base_model": base,
        "datasets": [hub_data] if hub_data else None,
    }
    if as_adapter:
        values |= {"library_name": "peft", "base_model_relation": "adapter"}
    elif base is not None:
        values["base_model_relation"] = "finetune"
    test = splits.get("test")
    if test is not None:
        found = [metric for metric in _INDEXED if test["metrics"].get(metric, {}).get("value") is not None]
        results = [
            EvalResult(
                task_type=pipeline_tag,
                task_name=task_name,
                dataset_type=hub_data or "own",
                dataset_name=_data_name(recipe.data, account),
                dataset_config=recipe.data.dataset_config_name,
                dataset_split="test",
                dataset_revision=account.get("revision"),
                metric_type=_HUB_METRICS.get(metric, metric),
                metric_name=_METRIC_NAMES[metric],
                metric_value=round(test["metrics"][metric]["value"], 6),
                metric_args={
                    "interval": [round(test["metrics"][metric][end], 6) for end in ("low", "high")],
                    "confidence_level": test["confidence_level"],
                },
            )
            for metric in found
        ]
        values["metrics"] = list(dict.fromkeys(_HUB_METRICS.get(metric, metric) for metric in found))
        values |= {"model_name": name, "eval_results": results}
    return str(ModelCardData(**{key: value for key, value in values.items() if value is not None})).strip()


def _hub_data(data: Data) -> str | None:
    """The Hub id of the data set; None where it is not of the Hub."""
    name = data.dataset_name
    return None if name is None or name.startswith(EMBEDDED_PREFIX) else name


def _data_name(data: Data, account: Mapping[str, Any]) -> str:
    if data.dataset_name is not None:
        return data.dataset_name
    names = dict.fromkeys(file["name"] for file in account.get("files", {}).values())
    return ", ".join(names) or str(account["source"])


def _base_model(recipe: Recipe) -> str | None:
    """The Hub id of what was fine-tuned; None where it began at random, or from something that is not on the Hub."""
    name: str | None = getattr(recipe.model, "model_name_or_path", None)
    return name if _start(recipe) == "hub" else None


def _start(recipe: Recipe) -> Literal["nothing", "random", "vectors", "embedded", "hub", "local"]:
    """What training began from."""
    if isinstance(recipe.model, MajorityFloor | TfidfFloor):
        return "nothing"
    name: str | None = getattr(recipe.model, "model_name_or_path", None)
    if name is None:
        return "vectors" if getattr(recipe.model, "initial_embeddings", None) is not None else "random"
    if name.startswith(EMBEDDED_PREFIX):
        return "embedded"
    return "local" if Path(name).is_absolute() or name.startswith((".", "~")) else "hub"


def _language(account: Mapping[str, Any]) -> str | None:
    """Korean where most training texts are in Hangul; the Latin script says nothing of the language."""
    scripts = account.get("doctor", {}).get("splits", {}).get("train", {}).get("scripts", {}).get("main_script", {})
    return "ko" if scripts.get("Hangul", 0) > 0.5 else None


# --- tables -----------------------------------------------------------------------------------------------------------


def _scores_table(splits: Mapping[str, Any]) -> Table:
    """One row per metric, one column per split."""
    names = [name for name in _METRIC_NAMES if any(name in split["metrics"] for split in splits.values())]
    level = next(iter(splits.values()))["confidence_level"]
    columns = [Column("Metric", is_number=False)]
    columns += [Column(split, f"({entry['count']:,} rows) [{level:.0%} interval]") for split, entry in splits.items()]
    rows = [
        (Cell(_METRIC_NAMES[name]), *(_score_cell(name, entry["metrics"].get(name)) for entry in splits.values()))
        for name in names
    ]
    return Table(tuple(columns), tuple(rows))


def _score_cell(name: str, raw: Mapping[str, float | None] | None) -> Cell:
    if raw is None or raw["value"] is None:
        return Cell(NOTHING)
    if name in _SHARES:
        return metric_cell(Metric(raw["value"], raw["low"], raw["high"]))
    form = ".1f" if name == "perplexity" else ".3f"
    interval = "" if raw["low"] is None else f"[{raw['low']:{form}}, {raw['high']:{form}}]"
    return Cell(f"{raw['value']:{form}}", interval)


def _headline(splits: Mapping[str, Any]) -> str | None:
    """The first score of the test split in a few words."""
    metrics = splits.get("test", {}).get("metrics", {})
    for name in ("accuracy", "micro_f1", "rmse", "bits_per_byte"):
        if metrics.get(name, {}).get("value") is not None:
            title = _METRIC_NAMES[name]
            return f"{title[0].lower()}{title[1:]} {_score_cell(name, metrics[name])}"
    return None


def _per_class_table(test: Mapping[str, Any] | None) -> str | None:
    if test is None or not test.get("per_class"):
        return None
    names = ("precision", "recall", "f1")
    columns = (Column("Label", is_number=False), *(Column(name.capitalize()) for name in names))
    rows = [
        (Cell(label), *(_score_cell("accuracy", values.get(name)) for name in names))
        for label, values in test["per_class"].items()
    ]
    return markdown_table(Table(columns, tuple(rows)))


def _matrix_table(test: Mapping[str, Any] | None) -> str | None:
    """Rows of each label by the label that they got."""
    if test is None or not 0 < len(test.get("confusion_matrix", ())) <= _MOST_MATRIX_LABELS:
        return None
    columns = (Column("Is ↓ got →", is_number=False), *(Column(label) for label in test["labels"]))
    rows = [
        (Cell(label), *(Cell(f"{count:,}") for count in counts))
        for label, counts in zip(test["labels"], test["confusion_matrix"], strict=True)
    ]
    return markdown_table(Table(columns, tuple(rows)))


def _beside(paths: Sequence[Path]) -> dict[str, Any]:
    """The table of several runs and the words on it, to be kept with the first of them."""
    comparison = read_any_comparison(paths)
    if isinstance(comparison, TextComparison):
        table, words = text_table(comparison), sentences(comparison)
    elif isinstance(comparison, SetComparison):
        table, words = set_table(comparison), set_sentences(comparison)
    else:
        findings = describe_findings(comparison)
        table, words = comparison_table(comparison), [*findings.sentences, *findings.over_seeds]
    return {
        "columns": [[column.title, column.detail, column.is_number] for column in table.columns],
        "rows": [[[cell.text, cell.detail] for cell in row] for row in table.rows],
        "sentences": words,
    }


def _beside_text(run: RunDirectory) -> dict[str, Any] | None:
    if not run.beside_file.exists():
        return None
    kept = run.beside()
    table = Table(
        tuple(Column(*column) for column in kept["columns"]),
        tuple(tuple(Cell(*c) for c in row) for row in kept["rows"]),
    )
    return {"table": markdown_table(table), "sentences": kept["sentences"]}


def _agreement(run: RunDirectory) -> dict[str, Any] | None:
    """How well the exported model agrees with this one."""
    file = run.onnx_directory / "agreement.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


# --- words ------------------------------------------------------------------------------------------------------------


def _example(recipe: Recipe, prompt_labels: Sequence[str], language: str | None) -> str:
    """A text to try the model with, of ours and never of the data; or a label where it writes by labels."""
    if prompt_labels:
        return prompt_labels[0]
    korean = language == "ko"
    if recipe.task == "generate":
        return "이 영화는" if korean else "I bought this"
    if recipe.task == "masked_lm":
        return "배우들 연기가 정말" if korean else "The acting was very"
    return "배우들 연기가 정말 좋았어요" if korean else "I would buy it again"


def _limits(recipe: Recipe, account: Mapping[str, Any], splits: Mapping[str, Any]) -> list[str]:
    """What the files of the run say of its limits, a sentence each."""
    said = [f"One training run with one seed ({recipe.seed}): another seed may score differently."]
    test = splits.get("test")
    if test is not None:
        said.append(
            f"The intervals reflect {test['count']:,} test rows of the same kind as the training rows; of texts of "
            "another kind they say nothing."
        )
    lengths = account.get("doctor", {}).get("splits", {}).get("train", {}).get("lengths", {})
    if lengths.get("unit") == "tokens":
        limit = recipe.text_limit
        if limit == recipe.text.max_length:
            said.append(
                f"Texts are cut at {limit} tokens; {percent(lengths['truncated'])} of the training texts were longer."
            )
        if lengths["unknown_tokens"] > 0:
            said.append(
                f"{percent(lengths['unknown_tokens'], 2)} of the training tokens were unknown to the tokenizer."
            )
    if recipe.task == "generate":
        said.append("What it writes is made up, and may repeat what stood in its training texts.")
    if recipe.task == "classify":
        said.append(
            f"Every text gets one of {len(account.get('labels', []))} labels, whatever it is about; the probabilities "
            "are not calibrated."
        )
    if recipe.task == "multi_label" and splits:
        threshold = next(iter(splits.values()))["threshold"]
        said.append(
            f"A label is given where its probability is at least {threshold:g}, the same for all labels; the "
            "probabilities are not calibrated."
        )
    said.append("Nothing here measures fairness, toxicity or safety.")
    return said


def _samples(run: RunDirectory, prompt_labels: Sequence[str]) -> list[dict[str, Any]]:
    """Of the first texts that the run wrote those that are no training texts; their prompts where these are labels."""
    return [
        {
            "text": " ".join(record["text"].split()),
            "prompt": record["prompt"] if record["prompt"] in prompt_labels else None,
            "stopped": record["stopped"],
        }
        for record in run.samples()[:_MOST_SAMPLES]
        if not record.get("copied")
    ]


def _own_code(model: Model, task: Task) -> tuple[str, ...]:
    """The files of this package without which a model cannot be loaded; none for transformers' own architectures."""
    match model:
        case RecurrentModel():
            return OWN_CODE["RecurrentForCausalLM" if task == "generate" else "RecurrentForSequenceClassification"]
        case Seq2SeqModel():
            return OWN_CODE["Seq2SeqForConditionalGeneration"]
        case BagModel() | CnnModel():
            return OWN_CODE["ShallowForSequenceClassification"]
        case EncoderModel() if model.pooling != "cls":
            return OWN_CODE["PooledEncoderForSequenceClassification"]
        case _:
            return ()


def _is_blank(content: str) -> bool:
    return not content or content.startswith("_Not written yet")


def _chosen(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says beyond the defaults, as a tree."""
    tree = recipe.model_dump(mode="json", exclude_defaults=True)
    tree["model"]["family"] = recipe.model.family
    return {key: value for key, value in tree.items() if key != "output_dir"}


def _yaml(tree: Mapping[str, Any]) -> str:
    return write_yaml(tree).strip()


# --- plots ------------------------------------------------------------------------------------------------------------


def _draw(run: RunDirectory) -> dict[str, str]:
    """The plots of a run's training by file name; none where nothing was trained step by step."""
    logged = [_Logged(run.name, read_curve(run))]
    style = style_sheet()
    drawn = {"loss.svg": plots.loss_plot(logged)}
    if len(logged[0].curve.validation) > 1:  # one point is no curve
        drawn["validation.svg"] = plots.accuracy_plot(logged) or plots.f1_plot(logged) or plots.bits_plot(logged)
    return {name: plots.standalone(drawing, style) for name, drawing in drawn.items() if drawing is not None}
