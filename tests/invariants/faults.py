"""Faults on real processes and real files: what a training does about each, and whether anything is lost.

    python tests/invariants/faults.py                    every fault; a table, exit code 1 if anything was lost
    python tests/invariants/faults.py --fault disk-full  one of them

After each fault the same command goes on with --resume. Weights (sha256), log and test scores, seconds aside, must
then equal those of a run that nothing happened to.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from kill_loop import Variant, command, kill_tree, outcome, undisturbed_outcome, write_recipe

# Many saves: a fault in one of them is then found soon.
ONE = Variant("bilstm-stacked", {"save_steps": 2, "save_total_limit": 3})
TWO = Variant("bilstm-stacked", {"save_steps": 2, "save_total_limit": 3}, processes=2)


@dataclass(frozen=True)
class Happened:
    """How the disturbed process ended, and the line that it said so with."""

    exit_code: int
    line: str


def start(variant: Variant, recipe: Path, output: Path) -> subprocess.Popen[str]:
    words = command(variant, recipe, output)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, **streams, text=True, errors="replace", start_new_session=True)  # type: ignore[call-overload, no-any-return]


def end(process: subprocess.Popen[str]) -> Happened:
    printed = process.communicate(timeout=300)[1]
    lines = [line.strip() for line in printed.splitlines() if any(map(str.isalnum, line))]
    ours = [line for line in lines if line.startswith("finetune:") or "the checkpoint before it is used" in line]
    return Happened(process.returncode, (ours or lines or [""])[-1])


def checkpoints(output: Path) -> list[Path]:
    return sorted((output / "run" / "checkpoints").glob("step-*"))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the moment for the fault never came"
        time.sleep(0.001)


def kill_after(recipe: Path, output: Path, saves: int) -> None:
    """Train, and `kill -9` after some checkpoints."""
    process = start(ONE, recipe, output)
    wait_until(lambda: len(checkpoints(output)) >= saves, process)
    kill_tree(process.pid)
    process.communicate()


# --- the faults: (recipe, output) -> what happened --------------------------------------------------------------------


def full_disk(recipe: Path, output: Path) -> Happened:
    """Everything that is left of a file system is taken away in mid-training, and given back afterwards."""
    process = start(ONE, recipe, output)
    wait_until(lambda: len(checkpoints(output)) >= 2, process)
    ballast = output / "ballast"
    with ballast.open("wb", buffering=0) as file:
        block = 2**20
        while block:
            try:
                file.write(bytes(block))
            except OSError:
                block //= 2
    happened = end(process)
    ballast.unlink()
    return happened


def truncated(recipe: Path, output: Path) -> Happened:
    kill_after(recipe, output, saves=3)
    file = checkpoints(output)[-1] / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    return end(start(ONE, recipe, output))


def bit_flipped(recipe: Path, output: Path) -> Happened:
    kill_after(recipe, output, saves=3)
    file = checkpoints(output)[-1] / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return end(start(ONE, recipe, output))


def signal_during_save(number: int) -> Callable[[Path, Path], Happened]:
    def fault(recipe: Path, output: Path) -> Happened:
        directory = output / "run" / "checkpoints"
        while True:
            shutil.rmtree(output, ignore_errors=True)
            process = start(ONE, recipe, output)
            wait_until(lambda: any(directory.glob(".unfinished-step-*")), process)
            os.kill(process.pid, signal.SIGSTOP)  # it stands still in the midst of the save, if that is not over
            if any(directory.glob(".unfinished-step-*")):
                os.kill(process.pid, number)
                os.kill(process.pid, signal.SIGCONT)
                return end(process)
            kill_tree(process.pid)
            process.communicate()

    return fault


def killed_peer(recipe: Path, output: Path) -> Happened:
    process = start(TWO, recipe, output)
    wait_until(lambda: len(checkpoints(output)) >= 2, process)
    workers = [child for child in psutil.Process(process.pid).children() if "train_baseline" in str(child.cmdline())]
    assert len(workers) == 2
    workers[1].kill()
    return end(process)


FAULTS: dict[str, tuple[Variant, Callable[[Path, Path], Happened]]] = {
    "disk-full": (ONE, full_disk),
    "truncated-checkpoint": (ONE, truncated),
    "bit-flipped-checkpoint": (ONE, bit_flipped),
    "sigterm-during-save": (ONE, signal_during_save(signal.SIGTERM)),
    "sigkill-during-save": (ONE, signal_during_save(signal.SIGKILL)),
    "killed-peer": (TWO, killed_peer),
}


def check(name: str, directory: Path) -> dict[str, Any]:
    """Train once undisturbed and once with the fault and --resume; returns what happened and both outcomes."""
    variant, fault = FAULTS[name]
    recipe = write_recipe(directory, variant)
    expected = undisturbed_outcome(variant, recipe, directory / "undisturbed")
    disturbed = directory / "disturbed"
    disturbed.mkdir()
    happened = fault(recipe, disturbed)
    resumed = end(start(variant, recipe, disturbed))
    assert resumed.exit_code == 0, resumed
    return {
        "exit_code": happened.exit_code,
        "line": happened.line.replace(str(disturbed), "RUNS"),
        "expected": expected,
        "found": outcome(disturbed / "run"),
    }


def check_on_small_disk(name: str, directory: Path) -> dict[str, Any] | None:
    """`check` on a file system of 16 MiB of its own; None where this machine does not let us mount one."""
    disk, result = directory / "disk", directory / "result.json"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=16m tmpfs "$0" || exit 77; exec "$@"'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(disk)]
    inside = [sys.executable, __file__, "--fault", name, "--directory", str(disk), "--output", str(result)]
    try:
        done = subprocess.run([*words, *inside], capture_output=True, text=True, timeout=600, check=False)
    except FileNotFoundError:
        return None
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        return None
    assert done.returncode == 0, done.stderr
    return json.loads(result.read_text(encoding="utf-8"))


def run(name: str, directory: Path) -> dict[str, Any] | None:
    return check_on_small_disk(name, directory) if name == "disk-full" else check(name, directory)


def main() -> int:
    """Print a row per fault; exit code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.output:
        options.output.write_text(json.dumps(check(options.fault[0], options.directory)), encoding="utf-8")
        return 0
    lost = 0
    print(f"{'fault':24} {'exit':>4}  {'after --resume: weights, log, scores':38} what it said", flush=True)
    for name in options.fault or FAULTS:
        with tempfile.TemporaryDirectory() as directory:
            result = run(name, Path(directory))
        if result is None:
            print(f"{name:24} skipped: no file system can be mounted here", flush=True)
            continue
        expected, found = result["expected"], result["found"]
        equal = ["equal" if expected[key] == found[key] else "DIFFER" for key in ("weights", "log", "scores")]
        lost += "DIFFER" in equal
        print(f"{name:24} {result['exit_code']:4}  {', '.join(equal):38} {result['line'][:160]}", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
