"""Render the cards of the embedded models from the files that their runs wrote.

    python scripts/render_cards.py

Each `model_cards/NAME.md.jinja` becomes `model_cards/NAME.md`; what is said of the run comes from
`finetune/models/embedded/NAME/`.
"""

import json
from pathlib import Path
from typing import Any

import jinja2

from finetune.recipe import load_recipe
from finetune.reporting.learning_curve import curve_markdown

CARDS = Path(__file__).parent.parent / "model_cards"
EMBEDDED = Path(__file__).parent.parent / "finetune" / "models" / "embedded"


def render(template: Path) -> str:
    """The card of a template.

    Raises:
        jinja2.UndefinedError: the run's files lack something that the template names.
    """
    directory = EMBEDDED / template.name.removesuffix(".md.jinja")
    run = directory / "pretraining"
    log = [json.loads(line) for line in (run / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]
    values: dict[str, Any] = {
        name: json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("scores", "environment", "data")
    }
    experiments = run / "experiments.jsonl"
    values |= {
        "recipe": load_recipe(str(run / "recipe.yaml")),
        "config": json.loads((directory / "config.json").read_text(encoding="utf-8")),
        "validations": [record for record in log if "validation" in record],
        "bytes": (directory / "model.safetensors").stat().st_size,
        "experiments": [json.loads(line) for line in experiments.read_text(encoding="utf-8").splitlines()],
        "curves": {
            path.stem.removeprefix("curve-"): curve_markdown(json.loads(path.read_text(encoding="utf-8")))
            for path in sorted(run.glob("curve-*.json"))
        },
    }
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["interval"] = _interval
    return environment.from_string(template.read_text(encoding="utf-8")).render(values) + "\n"


def _interval(metric: dict[str, float], form: str = ".3f") -> str:
    return f"{metric['value']:{form}} [{metric['low']:{form}}, {metric['high']:{form}}]"


if __name__ == "__main__":
    for path in sorted(CARDS.glob("*.md.jinja")):
        (CARDS / path.name.removesuffix(".jinja")).write_text(render(path), encoding="utf-8")
