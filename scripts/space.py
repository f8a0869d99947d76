"""Stage the folder that is pushed to a Hugging Face Space, then rehearse the Space: install, start, ask a question.

Usage: python scripts/space.py [--stage-only] [--python python3.12]
The folder is dist/space; all else lies in a temporary folder. A Space installs what PyPI gives it, on Linux a torch with
CUDA: several GB.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gradio_client import Client
from huggingface_hub import metadata_load

ROOT = Path(__file__).parents[1]
SHIPPED = (  # pathspecs of git
    "README.md", "LICENSE", "app.py", "requirements.txt", "src/jargon_rag", "index", "adapter",
    ":(glob)corpus/*.md", ":(glob)docs/*.md", "docs/images",
)  # fmt: skip
QUESTION = "What is overfitting?"
START_SECONDS = 1_800  # startup_duration_timeout


def main() -> None:
    """Stage, install, start, ask; the report goes to stdout and the exit status says whether all of it worked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage-only", action="store_true", help="leave it at dist/space")
    parser.add_argument("--python", default=sys.executable, help="a Python of the front matter's python_version")
    options = parser.parse_args()
    staged = ROOT / "dist" / "space"
    files = stage(staged)
    print(f"staged        {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB, in {staged}")
    if options.stage_only:
        return
    with tempfile.TemporaryDirectory(prefix="space-") as temporary:
        python = install(options.python, Path(temporary) / "venv", staged)
        home = Path(temporary) / "home"
        shutil.copytree(staged, home / "app")
        print("on a CPU, nothing fetched yet")
        rehearse(python, home)
        print("on ZeroGPU, weights at hand")
        with zero_gpu() as variables:
            rehearse(python, home, variables)


def stage(folder: Path) -> list[Path]:
    """Copy what a Space needs, of the files that git tracks, into a new folder; return the copies."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--", *SHIPPED], check=True, capture_output=True, text=True
    ).stdout
    shutil.rmtree(folder, ignore_errors=True)
    copies = []
    for name in listed.rstrip("\0").split("\0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copy(ROOT / name, folder / name)))
    return copies


def install(python: str, venv: Path, staged: Path) -> Path:
    """Make an environment as a Space's build does, which sees requirements.txt alone; return its Python."""
    started = time.monotonic()
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    shutil.copy(staged / "requirements.txt", venv)
    gradio = f"gradio[oauth,mcp]=={metadata_load(staged / 'README.md')['sdk_version']}"
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--requirement", "requirements.txt"]
    subprocess.run([*pip, gradio, "uvicorn>=0.14.0", "websockets>=10.4", "spaces"], cwd=venv, check=True)
    version = subprocess.run([pip[0], "--version"], check=True, capture_output=True, text=True).stdout.strip()
    size = sum(file.lstat().st_size for file in venv.rglob("*")) / 1e9
    print(f"installed     {time.monotonic() - started:.0f} s, {size:.1f} GB, {version}")
    return Path(pip[0])


def rehearse(python: Path, home: Path, variables: Mapping[str, str] = MappingProxyType({})) -> None:
    """Start the app in a Space's home folder with a Space's variables, and ask it a question."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name.startswith("PIP_")} | {
        "PATH": f"{python.parent}:{os.defpath}",
        "HOME": str(home),
        "SYSTEM": "spaces",
        "SPACE_ID": "someone/jargon-rag",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        **variables,
    }
    log = home / "log.txt"
    started = time.monotonic()
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [str(python), "app.py"], cwd=home / "app", env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_for(url, server)
        print(f"page up       {time.monotonic() - started:.0f} s after the start")
        endpoints = sorted(get(f"{url}gradio_api/info")["named_endpoints"])
        print(f"endpoints     {' '.join(endpoints)}")
        record = ask(url, server, started=started)
        print(
            f"answered      {time.monotonic() - started:.0f} s after the start, with {len(record['citations'])} citations"
        )
        if record["refused"] or not record["citations"]:
            raise SystemExit(f"The answer to {QUESTION!r} cites nothing: {record['answer']}")
    except BaseException:
        print(log.read_text("utf-8", errors="replace")[-5_000:], file=sys.stderr)
        raise
    finally:
        server.terminate()
        server.wait(timeout=60)


@contextmanager
def zero_gpu() -> Iterator[dict[str, str]]:
    """Stand in for ZeroGPU's scheduler and yield its Spaces' variables; raises SystemExit if no GPU function was reported."""
    reported = threading.Event()

    class Scheduler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reported.set()
            self.send_response_only(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Scheduler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()
    if not reported.is_set():
        raise SystemExit("ZeroGPU would refuse this Space: it found no GPU function in app.py.")


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the page answers; raises SystemExit if the server ends or takes longer than a Space may."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"The Space did not start; exit status {server.poll()}.")


def ask(url: str, server: subprocess.Popen[bytes], *, started: float) -> dict[str, Any]:
    """Ask through a client, as a visitor's program would, and print what the page says while the models load."""
    waiting = Client(url, verbose=False).submit(QUESTION, api_name="/ask")
    shown = ""
    while not waiting.done() and server.poll() is None:
        note = get(f"{url}gradio_api/run/state", {"data": []})["data"][0]  # what the page asks for each second
        if note != shown:
            print(f"page says     {time.monotonic() - started:.0f} s: {html.unescape(re.sub('<[^>]+>', '', note))}")
        shown = note
        time.sleep(0.5)
    record: dict[str, Any] = waiting.result(timeout=5)
    return record


def get(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON object at an address, posting one there if it is given."""
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        record: dict[str, Any] = json.load(response)
    return record


if __name__ == "__main__":
    main()
