"""The page of small models, run in this process, and the browser that visits it."""

import shutil
import socket

import pytest
import torch
from decoders import write_decoder, writing_recipe
from reviews import small_recipe, write_ratings

from finetune.recipe import parse_recipe
from finetune.run import RunDirectory
from finetune.training import train

pytest.register_assert_rewrite("browser.pages")
LABELS = {"good": "재미있다", "bad": "지루하다"}


@pytest.fixture(scope="session")
def chromium_path():
    from browser.pages import chromium

    found = chromium()
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium fonts-noto-cjk, or set FINETUNE_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def models(chromium_path, tmp_path_factory):
    """Two classifiers, a rater, two writers, one of which writes by label, and one that chats."""
    directory = tmp_path_factory.mktemp("browser")
    few = {"num_train_epochs": 1}
    ratings = str(write_ratings(directory / "ratings.csv", 40))
    recipes = [
        small_recipe(directory, "lstm", rows=40, name="lstm", training=few),
        small_recipe(directory, "rnn", rows=40, name="rnn", training=few),
        small_recipe(directory, "lstm", training=few, name="rater", task="rate", data={"train_file": ratings}),
        parse_recipe(writing_recipe(directory, "gpt2-scratch", training=few) | {"name": "writer"}),
    ]
    runs = {recipe.name: train(recipe).path for recipe in recipes}
    by_label = RunDirectory(shutil.copytree(runs["writer"], directory / "runs" / "by-label"))
    recipe = by_label.recipe()
    by_label.write_recipe(recipe.model_copy(update={"data": recipe.data.model_copy(update={"labels": LABELS})}))
    torch.manual_seed(0)  # an answer that ends before it has begun would be none
    chatting = write_decoder(directory / "chatting", "qwen2")
    return {name: str(path) for name, path in {**runs, "by-label": by_label.path, "chatting": chatting}.items()}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """The file that keeps what visitors say of predictions."""
    return tmp_path_factory.mktemp("flags") / "flags.jsonl"


@pytest.fixture(scope="module")
def address(models, flags):
    """Of the running page."""
    from finetune.demo import launch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = launch(list(models.values()), port=port, wait=False, flagging=flags)
    yield running.local_url
    running.close()


# Not for the whole session: while it runs, no other test of this process could have an event loop of its own.
@pytest.fixture(scope="module")
def browser(chromium_path):
    from browser.pages import ARGUMENTS, TIMEOUT
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def visits(browser, address):
    """The visitors so far: to open a page takes seconds, so each look has one who stays."""
    open_visits = {}
    yield open_visits
    for visit in open_visits.values():
        visit.close()


@pytest.fixture
def enter(browser, address, visits):
    """Lets somebody of a look go on where they left off; none of them may have seen any trouble."""
    from browser.pages import Visit

    entered = set()

    def enter_as(look):
        if look not in visits:
            visits[look] = Visit(browser, address, look)
        entered.add(look)
        return visits[look]

    yield enter_as
    troubles = [f"{look}: {trouble}" for look in entered for trouble in visits[look].troubles]
    for look in entered:
        visits[look].troubles.clear()
    assert not troubles


@pytest.fixture
def visit(request, enter):
    return enter(request.param)
