"""A run goes to the Hub and comes back: proven first, whole or not at all, the same predictions elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import fails
from hub_server import hub
from published_runs import FAMILIES, train_run
from safetensors.torch import load_file, save_file

from finetune.cli import main
from finetune.errors import UserError
from finetune.hub import proof, push
from finetune.hub.pull import fetch
from finetune.hub.stage import stage
from finetune.predict import load_classifier
from finetune.reporting.card import Written
from finetune.run import open_run

__all__ = ["hub"]
TEXTS = ["정말 재미있다", "너무 지루하다 돈을 버렸다", "물"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("push")


@pytest.fixture(scope="module")
def trained(folder):
    """Runs by family, each trained once."""
    return cache(partial(train_run, folder))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run, to be changed."""
    return shutil.copytree(trained("encoder"), tmp_path / "runs" / "mine")


@pytest.fixture
def quick_proof(monkeypatch):
    """The proof without a process of its own, for tests of what comes after it."""

    def prove(directory):
        result = proof.prove(directory)
        if result["problems"]:
            raise UserError("; ".join(result["problems"]))
        return result["shown"]

    monkeypatch.setattr(push, "prove", prove)


def in_a_fresh_process(server, home, *command, text=None):
    environment = {**os.environ, **server.environment(home), "HF_MODULES_CACHE": str(home / "modules")}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=environment,
        input=text,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=[] if family == "bilstm-stacked" else pytest.mark.slow) for family in FAMILIES],
)
def test_a_pushed_run_says_elsewhere_what_it_says_here(trained, family, hub, tmp_path, capsys):
    """Push with the proof in its process; pull into an empty cache in another, by the card and by the command."""
    run = trained(family)
    assert main(["push", str(run), "--repo", "user/there"]) == 0
    captured = capsys.readouterr()
    assert "the tokenizer's ids are those of training" in captured.err
    assert "at commit" in captured.out
    card = hub.files("user/there")["README.md"].decode()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    writes = family in ("writer", "lora", "answerer")
    assert ("trust_remote_code=True" in code) == (family in ("writer", "bilstm-stacked", "answerer"))
    home = tmp_path / "elsewhere"
    # Isolated: what the card shows has to work without this package's directory on the path.
    arguments = ["물", "--seed", "1", "--max_new_tokens", "8"] if writes else TEXTS
    command = "generate" if writes else "predict"
    later = f"from finetune.cli import main\nprint('=====')\nmain({[command, 'user/there', *arguments]!r})"
    code += f"\nimport sys\nassert 'finetune.models' not in sys.modules\n{later}"
    printed, there = in_a_fresh_process(hub, home, "-I", "-c", code).split("=====\n")
    assert printed.strip()
    assert main([command, str(run), *arguments]) == 0
    assert there == capsys.readouterr().out


def test_a_second_push_makes_no_commit(run, hub, quick_proof, capsys):
    assert main(["push", str(run), "--repo", "user/mine", "--private"]) == 0
    files = set(hub.files("user/mine"))
    assert files == {
        *("README.md", "recipe.yaml", "environment.json", "data.json", "scores.json", "probe.json", "train_log.jsonl"),
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("plots/loss.svg", "plots/validation.svg", "predictions/test.parquet", "predictions/validation.parquet"),
        ".gitattributes",
    } | (files & {".gitattributes"}) - ({".gitattributes"} - files)
    commits = len(hub.commits("user/mine"))
    capsys.readouterr()
    assert main(["push", str(run), "--repo", "user/mine"]) == 0
    assert "no new commit was made" in capsys.readouterr().out
    assert len(hub.commits("user/mine")) == commits
    # What is no longer to be there goes, in one commit; what somebody else put there stays.
    hub.put("user/mine", {"notes.txt": b"mine"})
    assert main(["push", str(run), "--repo", "user/mine", "--no_predictions"]) == 0
    assert set(hub.files("user/mine")) == files - {"predictions/test.parquet", "predictions/validation.parquet"} | {
        "notes.txt"
    }
    assert len(hub.commits("user/mine")) == commits + 2


def test_what_is_to_be_private_does_not_go_where_all_can_read_it(run, hub, quick_proof, capsys):
    hub.put("user/open", {"notes.txt": b"mine"})
    for branch in ("main", "new"):
        command = ["push", str(run), "--repo", "user/open", "--private", "--revision", branch]
        assert "is there already and is public" in fails(capsys, *command)
    assert "config.json" not in hub.files("user/open")


def test_what_people_wrote_on_the_hub_stays(run, hub, quick_proof, capsys, monkeypatch):
    assert main(["push", str(run), "--repo", "user/mine"]) == 0
    assert "section 'Risks, bias and people concerned' is empty" in capsys.readouterr().err
    card = hub.files("user/mine")["README.md"].decode()
    begin, end = "<!-- person: risks -->\n", "\n<!-- end of risks -->"
    before, _, rest = card.partition(begin)
    changed = f"{before}{begin}It knows films only.{end}{rest.partition(end)[2]}"
    hub.put("user/mine", {"README.md": changed.replace("language: ko", "language: ko\nlicense: mit").encode()})
    # A card that cannot be read for a moment is not taken for none.
    monkeypatch.setattr(push, "_FIRST_PAUSE", 0.0)
    hub.fail("GET|HEAD", "README.md", status=503, times=2)
    commits = len(hub.commits("user/mine"))
    assert main(["card", str(run)]) == 0
    assert main(["push", str(run), "--repo", "user/mine"]) == 0
    err = capsys.readouterr().err
    assert "names no licence" not in err
    assert "'Risks, bias and people concerned' is empty" not in err
    kept = hub.files("user/mine")["README.md"].decode()
    assert "It knows films only." in kept
    assert "license: mit" in kept
    # Written here, it counts for more than what is there.
    text = (run / "README.md").read_text(encoding="utf-8")
    (run / "README.md").write_text(
        re.sub(rf"{begin}.*?{end}", f"{begin}Mine.{end}", text, flags=re.DOTALL), encoding="utf-8"
    )
    assert main(["push", str(run), "--repo", "user/mine"]) == 0
    assert "Mine." in hub.files("user/mine")["README.md"].decode()
    assert len(hub.commits("user/mine")) == commits + 2


def test_another_branch(run, hub, quick_proof):
    assert main(["push", str(run), "--repo", "user/mine", "--revision", "next"]) == 0
    assert "config.json" not in hub.files("user/mine")
    assert "config.json" in hub.files("user/mine", "next")
    assert load_classifier(fetch("user/mine@next")).labels == ["negative", "positive"]


def test_pulled_runs_are_evaluated_and_compared(trained, hub, quick_proof, tmp_path, capsys):
    """What compares runs and scores files takes names of the Hub as well as directories."""
    for family in ("encoder", "bilstm-stacked"):
        assert main(["push", str(trained(family)), "--repo", f"user/{family}"]) == 0
    floor = str(trained("tfidf"))
    output = str(tmp_path / "report")
    assert main(["compare", "user/encoder", "user/bilstm-stacked@main", floor, "--output", output]) == 0
    compared = json.loads((tmp_path / "report" / "comparison.json").read_text(encoding="utf-8"))
    assert {of_run["name"] for of_run in compared["runs"]} == {"encoder", "bilstm-stacked", "tfidf"}
    assert "has to be here" in fails(capsys, "evaluate", "user/encoder", "--split", "test")
    local = open_run(trained("encoder")).scores()["splits"]["test"]["metrics"]["accuracy"]["value"]
    assert local in [of_run["metrics"]["accuracy"]["value"] for of_run in compared["runs"]]
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n정말 재미있다,positive\n최악의 영화,negative\n", encoding="utf-8")
    for number, name in enumerate(("user/encoder", str(trained("encoder")))):
        arguments = ["--data", str(rows), "--output", str(tmp_path / str(number))]
        assert main(["evaluate", name, *arguments]) == 0
    one, other = (json.loads((tmp_path / name / "scores.json").read_text(encoding="utf-8")) for name in "01")
    assert one == other


# --- refusals ---------------------------------------------------------------------------------------------------------


def staged(run, directory):
    directory.mkdir()
    stage(open_run(run), directory, Written(), "user/mine")
    return directory


def permute_labels(run):
    file = run / "model" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["id2label"] = dict(zip(config["id2label"], reversed(config["id2label"].values()), strict=True))
    config["label2id"] = {name: int(number) for number, name in config["id2label"].items()}
    file.write_text(json.dumps(config), encoding="utf-8")


def change_weights(run, change):
    file = run / "model" / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def draw_head(run):
    change_weights(run, lambda weights: {**weights, "classifier.weight": weights["classifier.weight"] * -1.0})


def forget_head(run):
    change_weights(run, lambda weights: {k: v for k, v in weights.items() if not k.startswith("classifier.")})


def swap_tokenizer(run):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = run / "model" / name
        text = file.read_text(encoding="utf-8")
        if name == "tokenizer.json":
            tree = json.loads(text)
            names = {token["content"] for token in tree["added_tokens"]}
            words = [token for token in tree["model"]["vocab"] if token not in names]
            ids = [tree["model"]["vocab"][word] for word in words]
            tree["model"]["vocab"].update(zip(words, [*ids[1:], ids[0]], strict=True))
            file.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")


BROKEN = {
    "permuted labels": (permute_labels, "labels: positive, negative; the trained model has negative, positive"),
    "changed head": (draw_head, "other weights, or a head that was not trained"),
    "missing head": (forget_head, "2 missing keys, such as classifier.bias"),
    "foreign tokenizer": (swap_tokenizer, "not the model's own"),
}


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_proof_that_fails_stops_the_push(run, spoil, tmp_path):
    assert proof.prove(staged(run, tmp_path / "good"))["problems"] == []
    change, said = BROKEN[spoil]
    change(run)
    assert said in "; ".join(proof.prove(staged(run, tmp_path / "bad"))["problems"])


def test_a_failed_proof_is_told_and_nothing_is_pushed(run, hub, capsys):
    """Once through its own process; whatever is wrong comes the same way."""
    permute_labels(run)
    assert "not pushed: labels: positive, negative" in fails(capsys, "push", str(run), "--repo", "user/mine")
    assert not [request for request in hub.requests if request.method == "POST"]


def spoilt(run, what):
    match what:
        case "pickle":
            (run / "model" / "training_args.bin").write_bytes(b"\x80")
        case "link":
            (run / "model" / "vocab.txt").symlink_to("/etc/hostname")
        case "linked data":
            (run / "predictions" / "more.parquet").symlink_to(run / "predictions" / "test.parquet")
        case "texts":
            pq.write_table(pa.table({"id": ["1"], "text": ["글"]}), run / "predictions" / "extra.parquet")
        case "token":
            log = run / "train_log.jsonl"
            log.write_text(
                log.read_text(encoding="utf-8") + '{"step": 1, "note": "hf_' + "a1" * 17 + '"}\n', encoding="utf-8"
            )
        case "place":
            account = json.loads((run / "data.json").read_text(encoding="utf-8"))
            (run / "data.json").write_text(json.dumps({**account, "x": f"{Path.home()}/data.csv"}), encoding="utf-8")
        case "probe":
            (run / "probe.json").unlink()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pickle", "training_args.bin: may hold code"),
        ("link", "vocab.txt: a link; put the file itself there"),
        ("linked data", "more.parquet: a link"),
        ("texts", "extra.parquet: has the column text, which no run writes"),
        ("token", "train_log.jsonl: a token of the Hub stands in it"),
        ("place", "data.json: names a directory of this machine"),
        ("probe", "no probe.json, which training leaves"),
    ],
)
def test_what_must_not_be_published_is_refused(run, what, said, quick_proof, capsys):
    if what == "place" and len(Path.home().parts) < 2:
        pytest.skip("the home directory is the root")
    spoilt(run, what)
    assert said in fails(capsys, "push", str(run), "--repo", "user/mine", "--dry-run")


def test_no_place_of_this_machine_goes_up(trained, tmp_path):
    run = shutil.copytree(trained("encoder"), tmp_path / "run")
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    placed = [
        "/srv/me/x.yaml",
        "{train_file: /srv/me/a/b.csv, id: c/d}",
        "file:///srv/me/e.csv",
        "~/f.csv",
        "../../g/h.csv",
    ]
    environment["command"] = ["finetune", "train", *placed, "/i.csv", "https://hub/a/b", "1/2"]
    (run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    target = staged(run, tmp_path / "staged")
    cut = json.loads((target / "environment.json").read_text(encoding="utf-8"))["command"]
    kept = ["x.yaml", "{train_file: b.csv, id: c/d}", "e.csv", "f.csv", "h.csv", "i.csv", "https://hub/a/b", "1/2"]
    assert cut == ["finetune", "train", *kept]
    for file in target.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".yaml", ".md", ".jsonl"):
            assert str(trained("encoder").parent.parent) not in file.read_text(encoding="utf-8"), file
    # Nor a text of the data.
    whole = "".join(file.read_text(encoding="utf-8") for file in target.glob("*.*") if file.suffix in (".json", ".md"))
    lines = (trained("encoder").parent.parent / "reviews.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(lines) == 120
    assert not [line for line in lines if line.rpartition(",")[0] in whole]


def test_users_mistakes(run, trained, hub, monkeypatch, capsys):
    push_run = partial(fails, capsys, "push", str(run))
    assert "push needs one of --repo" in push_run()
    assert "owner/name" in push_run("--repo", "name")
    for name in ("user/../name", "user/my model", "user/x.git", "user/없음", "a/b/c"):
        assert "owner/name" in push_run("--repo", name)
        assert "owner/name" in push_run("--space", name)
    assert "--repo takes one run" in push_run(str(run), "--repo", "user/mine")
    assert "no adapter" in push_run("--repo", "user/mine", "--adapter", "--dry_run")
    assert "keeps predictions and scores but no model" in fails(
        capsys, "push", str(trained("majority")), "--repo", "a/b"
    )
    monkeypatch.delenv("HF_TOKEN")
    assert "no token of the Hub" in push_run("--repo", "user/mine")


def test_a_dry_run_needs_neither_network_nor_token(run, quick_proof, capsys):
    assert main(["push", str(run), "--repo", "user/mine", "--dry_run"]) == 0
    captured = capsys.readouterr()
    assert "nothing was pushed" in captured.out
    assert "model.safetensors" in captured.out
    assert "logits within" in captured.err


# --- faults -----------------------------------------------------------------------------------------------------------


COMMIT, LFS, TREE = r"/commit/", r"/lfs-objects/|/lfs/", r"/tree/"
FAULTS = {
    "500 at the commit": (("POST", COMMIT), {"status": 500}, 1),
    "503 three times": (("POST", COMMIT), {"status": 503, "times": 3}, 3),
    "429 with a time to wait": (("POST", COMMIT), {"status": 429, "headers": {"Retry-After": "7"}}, 1),
    "cut before the commit": (("POST", COMMIT), {"cut": "before"}, 1),
    "cut after the commit was made": (("POST", COMMIT), {"cut": "after"}, 1),
    "cut in the middle of its answer": (("POST", COMMIT), {"cut": "midway"}, 1),
    "a gateway that gives up on a commit that is made": (("POST", COMMIT), {"status": 504, "applied": True}, 1),
    "somebody else commits in between": (("POST", COMMIT), {"status": 412}, 1),
    "500 at creation": (("POST", "/repos/create"), {"status": 500}, 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_network_is_tried_again(fault, hub, tmp_path):
    (request, options, failures) = FAULTS[fault]
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    hub.fail(*request, **options)
    pauses = []
    done = push.upload(
        tmp_path, "user/mine", kind="model", private=False, revision="main", message="Push", pause=pauses.append
    )
    assert done.commit == hub.commits("user/mine")[-1].id
    assert hub.files("user/mine")["model.safetensors"] == b"weights"
    assert len(pauses) == failures
    assert pauses[0] == (7.0 if "429" in fault else 1.0)
    assert [commit.message for commit in hub.commits("user/mine")].count("Push") == 1


@pytest.mark.parametrize(("status", "said"), [(401, "does not know this token"), (403, "may not write there")])
def test_a_refusal_is_not_tried_again(status, said, hub, tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    hub.fail("POST", "/repos/create|/commit/", status=status)
    with pytest.raises(UserError, match=said):
        push.upload(tmp_path, "user/mine", kind="model", private=False, revision="main", message="Push")


def test_a_hub_that_stays_away(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    hub.fail("POST", COMMIT, status=500, times=99)
    pauses = []
    with pytest.raises(UserError, match="could not be reached in 5 attempts"):
        push.upload(
            tmp_path, "user/mine", kind="model", private=False, revision="main", message="Push", pause=pauses.append
        )
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert "config.json" not in hub.files("user/mine")


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_adapter_by_itself(trained, hub, tmp_path, capsys):
    """On a base that the Hub has; one on a local or embedded base goes up merged only."""
    run = shutil.copytree(trained("lora"), tmp_path / "lora")
    base = next(trained("lora").parent.parent.glob("checkpoint"))
    assert "which is not on the Hub" in fails(capsys, "push", str(run), "--repo", "user/lora", "--adapter")
    files = {file.name: file.read_bytes() for file in base.iterdir() if file.is_file()}
    # An adapter cannot mend its base's end token; the proof refused this one as it was.
    for name in ("config.json", "generation_config.json"):
        files[name] = json.dumps({**json.loads(files[name]), "bos_token_id": 0, "eos_token_id": 0}).encode()
    hub.put("user/base", files)
    recipe = run / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(
        re.sub(r"model_name_or_path: .*", "model_name_or_path: user/base", text, count=1), encoding="utf-8"
    )
    config = run / "adapter" / "adapter_config.json"
    tree = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**tree, "base_model_name_or_path": "user/base"}), encoding="utf-8")
    assert main(["push", str(run), "--repo", "user/lora", "--adapter"]) == 0
    files = hub.files("user/lora")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= set(files)
    assert "model.safetensors" not in files
    card = files["README.md"].decode()
    assert "base_model: user/base" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    assert in_a_fresh_process(hub, tmp_path / "elsewhere", "-I", "-c", code).strip()
    assert "holds an adapter without its model" in fails(capsys, "generate", "user/lora", "글")
