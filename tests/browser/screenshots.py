"""Pictures of every tab, to be looked at: python tests/browser/screenshots.py RUN... --output DIRECTORY

One for each tab, language, device, and colour scheme; the page is that of the runs, which is opened for it.
"""

import argparse
import socket
import sys
import tempfile
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from browser.pages import ARGUMENTS, DEVICES, LOCALES, Look, Visit, chromium
from playwright.sync_api import sync_playwright

from finetune.demo import launch
from finetune.demo.words import EXAMPLES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs or models, as of `finetune demo`")
    parser.add_argument("--output", type=Path, required=True, metavar="DIRECTORY", help="where the pictures go")
    parser.add_argument("--tab", action="append", help="this tab only (may be repeated): sentiment, compare, ...")
    arguments = parser.parse_args()
    found = chromium()
    if found is None:
        parser.error("Chromium is needed: apt-get install chromium fonts-noto-cjk, or set FINETUNE_CHROMIUM")
    arguments.output.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = launch(arguments.runs, port=port, wait=False)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        file = Path(place) / "reviews.csv"
        file.write_text("\n".join(["text", *(f'"{text}"' for text in EXAMPLES)]), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        for language, device, scheme in product(LOCALES, DEVICES, ("light", "dark")):
            look = Look(language, device, scheme)
            visit = Visit(browser, page.local_url, look)
            for tab in visit.tabs():
                if arguments.tab is None or tab in arguments.tab:
                    visit.use(tab, EXAMPLES[0], file)
                    visit.page.wait_for_timeout(500)  # what fades in has done so
                    visit.page.screenshot(path=arguments.output / f"{tab}-{look}.png", full_page=True)
            for trouble in visit.troubles:
                print(f"{look}: {trouble}", file=sys.stderr)
            visit.close()
        browser.close()
    page.close()


if __name__ == "__main__":
    main()
