"""One run of a study: what `curve` and `ablate` have many of."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.progress import say
from finetune.recipe import Recipe, with_values
from finetune.run import RunDirectory
from finetune.training import train


def train_cell(
    recipe: Recipe, name: str, seed: int, output: Path, command: Sequence[str], **changes: Mapping[str, Any]
) -> RunDirectory:
    """Train `recipe`, with fields of its sections changed, as OUTPUT/runs/NAME; it goes on where it was stopped.

    Raises:
        UserError: anything that `train` refuses.
    """
    say(f"\n{name}")
    named = recipe.model_copy(update={"name": name, "output_dir": str(output / "runs"), "seed": seed})
    run = train(with_values(named, **changes), resume=True, command=command)
    # A hundred runs keep their models; their optimizer states nobody needs any more, and they are ten times as large.
    shutil.rmtree(run.checkpoints_directory, ignore_errors=True)
    return run
