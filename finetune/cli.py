"""The command line. An error of the user's making is one line on stderr and exit code 2."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from finetune import __version__
from finetune.errors import Interrupted, UserError, is_disk_full
from finetune.recipe import (
    TEXT_TASKS,
    load_recipe,
    recipe_fields,
    recipe_for_file,
    render_recipe,
    shipped_recipes,
)

_Number = TypeVar("_Number", int, float)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, or 2 for an error of the user's making."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options, rest = parser.parse_known_args(given)
    try:
        if options.command == "predict":
            # Texts behind a flag: argparse takes them all before it, or none.
            options.texts += [word for word in rest if not word.startswith("-")]
            rest = [word for word in rest if word.startswith("-")]
        if rest and options.command not in _TAKE_FIELDS:
            raise UserError(f"unknown argument {rest[0]}; `finetune {options.command} --help` lists what there is")
        return int(options.run(options, rest) or 0)
    except UserError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        # A curve goes on by itself, cell by cell.
        flag = [] if "--resume" in given or options.command not in ("train", "pretrain") else ["--resume"]
        again = " ".join(shlex.quote(word) for word in (*given, *flag))
        print(f"finetune: {stop}. To go on: finetune {again}", file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        print("finetune: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; what it wanted it has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not is_disk_full(error):
            raise
        go_on = {
            "train": "; the last good checkpoint is intact: make room, then --resume",
            "pretrain": "; the last good checkpoint is intact: make room, then --resume",
            "curve": "; what is finished stays: make room, then the same command",
        }.get(options.command, "")
        print(f"finetune: no space left on the disk: {error}{go_on}", file=sys.stderr)
        return 2


_TAKE_FIELDS = (
    "quickstart",
    "train",
    "pretrain",
    "tokenizer",
    "curve",
    "doctor",
    "generate",
    "lr-range",
    "gradients",
    "ablate",
    "control",
)
"""Commands that take fields of a recipe, or of a generation, as flags."""


def entry_point() -> None:
    """The `finetune` command."""
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="finetune",
        description="Fine-tune, train baselines, and prove what transfer learning bought you.",
    )
    parser.add_argument("--version", action="version", version=f"finetune {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Whole flags only: a recipe's --seed is no short form of the curve's --seeds.
    add_command = partial(commands.add_parser, allow_abbrev=False)

    command = add_command(
        "quickstart",
        help="embedded data: floors, from scratch, pretrained; to label and to write",
        epilog="How all of them are trained and scored can be given: --training.num_train_epochs 1, --seed 7.",
    )
    command.add_argument("--output_dir", default="runs", help="the directory that holds the run directories")
    command.add_argument(
        "--report_dir",
        default="reports/quickstart",
        help="where the comparison goes (the writers': its name and -writers)",
    )
    command.set_defaults(run=_quickstart)

    command = add_command("recipes", help="list the shipped recipes; `recipes show NAME` prints one")
    command.add_argument("action", nargs="?", choices=["list", "show"], default="list")
    command.add_argument("recipe", nargs="?", metavar="RECIPE", help="a shipped recipe's name or a file")
    command.set_defaults(run=_recipes)

    command = add_command(
        "doctor",
        help="what is wrong with this data, before any training",
        usage="finetune doctor RECIPE|FILE [--json] [--FIELD VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Fields of the recipe can be given, such as --data.text_column; `finetune train --help` lists them.",
    )
    command.add_argument("data", metavar="RECIPE|FILE", help="a recipe and its model's tokenizer, or a data file alone")
    command.add_argument("--json", action="store_true", help="print the whole report as JSON")
    command.set_defaults(run=_doctor)

    command = add_command(
        "train",
        help="run a recipe: any family",
        usage="finetune train RECIPE [--overwrite | --resume] [--FIELD VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_field_help(),
    )
    _add_training_arguments(command)

    command = add_command(
        "tokenizer",
        help="train a tokenizer on a recipe's training rows",
        usage="finetune tokenizer RECIPE --output DIR [--FIELD VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The recipe's text section says which; name DIR as text.tokenizer_name_or_path to use it.",
    )
    command.add_argument("recipe", metavar="RECIPE", help="a recipe file or a shipped recipe's name")
    command.add_argument("--output", required=True, metavar="DIR", help="where the tokenizer goes")
    command.set_defaults(run=_tokenizer)

    command = add_command(
        "pretrain",
        help="pretrain an encoder, a decoder or word vectors on text without labels",
        usage="finetune pretrain RECIPE [--overwrite | --resume] [--FIELD VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_field_help(),
    )
    _add_training_arguments(command)

    command = add_command("evaluate", help="score a run or model on a split or a file")
    command.add_argument("model", metavar="RUN|MODEL", help="a run directory, a model directory or a Hub id")
    command.add_argument("--split", choices=["validation", "test"], help="score this split of the run's own data")
    command.add_argument("--data", metavar="FILE", help="score a file instead (text and label columns)")
    command.add_argument("--text_column", help="the column with the text in FILE (a run's own by default)")
    command.add_argument("--label_column", help="the column with the label in FILE (a run's own by default)")
    command.add_argument("--output", metavar="DIR", help="where scores and predictions of FILE go")
    _add_revision(command)
    command.set_defaults(run=_evaluate)

    command = add_command("predict", help="label texts with a trained model")
    command.add_argument("model", metavar="RUN|MODEL", help="a run directory, a model directory or a Hub id")
    command.add_argument("texts", nargs="*", metavar="TEXT", help="texts; without any, lines of standard input")
    command.add_argument("--input", metavar="FILE", help="a CSV, TSV, JSONL, Parquet or Excel file instead, row by row")
    command.add_argument("--output", metavar="FILE", help="where its labels go; the same command goes on after a kill")
    command.add_argument("--text_column", default="text", help="the column with the text in the input")
    _add_revision(command)
    command.set_defaults(run=_predict)

    command = add_command(
        "generate",
        help="let a trained decoder write",
        usage="finetune generate RUN|MODEL [PROMPT] [--seed N] [--input FILE --output FILE] [--FIELD VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Fields of transformers' GenerationConfig can be given, such as --max_new_tokens 60 --temperature 0.8\n"
        "--top_p 0.95 --num_beams 4 --repetition_penalty 1.2 --num_return_sequences 3.",
    )
    command.add_argument("model", metavar="RUN|MODEL", help="a run directory, a model directory or a Hub id")
    command.add_argument("--seed", type=int, metavar="N", help="the seed of what is sampled")
    command.add_argument("--input", metavar="FILE", help="a CSV, TSV, JSONL, Parquet or Excel file of prompts instead")
    command.add_argument("--output", metavar="FILE", help="where what is written goes, a row for each")
    command.add_argument("--prompt_column", default="prompt", help="the column with the prompt in the input")
    _add_revision(command)
    command.set_defaults(run=_generate)

    command = add_command("compare", help="runs side by side: a table, curves and one HTML page")
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run directories that share their test rows; several seeds of a recipe are taken together",
    )
    command.add_argument("--output", required=True, metavar="DIR", help="where the report goes")
    command.set_defaults(run=_compare)

    command = add_command(
        "inspect", help="where runs are right and where not: slices, noise, mistakes, doubtful labels"
    )
    command.add_argument("runs", nargs="+", metavar="RUN", help="run directories that share their test rows")
    command.add_argument("--output", required=True, metavar="DIR", help="where the tables go; they show texts")
    command.add_argument("--by", default="", metavar="COLUMN[,COLUMN]", help="columns of the data that part the rows")
    command.add_argument("--rows", type=int, default=2000, metavar="N", help="test rows to put noise into")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of those rows and of the noise")
    command.set_defaults(run=_inspect)

    command = add_command("suggest", help="the likeliest words to go on with, as one types")
    command.add_argument("model", metavar="RUN|MODEL", help="a model that goes on with a text")
    command.add_argument("prompt", metavar="TEXT", help="what has been typed; behind a space a new word begins")
    command.add_argument("--count", type=int, default=5, metavar="N", help="so many words")
    _add_revision(command)
    command.set_defaults(run=_suggest)

    command = add_command("control", help="whether models that write by label write what is asked for")
    command.add_argument("runs", nargs="+", metavar="RUN", help="run directories that learnt to write by label")
    command.add_argument("--classifier", required=True, metavar="RUN", help="a run that labels, trained on other texts")
    command.add_argument("--output", required=True, metavar="DIR", help="where the tables go; they show texts")
    command.add_argument("--samples", type=int, default=200, metavar="N", help="texts for each label")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of what is drawn")
    command.epilog = "Fields of transformers' GenerationConfig go before the runs' own settings: --temperature 0.7"
    command.set_defaults(run=_control)

    command = add_command("novelty", help="let a run tell texts that are unlike its training texts")
    command.add_argument("model", metavar="RUN", help="a run directory that gives labels or ratings")
    command.add_argument("--output", required=True, metavar="DIR", help="where the tables go; they show texts")
    command.add_argument("--against", nargs="+", default=[], metavar="FILE", help="files of texts that are unlike them")
    command.add_argument("--text_column", default="text", help="the column with the text in those files")
    command.add_argument(
        "--method", choices=["mahalanobis", "autoencoder"], default="mahalanobis", help="what the run keeps"
    )
    command.add_argument(
        "--false_alarms", type=float, default=0.05, metavar="P", help="the share of ordinary texts that may be flagged"
    )
    command.add_argument("--rows", type=int, default=2000, metavar="N", help="texts of each kind that are looked at")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of the fit and of what is drawn")
    command.set_defaults(run=_novelty)

    command = add_command(
        "curve",
        help="recipes by training size and seed, tuned alike: a table with intervals",
        usage="finetune curve RECIPE [RECIPE ...] --sizes N,N --output DIR [--seeds N,N] [--FIELD VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The first recipe is held against each other one. The same command goes on after a kill.",
    )
    command.add_argument("recipes", nargs="+", metavar="RECIPE", help="recipe files or shipped recipes' names")
    command.add_argument("--sizes", required=True, metavar="N,N", help="training rows, such as 300,1000,all")
    command.add_argument(
        "--seeds", default="3", metavar="N,N", help="runs of each recipe: one number, or one for each size"
    )
    command.add_argument(
        "--tuned_up_to", metavar="N", help="larger sizes take the values chosen at the last one up to N"
    )
    command.add_argument("--output", required=True, metavar="DIR", help="where the runs and the table go")
    command.set_defaults(run=_curve)

    command = add_command(
        "ablate",
        help="a recipe and its variants, each with several seeds, as one table",
        usage="finetune ablate VARIANTS [VARIANTS ...] --output DIR [--seeds N] [--FIELD VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="VARIANTS is encoder, from-scratch, noise, or a YAML file such as they are: a `recipe`, and under\n"
        "`variants` by name the fields that each changes. Each is held against the first. The same command goes on\n"
        "after a kill.",
    )
    command.add_argument("variants", nargs="+", metavar="VARIANTS", help="files of variants, or shipped ones' names")
    command.add_argument("--seeds", default="3", metavar="N", help="runs of each variant")
    command.add_argument("--output", required=True, metavar="DIR", help="where the runs and the table go")
    command.set_defaults(run=_ablate)

    command = add_command(
        "lr-range",
        help="at which learning rates a recipe learns: a range test with its plot",
        usage="finetune lr-range RECIPE --output DIR [--lowest X --highest X --steps N] [--FIELD VALUE ...]",
    )
    command.add_argument("recipe", metavar="RECIPE", help="a recipe file or a shipped recipe's name")
    command.add_argument("--output", required=True, metavar="DIR", help="where the plot and the figures go")
    command.add_argument("--lowest", type=float, default=1e-7, help="the learning rate of the first step")
    command.add_argument("--highest", type=float, default=1.0, help="the learning rate of the last step")
    command.add_argument("--steps", type=int, default=100, help="optimizer steps")
    command.set_defaults(run=_lr_range)

    command = add_command(
        "gradients",
        help="how far back in a text the gradient reaches: vanishing and exploding, by model",
        usage="finetune gradients [RECIPE ...] --output DIR [--steps N,N] [--lengths N,N] [--rows N] [--layers N,N] "
        "[--recurrent_gain X,X] [--FIELD VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Recipes are recurrent models and encoders that classify; without any, an RNN (with recurrent gains\n"
        "0.5, 1 and 2 besides), an LSTM, a GRU and a transformer, from scratch on the embedded reviews.",
    )
    command.add_argument("--output", required=True, metavar="DIR", help="where the page, the table and the numbers go")
    command.add_argument("--steps", default="0,50,200", metavar="N,N", help="optimizer steps after which to measure")
    command.add_argument(
        "--lengths", default="16,32,64", metavar="N,N", help="tokens that the measured rows are cut to"
    )
    command.add_argument("--rows", type=int, default=64, metavar="N", help="rows to measure, the longest there are")
    command.add_argument("--layers", metavar="N,N", help="build each recipe with so many layers, such as 1,2,4")
    command.add_argument(
        "--recurrent_gain", metavar="X,X", help="plain RNNs also begin with an orthogonal recurrent matrix times each"
    )
    command.add_argument("--report_to", metavar="TRACKER", help="short for --training.report_to, such as tensorboard")
    command.set_defaults(run=_gradients)

    command = add_command("card", help="write a run's model card: README.md and plots, from its own files")
    command.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    command.add_argument(
        "--beside", nargs="+", default=[], metavar="RUN", help="show it beside these, scored on the same test rows"
    )
    command.add_argument("--license", help="the licence that the model may be used under, such as apache-2.0")
    command.add_argument("--language", help="the language of its texts, such as ko or en (Korean is recognised)")
    command.set_defaults(run=_card)

    command = add_command("export", help="a classifier as ONNX, whole and in 8 bits, held against the original")
    command.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    command.set_defaults(run=_export)

    command = add_command("push", help="prove a run's files, then push them to the Hugging Face Hub")
    command.add_argument("runs", nargs="+", metavar="RUN", help="a run directory; for a Space one or several")
    command.add_argument("--repo", metavar="OWNER/NAME", help="the model's repository; made where there is none")
    command.add_argument("--space", metavar="OWNER/NAME", help="push the demo with the runs in it as a Gradio Space")
    command.add_argument("--private", action="store_true", help="make the repository private, where it is made")
    command.add_argument("--revision", default="main", help="the branch to push to; made where there is none")
    command.add_argument(
        "--adapter", action="store_true", help="push the LoRA adapter rather than the model with it merged in"
    )
    command.add_argument("--no_predictions", action="store_true", help="leave ids, labels and scores of the rows out")
    command.add_argument(
        "--dry_run", "--dry-run", action="store_true", help="prove, list what would be pushed, and stop there"
    )
    command.set_defaults(run=_push)

    command = add_command("demo", help="runs and models in the browser")
    command.add_argument(
        "models",
        nargs="*",
        metavar="RUN|MODEL",
        help="runs, model directories or Hub ids; the quickstart's runs if none",
    )
    command.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 is all of them")
    command.add_argument("--port", type=int, default=7860, help="the port to listen on")
    command.add_argument("--concurrency", type=int, default=2, help="requests that are computed at a time")
    command.add_argument("--auth", metavar="NAME:PASSWORD", help="let in only who knows these")
    command.add_argument(
        "--flagging",
        type=Path,
        metavar="FILE",
        help="let visitors say whether a prediction is right; keeps their texts",
    )
    command.set_defaults(run=_demo)
    return parser


def _add_revision(command: argparse.ArgumentParser) -> None:
    command.add_argument("--revision", help="the branch, tag or commit of a Hub id (or write owner/name@revision)")


def _add_training_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="a recipe file, a shipped recipe's name, or a run directory")
    command.add_argument("--overwrite", action="store_true", help="replace an existing run of this name")
    command.add_argument(
        "--resume", action="store_true", help="go on where a stopped or killed run left off; begin where there is none"
    )
    command.set_defaults(run=_train)


def _field_help() -> str:
    lines = ["Any field of the recipe can be given as --FIELD VALUE:", ""]
    for dotted, kind, default, documentation in recipe_fields():
        lines += [f"  --{dotted}  ({kind}; default {default})", f"      {documentation}"]
    return "\n".join(lines)


def parse_overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
    """`["--a.b", "1", "--c=2"]` -> `[("a.b", "1"), ("c", "2")]`.

    Raises:
        UserError: something that is not `--FIELD VALUE`.
    """
    overrides: list[tuple[str, str]] = []
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(f"unknown argument {word!r}; recipe fields are given as --FIELD VALUE")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise UserError(f"--{key} needs a value")
            value = words.pop(0)
        overrides.append((key, value))
    return overrides


def _recipes(options: argparse.Namespace, _: Sequence[str]) -> None:
    if options.action == "show":
        if options.recipe is None:
            raise UserError("recipes show needs a recipe's name; `finetune recipes` lists them")
        print(render_recipe(load_recipe(options.recipe)), end="")
        return
    for name, path in shipped_recipes().items():
        # The first line of a recipe is its command, the second says what it is.
        about = path.read_text(encoding="utf-8").splitlines()[1].removeprefix("#").strip()
        print(f"{name:28} {about}")


def _train(options: argparse.Namespace, rest: Sequence[str]) -> None:
    if options.overwrite and options.resume:
        raise UserError("--overwrite and --resume exclude each other: replace the run, or go on with it")
    recipe = load_recipe(options.recipe, parse_overrides(rest))
    # To learn to generate is the same from random weights as from another's.
    if options.command == "pretrain" and recipe.task not in TEXT_TASKS:
        raise UserError(f"task {recipe.task} is for `finetune train {options.recipe}`")
    if options.command == "train" and recipe.task in ("masked_lm", "word_vectors"):
        raise UserError(f"task {recipe.task} is for `finetune pretrain {options.recipe}`")
    _quiet_libraries()
    from finetune.training import train

    run = train(recipe, overwrite=options.overwrite, resume=options.resume, command=["finetune", *sys.argv[1:]])
    if recipe.task == "word_vectors":
        from finetune.reporting.word_vectors import write_report

        print(write_report(run))


def _tokenizer(options: argparse.Namespace, rest: Sequence[str]) -> None:
    recipe, output = load_recipe(options.recipe, parse_overrides(rest)), Path(options.output)
    if output.exists():
        raise UserError(f"{output} exists; choose another --output")
    _quiet_libraries()
    from finetune.data import load_splits
    from finetune.progress import say
    from finetune.text import save_tokenizer, tokenizer_of_rows

    say(f"{recipe.name}: reading the data")
    splits = load_splits(recipe.data, recipe.task)
    say(f"  training on {len(splits.train):,} rows")
    tokenizer = tokenizer_of_rows(recipe, splits)
    save_tokenizer(tokenizer, output)
    print(f"{len(tokenizer):,} tokens -> {output}")


def _doctor(options: argparse.Namespace, rest: Sequence[str]) -> None:
    overrides = parse_overrides(rest)
    # A recipe is a shipped one's name, a run directory or YAML; anything else is data.
    suffix = Path(options.data).suffix.lower()
    is_file = "://" in options.data or suffix not in ("", ".yaml", ".yml")
    recipe = recipe_for_file(options.data, overrides) if is_file else load_recipe(options.data, overrides)
    _quiet_libraries()
    from rich.console import Console

    from finetune.doctor import diagnose, print_report

    report = diagnose(recipe)
    if options.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    console = Console()
    print_report(report, options.data, console if console.is_terminal else Console(width=160))


def _quickstart(options: argparse.Namespace, rest: Sequence[str]) -> None:
    overrides = parse_overrides(rest)
    _quiet_libraries()
    from finetune.quickstart import quickstart

    quickstart(Path(options.output_dir), Path(options.report_dir), overrides)


def _evaluate(options: argparse.Namespace, _: Sequence[str]) -> None:
    if (options.data is None) == (options.split is None):
        raise UserError("evaluate needs one of --split and --data FILE")
    if options.data is not None and options.output is None:
        raise UserError("evaluate --data needs --output DIR for the scores and predictions")
    _quiet_libraries()
    from finetune.evaluation import describe_scores
    from finetune.predict import evaluate_file, evaluate_split

    if options.split is not None:
        if not Path(options.model).exists() and _fetched(options.model, options.revision) != options.model:
            raise UserError(
                f"{options.model}: --split writes its scores into the run, so the run has to be here; a model of the "
                "Hub is scored on a file: --data FILE --output DIR"
            )
        entry = evaluate_split(options.model, options.split)
        print(describe_scores(options.split, entry))
        if options.split == "test":
            print(f"the test split of this run has now been scored {entry['times_scored']} times")
        return
    file, output = Path(options.data), Path(options.output)
    model = _fetched(options.model, options.revision)
    entry = evaluate_file(model, file, output, options.text_column, options.label_column)
    print(describe_scores(file.name, entry))
    print(f"scores and predictions are in {output}")


def _predict(options: argparse.Namespace, _: Sequence[str]) -> None:
    if (options.input is None) != (options.output is None) or (options.input and options.texts):
        raise UserError("predict takes TEXTs, or --input FILE with --output FILE")
    if options.input is not None:
        _quiet_libraries()
        from finetune.predict_file import predict_file

        source, output = Path(options.input), Path(options.output)
        count = predict_file(_fetched(options.model, options.revision), source, output, options.text_column)
        print(f"{count:,} rows labelled -> {output}")
        return
    texts = options.texts or [line.rstrip("\n") for line in sys.stdin]
    _quiet_libraries()
    from finetune.predict import load_classifier
    from finetune.predict_file import label_separator
    from finetune.tasks import given_labels

    model = _fetched(options.model, options.revision)
    classifier, separator = load_classifier(model), label_separator(model)
    said, novel = classifier.classify_with_novelty(texts)
    for place, (text, row) in enumerate(zip(texts, said, strict=True)):
        if novel is not None and classifier.is_novel(novel)[place]:
            text = f"{text}\t(unlike the training texts, more so than {novel[place]:.1%} of the validation texts)"
        if classifier.task == "rate":
            print(f"{row[0]:.2f}\t{text}")
            continue
        if classifier.task == "multi_label":
            given = given_labels(row, classifier.labels)
            sure = " ".join(f"{row[classifier.labels.index(label)]:.3f}" for label in given)
            # Of none, how probable the likeliest is.
            print(f"{separator.join(given) or '(none)'}\t{sure or f'{row.max():.3f}'}\t{text}")
            continue
        (answer,) = classifier.answers(row[None])
        print(f"{answer}\t{row.max():.3f}\t{text}")


def _generate(options: argparse.Namespace, rest: Sequence[str]) -> None:
    prompt, pairs = _prompt_and_options(rest)
    if (options.input is None) != (options.output is None) or (options.input and prompt):
        raise UserError("generate takes a PROMPT, or --input FILE with --output FILE")
    _quiet_libraries()
    from finetune.generate import generate_file, generation_options, load_generator

    chosen = generation_options(pairs)
    if options.input is not None:
        source, output = Path(options.input), Path(options.output)
        model = _fetched(options.model, options.revision)
        count = generate_file(model, source, output, options.prompt_column, chosen, options.seed)
        print(f"{count:,} texts written -> {output}")
        return
    generator = load_generator(_fetched(options.model, options.revision))
    if chosen.get("num_return_sequences", 1) == 1 and chosen.get("num_beams", 1) == 1:
        generator.stream(prompt, chosen, seed=options.seed)
        return
    for written in generator.generate([prompt], chosen, seed=options.seed)[0]:
        print(written.text if generator.answers else prompt + written.text)


def _suggest(options: argparse.Namespace, _: Sequence[str]) -> None:
    if options.count < 1:
        raise UserError(f"--count {options.count}: from 1 on")
    _quiet_libraries()
    from finetune.generate import load_generator

    generator = load_generator(_fetched(options.model, options.revision))
    for word in generator.suggest(options.prompt, options.count):
        print(f"{word.probability:.3f}\t{word.text.strip()}")


def _prompt_and_options(rest: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """The prompt, wherever it stands among the flags, and these as (name, value)."""
    prompts, flags = _words_and_flags(rest)
    if len(prompts) > 1:
        raise UserError(
            f"one prompt is needed, not {len(prompts)}; put it in quotes, or several into a file: --input FILE"
        )
    return "".join(prompts), parse_overrides(flags)


def _words_and_flags(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands by itself, wherever that is among the flags, and these with their values."""
    alone, flags = list[str](), list[str]()
    words = iter(rest)
    for word in words:
        if word.startswith("--"):
            flags += [word] if "=" in word else [word, *islice(words, 1)]
        else:
            alone.append(word)
    return alone, flags


def _compare(options: argparse.Namespace, _: Sequence[str]) -> None:
    from finetune.reporting.terminal import compare_and_print

    # What is here needs no look at the Hub, nor the seconds that its client takes to be imported.
    runs = [Path(run if Path(run).exists() or "/" not in run else _fetched(run)) for run in options.runs]
    compare_and_print(runs, Path(options.output))


def _inspect(options: argparse.Namespace, _: Sequence[str]) -> None:
    if options.rows < 1:
        raise UserError("--rows is a whole number from 1 on")
    _quiet_libraries()
    from finetune.inspection import inspect_runs

    by = list(dict.fromkeys(name for part in options.by.split(",") if (name := part.strip())))
    runs = [Path(run) for run in options.runs]
    said, page = inspect_runs(runs, Path(options.output), rows=options.rows, seed=options.seed, by=by)
    print("\n".join([*said, f"Report: {page}"]))


def _curve(options: argparse.Namespace, rest: Sequence[str]) -> None:
    overrides = parse_overrides(rest)
    recipes = [load_recipe(name, overrides) for name in options.recipes]
    with _explained(f"--sizes {options.sizes}: whole numbers are needed, such as 300,1000,3000,all"):
        sizes = [None if size == "all" else int(size) for size in options.sizes.split(",")]
    with _explained(f"--seeds {options.seeds}: whole numbers are needed, such as 3 or 3,3,1"):
        seeds = [int(number) for number in options.seeds.split(",")]
    with _explained(f"--tuned_up_to {options.tuned_up_to}: a whole number is needed, such as 10000"):
        tuned_up_to = None if options.tuned_up_to is None else int(options.tuned_up_to)
    _quiet_libraries()
    from finetune.curve import curve
    from finetune.progress import say

    typed = ["finetune", *sys.argv[1:]]
    page = curve(recipes, sizes, seeds, Path(options.output), typed, tuned_up_to=tuned_up_to)
    print(page.read_text(encoding="utf-8"))
    say(f"The same with plots: {page.with_suffix('.html')}")


def _ablate(options: argparse.Namespace, rest: Sequence[str]) -> None:
    overrides = parse_overrides(rest)
    with _explained(f"--seeds {options.seeds}: a whole number is needed, such as 3"):
        seeds = int(options.seeds)
    _quiet_libraries()
    from finetune.ablation import ablate, load_variants

    variants, gains = load_variants(options.variants, overrides)
    page = ablate(variants, gains, seeds, Path(options.output), ["finetune", *sys.argv[1:]])
    print(page.read_text(encoding="utf-8"))


def _novelty(options: argparse.Namespace, _: Sequence[str]) -> None:
    _quiet_libraries()
    from finetune.novelty import novelty
    from finetune.progress import say

    said, page = novelty(
        Path(options.model),
        Path(options.output),
        against=[Path(file) for file in options.against],
        text_column=options.text_column,
        method=options.method,
        false_alarms=options.false_alarms,
        rows=options.rows,
        seed=options.seed,
    )
    print("\n".join(said))
    say(f"\nReport: {page}")


def _control(options: argparse.Namespace, rest: Sequence[str]) -> None:
    _quiet_libraries()
    from finetune.control import control
    from finetune.generate import generation_options
    from finetune.progress import say

    writers = [Path(_fetched(run)) for run in options.runs]
    said, page = control(
        writers,
        Path(_fetched(options.classifier)),
        Path(options.output),
        samples=options.samples,
        seed=options.seed,
        options=generation_options(parse_overrides(rest)),
    )
    print("\n".join(said))
    say(f"\nReport: {page}")


def _lr_range(options: argparse.Namespace, rest: Sequence[str]) -> None:
    recipe = load_recipe(options.recipe, parse_overrides(rest))
    _quiet_libraries()
    from finetune.reporting.lr_range import check_output, write_range
    from finetune.training.lr_range import learning_rate_range

    output = Path(options.output)
    check_output(output)
    found = learning_rate_range(recipe, options.lowest, options.highest, options.steps)
    print(write_range(found, output).read_text(encoding="utf-8"))


def _gradients(options: argparse.Namespace, rest: Sequence[str]) -> None:
    names, flags = _words_and_flags(rest)
    overrides = parse_overrides(flags)
    if options.report_to is not None:
        overrides.append(("training.report_to", options.report_to))
    recipes = [load_recipe(name, overrides) for name in names]
    steps, lengths, layers = (
        _numbers(options, name, int, such_as)
        for name, such_as in (("steps", "0,50,200"), ("lengths", "16,32,64"), ("layers", "1,2,4"))
    )
    gains = _numbers(options, "recurrent_gain", float, "0.5,1,2")
    _quiet_libraries()
    from finetune.gradients import LINEUP_GAINS, Plan, gradients, lineup

    if not names and options.recurrent_gain is None:
        gains = LINEUP_GAINS
    plan = Plan(steps, lengths, options.rows, layers, gains)
    page = gradients(recipes or lineup(overrides), Path(options.output), plan, ["finetune", *sys.argv[1:]])
    print(page.read_text(encoding="utf-8"))


def _numbers(options: argparse.Namespace, name: str, kind: type[_Number], such_as: str) -> tuple[_Number, ...]:
    """The numbers of a flag, in their order and each once; none where it is not given."""
    given = getattr(options, name)
    with _explained(f"--{name} {given}: numbers are needed, such as {such_as}"):
        return () if given is None else tuple(dict.fromkeys(kind(number) for number in given.split(",")))


def _card(options: argparse.Namespace, _: Sequence[str]) -> None:
    _quiet_libraries()
    from finetune.reporting.card import write_card
    from finetune.run import open_run

    for path in options.runs:
        run = open_run(path)
        others = [Path(_fetched(other)) for other in options.beside]
        beside = [other for other in others if other.resolve() != run.path.resolve()]
        written = write_card(run, beside, license=options.license, language=options.language)
        missing = [*([] if written.license else ["licence"]), *written.empty_sections]
        print(f"{run.card_file}{': still to be written: ' + '; '.join(missing) if missing else ''}")


def _export(options: argparse.Namespace, _: Sequence[str]) -> None:
    _quiet_libraries()
    from finetune.export import export_run
    from finetune.run import open_run

    for path in options.runs:
        run = open_run(path)
        for name, found in export_run(run)["files"].items():
            same = f", {found['same_label']:.2%} with the same label" if found.get("same_label") is not None else ""
            print(
                f"{run.onnx_directory / name}: {found['bytes']:,} bytes, on {found['rows']:,} test rows at most "
                f"{found['largest_difference']:.2g} from the original{same}"
            )


def _push(options: argparse.Namespace, _: Sequence[str]) -> None:
    if (options.repo is None) == (options.space is None):
        raise UserError("push needs one of --repo OWNER/NAME and --space OWNER/NAME")
    if options.repo is not None and len(options.runs) > 1:
        raise UserError(f"--repo takes one run, not {len(options.runs)}; a --space takes several")
    _quiet_libraries()
    if options.space is not None:
        from finetune.hub.space import push_space

        pushed = push_space(options.runs, options.space, private=options.private, dry_run=options.dry_run)
    else:
        from finetune.hub.push import push

        pushed = push(
            options.runs[0],
            options.repo,
            private=options.private,
            revision=options.revision,
            predictions=not options.no_predictions,
            as_adapter=options.adapter,
            dry_run=options.dry_run,
        )
    if pushed is None:
        print("nothing was pushed: this was a dry run")
    elif pushed.is_new:
        print(f"{pushed.url} at commit {pushed.commit}")
    else:
        print(f"{pushed.url} has all of it already, at commit {pushed.commit}: no new commit was made")


def _demo(options: argparse.Namespace, _: Sequence[str]) -> None:
    name, colon, password = (options.auth or "").partition(":")
    if options.auth is not None and not (name and colon and password):
        raise UserError("--auth needs NAME:PASSWORD")
    _quiet_libraries()
    try:
        from finetune.demo import launch
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "gradio":
            raise
        raise UserError('the demo needs gradio: bash scripts/setup.sh demo, or pip install -e ".[demo]"') from None
    models = [_fetched(model) for model in options.models] or _quickstart_runs()
    auth = (name, password) if options.auth else None
    launch(
        models,
        host=options.host,
        port=options.port,
        auth=auth,
        concurrency=options.concurrency,
        flagging=options.flagging,
    )


def _quickstart_runs() -> list[str]:
    """The runs that the quickstart left, the fine-tuned ones first.

    Raises:
        UserError: it has not been run here.
    """
    from finetune.quickstart import CLASSIFIERS, WRITERS

    runs = [Path("runs") / name for name in (*reversed(CLASSIFIERS), *reversed(WRITERS))]
    found = [str(run) for run in runs if (run / "scores.json").is_file()]
    if not found:
        raise UserError(
            "no run or model is named, and runs/ has none of the quickstart's: name one, or run `finetune quickstart` "
            "first (some minutes)"
        )
    return found


def _fetched(model: str, revision: str | None = None) -> str:
    """The directory of a RUN|MODEL, downloaded where it is a Hub id, and fit to be loaded."""
    from finetune.hub.pull import fetch

    return fetch(model, revision)


@contextmanager
def _explained(message: str) -> Iterator[None]:
    """Say `message` where what a user typed is no number."""
    try:
        yield
    except ValueError:
        raise UserError(message) from None


def _quiet_libraries() -> None:
    """Progress bars and warnings of the libraries drown what a user has to read; errors still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    # What it logs as errors comes again as an exception, which is told in one line.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
