"""A Gradio Space: the demo with one run or several, in files that need nothing but packages of PyPI."""

import base64
import hashlib
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path

import finetune
from finetune.errors import UserError
from finetune.hub.push import Pushed, check_repo_id, print_listed, prove, upload
from finetune.hub.stage import stage
from finetune.progress import say
from finetune.reporting.card import write_card
from finetune.run import RunDirectory, open_run

_DISTRIBUTION = "finetune-transfer"
_APP = '''"""The demo of {names}: its package is unpacked from the wheel beside this file."""

import os
import sys
import zipfile
from pathlib import Path

here = Path(__file__).parent
package = here / ".package"
if not package.exists():
    with zipfile.ZipFile(here / "{wheel}") as wheel:
        wheel.extractall(package)
sys.path.insert(0, str(package))

from finetune.demo import launch

if __name__ == "__main__":
    launch(
        [str(here / "runs" / name) for name in {names!r}],
        host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
'''
_CARD = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
python_version: "3.12"
app_file: app.py
pinned: false
---

# {title}

{rows}

Each is described by the card in its directory: how it was trained, how it scores and where its limits are. The demo
keeps nothing of what is typed into it. Its code is the wheel in this repository.
"""


def stage_space(runs: Sequence[RunDirectory], directory: Path, repo_id: str) -> None:
    """Put a Space with the demo of `runs` into the empty `directory`; each run's files are proven first.

    Raises:
        UserError: a run cannot be shown as it is.
    """
    names = [run.name for run in runs]
    for run in runs:
        target = directory / "runs" / run.name
        target.mkdir(parents=True)
        stage(run, target, write_card(run), None, place=f"runs/{run.name}", predictions=False)
        say(f"{run.name}: proving its files in a process of its own")
        for line in prove(target):
            say(f"  {line}")
    wheel = write_wheel(directory)
    (directory / "app.py").write_text(_APP.format(names=names, wheel=wheel.name), encoding="utf-8")
    wanted = [line for line in metadata.requires(_DISTRIBUTION) or [] if "extra ==" not in line]
    demo = [line.partition(";")[0].strip() for line in metadata.requires(_DISTRIBUTION) or [] if "'demo'" in line]
    lines = ["--extra-index-url https://download.pytorch.org/whl/cpu", *sorted({*wanted, *demo})]
    (directory / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = "\n".join(f"- [{name}](runs/{name}/README.md)" for name in names)
    title = repo_id.rpartition("/")[2]
    card = _CARD.format(title=title, gradio=metadata.version("gradio"), rows=rows)
    (directory / "README.md").write_text(card, encoding="utf-8")


def push_space(
    run_paths: Sequence[str], repo_id: str, *, private: bool = False, dry_run: bool = False
) -> Pushed | None:
    """Push the demo of runs as a Gradio Space; None for a dry run, which stops before the network.

    Raises:
        UserError: a run cannot be shown as it is, or the Hub refuses.
    """
    check_repo_id(repo_id, "--space")
    runs = [open_run(path) for path in run_paths]
    if len({run.name for run in runs}) < len(runs):
        raise UserError("--space: two of the runs have one name; train one of them under another --name")
    with tempfile.TemporaryDirectory(prefix="finetune-space-") as temporary:
        directory = Path(temporary)
        stage_space(runs, directory, repo_id)
        if dry_run:
            print_listed(directory)
            return None
        message = f"Push the demo of {', '.join(run.name for run in runs)}"
        return upload(
            directory, repo_id, kind="space", private=private, revision="main", message=message, space_sdk="gradio"
        )


def write_wheel(directory: Path) -> Path:
    """This package as a wheel (PEP 427) in `directory`, made of its installed files: no build tool, no network."""
    name = f"finetune_transfer-{finetune.__version__}"
    info = f"{name}.dist-info"
    root = Path(str(resources.files("finetune")))
    content = {
        f"finetune/{file.relative_to(root).as_posix()}": file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    }
    described = metadata.distribution(_DISTRIBUTION)
    content[f"{info}/METADATA"] = (described.read_text("METADATA") or "").encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: finetune\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[f"{info}/entry_points.txt"] = (described.read_text("entry_points.txt") or "").encode()
    record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = directory / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in content.items():
            # Equal files give an equal wheel, so that a second push of it changes nothing.
            wheel.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
