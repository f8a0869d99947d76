"""Take pictures of the page: start the real server, bring it into each state in Chromium, save what is seen.

Usage: python scripts/screenshot.py            # the README's pictures, into docs/images/
       python scripts/screenshot.py --all DIR  # every state, at 360 and 1440 pixels, light and dark
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from tqdm import tqdm

PATIENCE_MS = 120_000
README = {"chat": (1280, 860, "light"), "chat-dark": (1280, 860, "dark"), "map": (1280, 900, "light")}


def ask(page: Page, question: str) -> None:
    """Ask, and wait until the answer is complete."""
    answers = page.locator("#chat .bot.message").count()
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator("#chat .bot.message")).to_have_count(answers + 1, timeout=PATIENCE_MS)
    expect(page.get_by_label("Question")).to_be_enabled(timeout=PATIENCE_MS)
    page.wait_for_timeout(600)  # scrolling


def start(page: Page) -> None:
    """Leave the page as it opens."""


def answer(page: Page) -> None:
    """Show a dialogue."""
    ask(page, "My validation loss rises while training loss falls. Why?")


def source(page: Page) -> None:
    """Open the source of a marker."""
    ask(page, "Why does dropout help?")
    page.locator("#chat a.chip").first.click()


def checked(page: Page) -> None:
    """Show how each claim was checked, in plain style."""
    page.get_by_label("Plain").check()
    ask(page, "Temperature or top-p?")
    page.locator("#chat details.checks summary").click()


def code(page: Page) -> None:
    """Show an answer with code."""
    ask(page, "Show me dropout in PyTorch code")


def refusal(page: Page) -> None:
    """Ask what the glossary does not answer."""
    ask(page, "Which pizza is best?")


def map_of_terms(page: Page) -> None:
    """Show the map with a question in it."""
    ask(page, "Why does dropout help?")
    page.get_by_role("tab", name="Map").click()
    page.wait_for_timeout(3_000)


def glossary(page: Page) -> None:
    """Read a term."""
    page.get_by_role("tab", name="Glossary").click()
    page.get_by_label("Search the terms").fill("attention")
    page.wait_for_timeout(1_500)
    page.locator("#terms label").first.click()
    page.wait_for_timeout(800)


STATES: dict[str, Callable[[Page], None]] = {
    "start": start, "answer": answer, "source": source, "checked": checked, "code": code, "refusal": refusal, "map": map_of_terms,
    "glossary": glossary,
}  # fmt: skip


def main() -> None:
    """Take the pictures; the server is stopped at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", type=Path, metavar="DIR", help="every state at both widths and in both themes")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is not on PATH. Install it with: apt-get install chromium")
    if options.all:
        wanted = [
            (state, width, 860, theme, options.all / f"{state}-{width}-{theme}.png")
            for state in STATES
            for width in (360, 1440)
            for theme in ("light", "dark")
        ]
    else:
        folder = Path("docs/images")
        wanted = [(name.partition("-")[0], *size, folder / f"{name}.png") for name, size in README.items()]
        wanted = [("source" if state == "chat" else state, *rest) for state, *rest in wanted]  # type: ignore[misc]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    server = subprocess.Popen(
        [sys.executable, "-m", "jargon_rag", "serve", "--port", url.rstrip("/").rpartition(":")[2]]
    )
    try:
        wait_for(url)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for state, width, height, theme, file in tqdm(wanted, desc="pictures"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                page.goto(url)
                expect(page.locator(".state.ready")).to_be_visible(timeout=PATIENCE_MS)
                STATES[state](page)
                page.wait_for_timeout(600)
                file.parent.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=file)
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=20)


def wait_for(url: str, *, seconds: float = 60) -> None:
    """Return when a server answers; raises TimeoutError if it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(f"{url} did not answer within {seconds:.0f} s")


if __name__ == "__main__":
    main()
