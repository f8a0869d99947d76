from __future__ import annotations

import json
import subprocess
import sys

GUARD = """
import ipaddress, json, os, socket, sys

for name in list(os.environ):
    if name.startswith(("HF_", "TRANSFORMERS_", "GRADIO_")):
        del os.environ[name]

tried = []

def allowed(address):
    if not isinstance(address, tuple):
        return True  # a Unix socket stays on this machine
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return address[0] == "localhost"

def guarded(real):
    def connect(self, address):
        if not allowed(address):
            tried.append(str(address))
            raise OSError("this test allows no network")
        return real(self, address)
    return connect

def no_lookup(host, *args, **kwargs):
    if host in (None, "localhost", "127.0.0.1", "::1"):
        return looked_up(host, *args, **kwargs)
    tried.append(str(host))
    raise socket.gaierror("this test allows no network")

looked_up = socket.getaddrinfo
socket.socket.connect = guarded(socket.socket.connect)
socket.socket.connect_ex = guarded(socket.socket.connect_ex)
socket.getaddrinfo = no_lookup
"""


def offline(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", GUARD + code], capture_output=True, text=True, timeout=500, check=False
    )


def test_the_guard_itself_stops_a_connection() -> None:
    done = offline("socket.create_connection(('192.0.2.1', 80), timeout=1)")
    assert done.returncode == 1
    assert "this test allows no network" in done.stderr


def test_the_python_api_answers_without_a_network_and_does_not_even_try() -> None:
    done = offline(
        "from jargon_rag import JargonRAG\n"
        "answer = JargonRAG().ask('What is overfitting?')\n"
        "print(json.dumps({'tried': tried, 'terms': [c.entry.term for c in answer.citations], 'refused': answer.refused}))"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["tried"] == []
    assert set(told["terms"]) == {"Overfitting"}
    assert told["refused"] is False


def test_the_command_line_answers_without_a_network_and_does_not_even_try() -> None:
    done = offline(
        "from jargon_rag.cli import app\n"
        "try:\n"
        "    app(['ask', 'What is dropout?', '--json'])\n"
        "finally:\n"
        "    print(json.dumps(tried), file=sys.stderr)"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert json.loads(done.stdout)["citations"][0]["term"] == "Dropout"
