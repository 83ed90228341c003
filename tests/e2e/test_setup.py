"""The set-up script's own refusals."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def run_setup(tmp_path, interpreter):
    environment = {**os.environ, "PYTHON": str(interpreter)}
    return subprocess.run(
        ["bash", str(ROOT / "scripts" / "setup.sh")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_wrong_python_is_named_in_one_line(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = run_setup(tmp_path, old)
    assert done.returncode == 2
    assert done.stderr == (
        f"setup: Python 3.11 or newer is needed, {old} is: Python 3.9.2. Set PYTHON=/path/to/python3.11\n"
    )


def test_a_missing_python_is_named_in_one_line(tmp_path):
    done = run_setup(tmp_path, tmp_path / "none")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Python 3.11 or newer is needed" in done.stderr
