"""Take the README's picture of the chat: start the real server, ask a question in Chromium, save the page.

Usage: python scripts/screenshot.py [QUESTION] [--out docs/images/chat.png] [--width 1280] [--dark]
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import expect, sync_playwright


def main() -> None:
    """Ask and save; the server is stopped at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default="Why does dropout help?")
    parser.add_argument("--out", type=Path, default=Path("docs/images/chat.png"))
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=860)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is not on PATH. Install it with: apt-get install chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "jargon_rag", "serve", "--port", str(port)])
    try:
        wait_for(f"http://127.0.0.1:{port}/")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
            )
            page = browser.new_page(
                viewport={"width": options.width, "height": options.height},
                color_scheme="dark" if options.dark else "light",
                device_scale_factor=1,
            )
            page.goto(f"http://127.0.0.1:{port}/")
            expect(page.locator(".state.ready")).to_be_visible(timeout=120_000)
            page.get_by_label("Question").fill(options.question)
            page.keyboard.press("Enter")
            expect(page.locator("#sources .sources, #sources ul").first).to_be_visible(timeout=120_000)
            expect(page.get_by_label(re.compile("Stop"))).to_have_count(0, timeout=60_000)
            page.wait_for_timeout(800)  # fonts and scrolling
            options.out.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=options.out)
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=20)
    print(options.out)


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
