"""Render the cards of the embedded models, and those of runs that are kept here, from the files that the runs wrote.

    python scripts/render_cards.py [RUN ...]

Each `model_cards/NAME.md.jinja` becomes `model_cards/NAME.md`; what is said of the run comes from
`finetune/models/embedded/NAME/`. Each RUN is kept under `model_cards/runs/` without its model and its predictions; all
cards there are rendered anew, as `finetune card` does it.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jinja2

from finetune.hub.stage import copy_account
from finetune.recipe import load_recipe
from finetune.reporting.card import write_card
from finetune.reporting.learning_curve import curve_markdown
from finetune.reporting.tables import escape_markdown
from finetune.run import RunDirectory, open_run

CARDS = Path(__file__).parent.parent / "model_cards"
EMBEDDED = Path(__file__).parent.parent / "finetune" / "models" / "embedded"


def render(template: Path) -> str:
    """The card of a template.

    Raises:
        jinja2.UndefinedError: the run's files lack something that the template names.
    """
    directory = EMBEDDED / template.name.removesuffix(".md.jinja")
    account = directory / "pretraining"
    runs = [_run(path) for path in account.iterdir() if path.is_dir()]
    experiments = account / "experiments.jsonl"
    values: dict[str, Any] = {
        "name": directory.name,
        "runs": sorted(runs, key=lambda run: run["environment"]["start"]),
        "config": _json(directory / "config.json"),
        "bytes": (directory / "model.safetensors").stat().st_size,
        "experiments": _json_lines(experiments) if experiments.exists() else [],
        "curves": {
            path.stem.removeprefix("curve-"): curve_markdown(_json(path))
            for path in sorted(account.glob("curve-*.json"))
        },
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": _interval, "escaped": escape_markdown}
    return environment.get_template(template.name).render(values)


def _run(account: Path) -> dict[str, Any]:
    """What one run of the pretraining left."""
    log, samples = _json_lines(account / "train_log.jsonl"), account / "samples.jsonl"
    return {
        "name": account.name,
        "recipe": load_recipe(str(account / "recipe.yaml")),
        "validations": [record for record in log if "validation" in record],
        "samples": _json_lines(samples) if samples.exists() else [],
        **{name: _json(account / f"{name}.json") for name in ("scores", "environment", "data")},
    }


def keep(run: RunDirectory) -> None:
    """Keep what a run says of itself; its samples too, which are of a model that read the embedded reviews."""
    target = CARDS / "runs" / run.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    copy_account(run, target)
    for file in (run.card_file, run.samples_file, run.onnx_directory / "agreement.json"):
        if file.exists():
            (target / file.relative_to(run.path)).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target / file.relative_to(run.path))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _interval(metric: dict[str, float], form: str = ".3f") -> str:
    return f"{metric['value']:{form}} [{metric['low']:{form}}, {metric['high']:{form}}]"


if __name__ == "__main__":
    for path in sorted(CARDS.glob("*.md.jinja")):
        (CARDS / path.name.removesuffix(".jinja")).write_text(render(path), encoding="utf-8")
    for name in sys.argv[1:]:
        keep(open_run(name))
    for directory in sorted((CARDS / "runs").iterdir()):
        write_card(open_run(directory))
