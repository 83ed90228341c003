"""A Space: the files that go up are all that the demo needs."""

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from command_line import fails
from hub_server import hub
from huggingface_hub import snapshot_download
from published_runs import train_run

import finetune
from finetune.cli import main
from finetune.hub import proof, space

__all__ = ["hub"]
pytest.importorskip("gradio", reason="needs gradio: bash scripts/setup.sh demo")
PACKAGE = Path(finetune.__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("space"), "bilstm-stacked")


@pytest.fixture
def quick_proof(monkeypatch):
    """The proof without a process of its own: others test that."""
    monkeypatch.setattr(space, "prove", lambda directory: proof.prove(directory)["shown"])


def test_the_wheel_is_the_package(tmp_path):
    wheel = space.write_wheel(tmp_path)
    first = wheel.read_bytes()
    assert space.write_wheel(tmp_path).read_bytes() == first
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        sources = {f"finetune/{file.relative_to(PACKAGE).as_posix()}" for file in PACKAGE.rglob("*.py")}
        assert sources <= set(names)
        assert "finetune/reporting/templates/card.md.j2" in names
        assert not [name for name in names if "__pycache__" in name]
        record = archive.read(next(name for name in names if name.endswith("RECORD"))).decode().splitlines()
        assert len(record) == len(names)
        for line in record[:-1]:
            name, digest, size = line.rsplit(",", 2)
            data = archive.read(name)
            found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={found}", len(data))


def test_a_space_is_pushed_once(run, hub, quick_proof, capsys):
    assert main(["push", str(run), "--space", "user/demo"]) == 0
    files = hub.files("user/demo", kind="space")
    assert {"app.py", "requirements.txt", "README.md", f"runs/{run.name}/model.safetensors"} <= set(files)
    assert any(name.endswith(".whl") for name in files)
    wanted = files["requirements.txt"].decode().splitlines()
    assert any(line.startswith("gradio") for line in wanted)
    assert any(line.startswith("torch") for line in wanted)
    assert not any("extra ==" in line or "pytest" in line for line in wanted)
    card = files["README.md"].decode()
    assert "sdk: gradio" in card
    assert f"runs/{run.name}/README.md" in card
    commits = len(hub.commits("user/demo", kind="space"))
    assert main(["push", str(run), "--space", "user/demo"]) == 0
    assert len(hub.commits("user/demo", kind="space")) == commits
    assert "no new commit was made" in capsys.readouterr().out


def test_two_runs_of_one_name(run, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / run.name)
    assert "two of the runs have one name" in fails(capsys, "push", str(run), str(other), "--space", "user/demo")


@pytest.mark.slow
def test_it_starts_from_the_files_that_went_up(run, hub, quick_proof, tmp_path):
    gradio_client = pytest.importorskip("gradio_client")
    assert main(["push", str(run), "--space", "user/demo"]) == 0
    directory = Path(snapshot_download("user/demo", repo_type="space", local_dir=tmp_path / "space"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {
        **os.environ,
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        client = gradio_client.Client(f"http://127.0.0.1:{port}", verbose=False)
        found = client.predict(text="정말 재미있다", api_name="/predict")
        assert "positive" in str(found)
        assert (directory / ".package" / "finetune" / "demo" / "app.py").exists()
    except Exception as error:
        raise AssertionError(log.read_text(encoding="utf-8")) from error
    finally:
        server.terminate()
        server.wait(30)
