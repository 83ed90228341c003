"""The page as a person uses it: what is pressed and read is found by what it is called."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, expect

from finetune.demo.words import PAGE, SENTENCES

TIMEOUT = 20_000
"""Milliseconds that anything may take on a busy machine."""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
"""Chromium asks nobody anything, and needs no namespaces and no graphics."""
DEVICES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
LOCALES = {"ko": "ko-KR", "en": "en-US"}
TABS = ("sentiment", "compare", "generate", "chat", "batch", "report")
BUSY = "[data-testid=status-tracker]:not(.hide):not(:has(.error))"
"""What turns while the page waits; after a refusal it says "error" instead."""

GRADIOS_OWN = ["Cannot read properties of null (reading 'offsetWidth')"]
"""Of a bar plot that is put away while it is being drawn: nobody sees that."""


@dataclass(frozen=True)
class Look:
    """Who visits, with what."""

    language: Literal["ko", "en"]
    device: Literal["desktop", "phone"]
    scheme: Literal["light", "dark"]

    def __str__(self) -> str:
        return f"{self.language}-{self.device}-{self.scheme}"


def chromium() -> str | None:
    """Where Chromium or Chrome is; FINETUNE_CHROMIUM, if set, says where."""
    named = os.environ.get("FINETUNE_CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next(filter(_runs, filter(None, map(shutil.which, names))), None)


def _runs(path: str) -> bool:
    """Ubuntu has a program of that name that only says how to install it."""
    return subprocess.run([path, "--version"], capture_output=True, check=False, timeout=60).returncode == 0


def told_by_axe(page: Page) -> list[str]:
    """What axe finds wrong with a page, the impact first; frames in which nothing may run are passed over."""
    found = (
        Axe()
        .run(page, options={"resultTypes": ["violations"], "iframes": False, "preload": False})
        .response["violations"]
    )
    return [f"{one['impact']}: {one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


class Visit:
    """A browser with the page open. `troubles` are what nobody should see: errors, failed requests, other hosts.

    `first_paint` and `opened_in`, until the first tab can be used, are seconds.
    """

    def __init__(self, browser: Browser, address: str, look: Look) -> None:
        self.look = look
        self.address = address
        self.troubles: list[str] = []
        self.context: BrowserContext = browser.new_context(
            locale=LOCALES[look.language], color_scheme=look.scheme, **DEVICES[look.device]
        )
        self.context.set_default_timeout(TIMEOUT)
        self._watch()
        self.page: Page = self.context.new_page()
        self.speak(look.language)
        began = time.perf_counter()
        self.page.goto(address)
        self.wait_until_open()
        self.opened_in = time.perf_counter() - began
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        self.first_paint = self.page.evaluate(paint) / 1000

    def speak(self, language: Literal["ko", "en"]) -> None:
        """Whose words are looked for from now on."""
        self.words = PAGE[language]
        self.sentences = SENTENCES[language]

    def wait_until_open(self) -> None:
        self.button("predict").or_(self.button("write")).first.wait_for()

    def close(self) -> None:
        self.context.close()

    def _watch(self) -> None:
        def note(kind: str, said: object) -> None:
            self.troubles.append(f"{kind}: {said}")

        def check_host(request: Request) -> None:
            url = urlsplit(request.url)
            if url.scheme not in ("data", "blob", "about") and url.hostname != "127.0.0.1":
                note("request to another host", request.url)

        def check_failure(request: Request) -> None:
            # The stream of answers is closed by the page once it has all of them.
            if not (urlsplit(request.url).path.endswith("/queue/data") and request.failure == "net::ERR_ABORTED"):
                note("request failed", f"{request.url} {request.failure}")

        on = self.context.on
        on("console", lambda message: note("console", message.text) if message.type == "error" else None)
        on("weberror", lambda error: note("script", error.error) if error.error.message not in GRADIOS_OWN else None)
        on("dialog", lambda dialog: (note("dialog", dialog.message), dialog.dismiss()))
        on("request", check_host)
        on("requestfailed", check_failure)
        on("response", lambda answer: note("status", f"{answer.status} {answer.url}") if answer.status >= 400 else None)

    # --- finding and pressing

    @property
    def panel(self) -> Locator:
        """What the tab in front shows."""
        return self.page.locator("[role=tabpanel]:visible")

    def press(self, target: str | Locator) -> None:
        """Something by its key among the words, or itself."""
        found = self.button(target) if isinstance(target, str) else target
        if self.look.device == "phone":
            found.tap()
        else:
            found.click()

    def button(self, key: str) -> Locator:
        return self.panel.get_by_role("button", name=self.words[key], exact=True)

    def box(self, key: str) -> Locator:
        return self.panel.get_by_role("textbox", name=re.compile(f"^{re.escape(self.words[key])}"))

    def open_tab(self, key: str) -> None:
        """On a narrow screen some tabs are in a menu."""
        self.close_toasts()
        name = self.words[key]
        tab = self.page.get_by_role("tab", name=name, exact=True)
        menu = self.page.locator(".overflow-menu > button")
        tab.or_(menu).filter(visible=True).first.wait_for()
        if tab.is_visible():
            self.press(tab)
        else:
            self.press(menu)
            self.press(self.page.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True))
        self.page.locator(f"[role=tab][aria-selected=true]:text-is('{name}')").first.wait_for(state="attached")

    def choose(self, key: str, name: str) -> None:
        """One of a list that opens."""
        self.press(self.panel.get_by_role("combobox", name=self.words[key], exact=True))
        self.press(self.page.get_by_role("option", name=name))

    def open_settings(self) -> None:
        if not self.box("seed").is_visible():
            self.press(self.panel.get_by_role("button", name=re.compile(f"^{self.words['settings']}")))
            expect(self.box("seed")).to_be_visible()

    def ask(self, target: str | Locator) -> None:
        """Press what asks the server, and wait for the end of its answer."""
        with self.page.expect_request("**/queue/join?*"):
            self.press(target)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        self.page.wait_for_function("busy => !document.querySelector(busy)", arg=BUSY)

    # --- refusals

    @property
    def toasts(self) -> Locator:
        return self.page.get_by_test_id("toast-text")

    def refusal(self) -> str:
        """The one sentence with which a request was refused; it is closed."""
        expect(self.toasts).to_have_count(1)
        sentence = self.toasts.inner_text()
        self.close_toasts()
        return sentence

    def close_toasts(self) -> None:
        closers = self.page.get_by_test_id("toast-close")
        while count := closers.count():
            self.press(closers.first)
            expect(closers).not_to_have_count(count)  # it flies away

    # --- what the tabs show

    @property
    def label(self) -> Locator:
        return self.panel.get_by_test_id("label-output-value")

    @property
    def evidence(self) -> Locator:
        return self.panel.locator(".evidence")

    @property
    def table(self) -> Locator:
        return self.panel.locator(".plain-table table")

    def rows(self) -> list[list[str]]:
        """Of the table, without its head."""
        return [row.locator("td").all_inner_texts() for row in self.table.locator("tbody tr").all()]

    @property
    def downloads(self) -> Locator:
        """The file that was sent, and the one that was made of it."""
        return self.panel.get_by_test_id("download-link")

    @property
    def frame(self) -> Locator:
        return self.panel.locator("iframe.report")

    # --- what holds of any tab, after it was used

    def check(self, *, axe: bool = True) -> None:
        """Nothing is untranslated or in the other language, nothing sticks out, and axe finds nothing serious."""
        lines = self._lines()
        for line in lines:
            assert "__i18n__" not in line
            assert "[object Object]" not in line
            assert "page-word-" not in line  # a key instead of what it stands for
        other = PAGE["en" if self.words is PAGE["ko"] else "ko"]
        assert not lines & (set(other.values()) - set(self.words.values()))
        width, wide = self.page.evaluate("[innerWidth, document.scrollingElement.scrollWidth]")
        assert wide <= width + 1
        assert width == DEVICES[self.look.device]["viewport"]["width"]  # a phone zooms out of what is too wide
        assert (self.luminance() < 0.2) == (self.look.scheme == "dark")
        if axe:
            told = told_by_axe(self.page)
            print(f"axe, {self.look}:", *told, sep="\n  ")
            assert not [one for one in told if one.startswith(("serious", "critical"))]

    def _lines(self) -> set[str]:
        attributes = self.page.evaluate(
            "[...document.querySelectorAll('*')].flatMap("
            "e => ['aria-label', 'title', 'placeholder', 'alt'].map(name => e.getAttribute(name)).filter(x => x))"
        )
        lines = [*self.page.locator("body").inner_text().splitlines(), *attributes]
        return {line.strip() for line in lines}

    def luminance(self) -> float:
        """Of the background, from 0 to 1."""
        colour = self.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 765

    # --- each tab, used once

    def predict(self, text: str) -> None:
        self.open_tab("sentiment")
        self.box("text").fill(text)
        self.ask("predict")
        expect(self.label).to_be_visible()

    def compare(self, text: str) -> None:
        self.open_tab("compare")
        self.box("text").fill(text)
        self.ask("predict_all")
        expect(self.table).to_be_visible()

    def generate(self) -> None:
        self.open_tab("generate")
        if self.box("prompt").is_visible():
            self.box("prompt").fill("이 영화는 ")
        self.ask("write")
        expect(self.box("written")).not_to_have_value("")

    def chat(self, message: str) -> None:
        self.open_tab("chat")
        self.box("message").fill(message)
        self.ask("send")
        expect(self.panel.get_by_test_id("bot").last).not_to_have_text("")

    def drop_file(self) -> None:
        """If one was sent before; what was made of it goes too."""
        if self.downloads.count():
            self.ask(self.panel.locator(".top-panel button"))
            expect(self.downloads).to_have_count(0)

    def send_file(self, file: Path) -> None:
        self.drop_file()
        with self.page.expect_file_chooser() as chooser:
            self.press(self.panel.locator("button[aria-dropeffect]"))
        with self.page.expect_request("**/queue/join?*"):
            chooser.value.set_files(file)
        self.wait_until_idle()

    def label_file(self, file: Path) -> None:
        self.open_tab("batch")
        self.send_file(file)
        self.panel.get_by_role("combobox", name=self.words["column"], exact=True).wait_for()
        self.ask("label_file")
        expect(self.table).to_be_visible()
        self.panel.locator(".vega-embed canvas, .vega-embed svg").first.wait_for()

    def read_report(self) -> None:
        self.open_tab("report")
        self.frame.wait_for()
        self.wait_until_idle()

    def use(self, tab: str, text: str, file: Path) -> None:
        """A tab of the page, as somebody does who only wants to see it work."""
        uses = {
            "sentiment": lambda: self.predict(text),
            "compare": lambda: self.compare(text),
            "generate": self.generate,
            "chat": lambda: self.chat(text),
            "batch": lambda: self.label_file(file),
            "report": self.read_report,
        }
        uses[tab]()

    def tabs(self) -> Sequence[str]:
        """Those that this page has."""
        names = {self.words[key]: key for key in TABS}
        shown = self.page.locator("[role=tab], .overflow-dropdown button").all_text_contents()
        return sorted({names[name.strip()] for name in shown}, key=TABS.index)
