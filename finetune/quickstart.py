"""`finetune quickstart`: what transfer buys on the embedded reviews, in labelling them and in writing some."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.errors import UserError
from finetune.generate import load_generator
from finetune.progress import say
from finetune.recipe import Recipe, load_recipe
from finetune.reporting.compare import check_output
from finetune.reporting.tables import Cell, Column, Table, markdown_table
from finetune.reporting.terminal import compare_and_print
from finetune.training import train

CLASSIFIERS = (
    "quickstart-majority",
    "quickstart-tfidf",
    "quickstart-lstm",
    "quickstart-encoder",
    "quickstart-mini-bert-frozen",
    "quickstart-mini-bert",
)
WRITERS = ("quickstart-lstm-writer", "quickstart-mini-gpt")
_LABELS = ("부정", "중립", "긍정")
_SEED, _TEMPERATURE = 1, 0.8
_MAY_CHANGE = ("training.", "evaluation.", "seed")


def quickstart(output_dir: Path, report_dir: Path, overrides: Sequence[tuple[str, str]] = ()) -> None:
    """Train all of them, write the comparisons, say what to do next; earlier quickstart runs are replaced.

    The writers' comparison goes beside `report_dir`, whose name it has with -writers behind it. `overrides` are for
    every recipe: of how it is trained and scored, since its data and its model are what the comparison is about.

    Raises:
        UserError: a place for a report holds something else, or an override is wrong.
    """
    recipes = _recipes([*overrides, ("output_dir", str(output_dir))])
    check_output(report_dir)  # not after all of the training
    named = report_dir if report_dir.name not in ("", "..") else report_dir.resolve()
    writers_report = named.with_name(f"{named.name}-writers")
    check_output(writers_report)
    classifiers = _train(CLASSIFIERS, recipes, overrides)
    say("")
    compare_and_print(classifiers, report_dir)
    writers = _train(WRITERS, recipes, overrides)
    say("")
    compare_and_print(writers, writers_report)
    _write_reviews(writers, writers_report)
    command = "finetune" if shutil.which("finetune") else Path(sys.argv[0]).as_posix()
    print(f"""
Next:
  {command} predict {output_dir / "quickstart-mini-bert"} "배우는 좋았는데 이야기가 산으로 간다"
  {command} generate {output_dir / "quickstart-mini-gpt"} 긍정 --temperature 0.8
  {command} recipes                 the shipped recipes: NSMC, KoBERT, KLUE-BERT, SST-2, IMDB
  {command} train --help            every field of a recipe; README.md shows a recipe for a CSV of your own
""")


def _recipes(overrides: Sequence[tuple[str, str]]) -> dict[str, Recipe]:
    for name, _ in overrides:
        if name != "output_dir" and not name.startswith(_MAY_CHANGE):
            raise UserError(
                f"quickstart: {name} is each recipe's own; fields of training, of evaluation and the seed can be "
                "given. `finetune train` takes all of them"
            )
    return {name: load_recipe(name, overrides) for name in (*CLASSIFIERS, *WRITERS)}


def _train(names: Sequence[str], recipes: Mapping[str, Recipe], overrides: Sequence[tuple[str, str]]) -> list[Path]:
    given = [word for name, value in overrides for word in (f"--{name}", value)]
    runs: list[Path] = []
    for name in names:
        command = ["finetune", "train", name, *given]
        say(f"\n[{1 + list(recipes).index(name)}/{len(recipes)}] {shlex.join(command)}")
        runs.append(train(recipes[name], overwrite=True, command=command).path)
    return runs


def _write_reviews(runs: Sequence[Path], report_dir: Path) -> None:
    """One review for each label by each run, printed and kept in the report; the first drawn, none is picked."""
    print(f"\nA review for each label (the first one drawn with seed {_SEED}, temperature {_TEMPERATURE}):")
    options = {"temperature": _TEMPERATURE, "max_new_tokens": 48}
    written = [
        [texts[0].text.strip() for texts in load_generator(str(run)).generate(_LABELS, options, seed=_SEED)]
        for run in runs
    ]
    for number, label in enumerate(_LABELS):
        print(f"\n  {label}")
        for run, texts in zip(runs, written, strict=True):
            print(f"    {run.name}: {texts[number]}")
    columns = (Column("Label", is_number=False), *(Column(run.name, is_number=False) for run in runs))
    rows = [tuple(map(Cell, (label, *texts))) for label, *texts in zip(_LABELS, *written, strict=True)]
    (report_dir / "reviews.md").write_text(f"{markdown_table(Table(columns, tuple(rows)))}\n", encoding="utf-8")
