"""`finetune quickstart`: floors, an LSTM and a small encoder on the embedded reviews, compared in one report."""

from pathlib import Path

from finetune.progress import say
from finetune.recipe import load_recipe
from finetune.reporting.terminal import compare_and_print
from finetune.training import train

QUICKSTART_RECIPES = ("quickstart-majority", "quickstart-tfidf", "quickstart-lstm", "quickstart-encoder")


def quickstart(output_dir: Path, report_dir: Path) -> None:
    """Train the four, write the comparison, say what to do next; earlier quickstart runs are replaced."""
    runs: list[Path] = []
    for number, name in enumerate(QUICKSTART_RECIPES, start=1):
        say(f"\n[{number}/{len(QUICKSTART_RECIPES)}] finetune train {name}")
        recipe = load_recipe(name, [("output_dir", str(output_dir))])
        runs.append(train(recipe, overwrite=True, command=["finetune", "train", name]).path)
    say("")
    compare_and_print(runs, report_dir)
    lstm = output_dir / "quickstart-lstm"
    print(f"""
Next:
  finetune predict {lstm} "배우는 좋았는데 이야기가 산으로 간다"
  finetune recipes                                  the shipped recipes: NSMC, KoBERT, KLUE-BERT, SST-2, IMDB
  finetune train quickstart-lstm --name mine --data.dataset_name null --data.train_file reviews.csv
""")
