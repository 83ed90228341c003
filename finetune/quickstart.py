"""`finetune quickstart`: floors, models from scratch and a pretrained encoder on the embedded reviews, compared."""

import shutil
import sys
from pathlib import Path

from finetune.progress import say
from finetune.recipe import load_recipe
from finetune.reporting.terminal import compare_and_print
from finetune.training import train

QUICKSTART_RECIPES = (
    "quickstart-majority",
    "quickstart-tfidf",
    "quickstart-lstm",
    "quickstart-encoder",
    "quickstart-mini-bert-frozen",
    "quickstart-mini-bert",
)


def quickstart(output_dir: Path, report_dir: Path) -> None:
    """Train all of them, write the comparison, say what to do next; earlier quickstart runs are replaced."""
    runs: list[Path] = []
    for number, name in enumerate(QUICKSTART_RECIPES, start=1):
        say(f"\n[{number}/{len(QUICKSTART_RECIPES)}] finetune train {name}")
        recipe = load_recipe(name, [("output_dir", str(output_dir))])
        runs.append(train(recipe, overwrite=True, command=["finetune", "train", name]).path)
    say("")
    compare_and_print(runs, report_dir)
    command = "finetune" if shutil.which("finetune") else Path(sys.argv[0]).as_posix()
    print(f"""
Next:
  {command} predict {output_dir / "quickstart-mini-bert"} "배우는 좋았는데 이야기가 산으로 간다"
  {command} recipes                 the shipped recipes: NSMC, KoBERT, KLUE-BERT, SST-2, IMDB
  {command} train --help            every field of a recipe; README.md shows a recipe for a CSV of your own
""")
