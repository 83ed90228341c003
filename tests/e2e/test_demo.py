"""README's demo commands, typed in a directory with the quickstart's runs."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs gradio: pip install 'finetune-transfer[demo]'")

import httpx
from reviews import small_recipe

from finetune.cli import main
from finetune.training import train

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


def commands():
    """What README's section on the demo has to be typed."""
    section = re.search(r"^## Look at them in a browser\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)[1]
    return [shlex.split(line, comments=True) for line in re.findall(r"^    (finetune demo.*)$", section, re.MULTILINE)]


@contextmanager
def served(command, directory):
    """The command in a process of its own, once it says where its page is; Ctrl-C ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = [sys.executable, "-m", *command, "--port", port]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments,
        cwd=directory,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background Ctrl-C is ignored, which children would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        started = time.monotonic()
        line = process.stderr.readline()
        assert f"http://127.0.0.1:{port}" in line, line + process.stderr.read()
        assert time.monotonic() - started < 90
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_readmes_demo_shows_the_quickstarts_runs(tmp_path, monkeypatch, capsys):
    plain, full = commands()
    assert plain == ["finetune", "demo"]
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 2
    assert "run `finetune quickstart` first" in capsys.readouterr().err
    for name in ("quickstart-lstm", "mine"):
        train(small_recipe(tmp_path, "lstm", rows=40, name=name, training={"num_train_epochs": 1}))
    shown = []
    monkeypatch.setattr("finetune.demo.launch", lambda names, **_: shown.append(names))
    assert main(plain[1:]) == 0
    assert shown == [["runs/quickstart-lstm"]]
    assert full[:2] == plain
    assert "--flagging" in full
    name, _, password = full[full.index("--auth") + 1].partition(":")
    with served(full, tmp_path) as url:
        http = httpx.Client(verify=False, base_url=url, timeout=60)
        asked = {"data": ["정말 재미있다", ""]}
        assert http.post("/gradio_api/call/predict", json=asked).status_code == 401
        assert http.post("/login", data={"username": name, "password": "wrong"}).status_code == 400
        http.post("/login", data={"username": name, "password": password}).raise_for_status()
        event = http.post("/gradio_api/call/predict", json=asked).json()["event_id"]
        said = http.get(f"/gradio_api/call/predict/{event}").text
        assert json.loads(said.split("data: ")[-1])[0]["model"] == "mine"
    assert (tmp_path / full[full.index("--flagging") + 1]).read_text() == ""
