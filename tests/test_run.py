"""The run directory: made once, never overwritten unasked, read whole."""

import pytest

from finetune.errors import UserError
from finetune.recipe import parse_recipe
from finetune.run import create_run, open_run


def recipe(tmp_path):
    data = {"train_file": str(tmp_path / "x.csv")}
    return parse_recipe({"name": "a", "data": data, "model": {"family": "majority"}})


def test_a_run_is_not_replaced_unless_asked(tmp_path):
    run = create_run(tmp_path / "a")
    run.write_recipe(recipe(tmp_path))
    (run.path / "precious").write_text("x")
    with pytest.raises(UserError, match="exists; choose another --name, or pass --overwrite"):
        create_run(tmp_path / "a")
    assert (run.path / "precious").exists()
    create_run(tmp_path / "a", overwrite=True)
    assert not (run.path / "precious").exists()


def test_overwrite_never_removes_what_is_no_run(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("x")
    with pytest.raises(UserError, match="is not a run directory, so --overwrite does not remove it"):
        create_run(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_the_recipe_survives(tmp_path):
    run = create_run(tmp_path / "a")
    run.write_recipe(recipe(tmp_path))
    assert open_run(run.path).recipe() == recipe(tmp_path)


@pytest.mark.parametrize(("name", "message"), [("nothing", "no such run directory"), (".", "not a run directory")])
def test_what_is_no_run_is_named(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        open_run(tmp_path / name)


def test_damaged_and_missing_files_are_named(tmp_path):
    run = create_run(tmp_path / "a")
    run.write_recipe(recipe(tmp_path))
    with pytest.raises(UserError, match=r"no data\.json; the run did not finish"):
        run.data()
    run.data_file.write_text('{"a": 1,\n')
    with pytest.raises(UserError, match=r"data\.json: damaged at line 2"):
        run.data()
    assert list(run.log()) == []
    assert run.scores() == {"splits": {}, "cost": {}}
