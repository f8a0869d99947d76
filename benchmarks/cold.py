"""From the start of a process to its page and to its first answer, each beside a plain way, each in processes of their own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from benchmarks.machine import ROOT, resident_mib

PATIENCE = 600.0  # seconds that a process may take
EMPTY_PAGE = """
import sys
import gradio
with gradio.Blocks() as page:
    pass
page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
"""


def measure_cold_starts(question: str, *, repeats: int) -> dict[str, list[float]]:
    """Return seconds and MiB, one of each per repeat; ours and theirs take turns, all files are in the system's cache.

    page: the first response to GET /. answer: ours through the page's API; the plain way is `benchmarks.eager`.
    memory: of the whole process, after its first answer.
    """
    found: dict[str, list[float]] = {}
    for number in tqdm(range(-1, repeats), desc="cold starts"):
        once: dict[str, float] = {}
        with serving("-m", "jargon_rag", "serve", "--port") as (process, url, started):
            once["our page"] = page_up(url, process, started)
            _ask(url, question)
            once["our answer"] = time.perf_counter() - started
            once["our memory"] = resident_mib(process.pid)
        with serving("-c", EMPTY_PAGE) as (process, url, started):
            once["empty page"] = page_up(url, process, started)
        started = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.eager", question],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        if result.returncode:
            raise RuntimeError(f"benchmarks.eager failed:\n{result.stderr[-2000:]}")
        once["eager answer"] = time.perf_counter() - started
        once["eager memory"] = json.loads(result.stdout.splitlines()[-1])["memory_mib"]
        if number >= 0:  # the first round fills the system's cache of files
            for name, value in once.items():
                found.setdefault(name, []).append(round(value, 3))
    return found


@contextmanager
def serving(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """Start Python with a command that takes a free port last; yield the process, its address and when it was started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command, str(port)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process, f"http://127.0.0.1:{port}/", started
    finally:
        process.terminate()
        process.wait(timeout=60)


def page_up(url: str, process: subprocess.Popen[bytes], started: float) -> float:
    """Return the seconds until a page is served; raises RuntimeError if its process ends, TimeoutError if it takes too long."""
    while time.perf_counter() - started < PATIENCE:
        if process.poll() is not None:
            raise RuntimeError(
                f"The server at {url} ended with status {process.returncode}. Start it by hand to see why."
            )
        try:
            urllib.request.urlopen(url, timeout=PATIENCE).close()
        except OSError:
            time.sleep(0.01)
        else:
            return time.perf_counter() - started
    raise TimeoutError(f"{url} did not answer within {PATIENCE:.0f} s")


def _ask(url: str, question: str) -> Any:
    from gradio_client import Client

    return Client(url, verbose=False).predict(question, api_name="/ask")
