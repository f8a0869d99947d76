"""The terminal chat as a real process, in a pipe and in a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jargon_rag.rag import JargonRAG
from jargon_rag.terminal import without_escapes
from jargon_rag.types import Answer
from tests.test_cli import GLOSSARY, process

CHAT = [sys.executable, "-m", "jargon_rag", "chat"]
# a process started in the background may be deaf to Ctrl+C, and so would be its children: a terminal's are not
IN_A_TERMINAL = [
    sys.executable,
    "-c",
    (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " runpy.run_module('jargon_rag', run_name='__main__')"
    ),
    "chat",
]
SECONDS = 200


class Terminal:
    """A chat in a pseudo-terminal: type into it, wait for what it says."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            IN_A_TERMINAL, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.shown = b""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, pattern: str) -> bytes:
        """Read until a pattern is shown, return what matched, and forget what was shown up to its end."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern.encode(), self.shown)):
            if not select.select([self._ours], [], [], deadline - time.monotonic())[0]:
                pytest.fail(f"{pattern!r} does not come: {self.shown!r}")
            try:
                self.shown += os.read(self._ours, 4096)
            except OSError:  # the other end is closed
                pytest.fail(f"it ended before {pattern!r}: {self.shown!r}")
        self.shown = self.shown[found.end() :]
        return found[0]

    def wait_for_prompt(self) -> None:
        """Wait for the prompt, and until readline, which shows it before it listens, hears keys and signals."""
        self.wait_for("> ")
        time.sleep(2)

    def interrupt(self) -> None:
        """Do what Ctrl+C does."""
        self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_lines_from_a_pipe_are_a_conversation() -> None:
    lines = [
        "What is an epoch?", "", "How many do I need?", "/sources", "/plain", "Why does dropout help?", "/dance", "x" * 3000,
        "Which pizza is best?", "/help", "/quit", "What is never asked?",
    ]  # fmt: skip
    done = process("chat", stdin=b"\xff\n" + "\n".join(lines).encode())
    assert done.returncode == 0
    told = done.stdout.decode()
    first, _, rest = told.partition("> How many do I need?")
    assert re.search(r"^Morty: .+\n(.*\n)*Rick: .+\n(.*\n)* +.+ \[1\]", first, re.MULTILINE)
    assert re.search(r"^\[1\] Epoch \(corpus/[\w-]+\.md#L\d+", first, re.MULTILINE)
    follow_up, _, rest = rest.partition("> /sources")
    assert "[1] Epoch (corpus/" in follow_up
    quotes, _, rest = rest.partition("> /plain")
    assert re.search(r"\[1\] Epoch .+\n +“.+”", quotes)
    assert "Style: plain." in rest
    plain, _, rest = rest.partition("> /dance")
    assert "Rick:" not in plain
    assert "[1] Dropout (corpus/" in plain
    assert "No such command: /dance" in rest
    assert "at most 2,000 characters" in rest
    assert "/sources " in rest
    assert "never asked" not in rest
    assert "\x1b" not in told


def test_sources_before_any_answer_and_the_end_of_the_input_are_fine() -> None:
    done = process("chat", "--style", "plain", stdin=b"/sources")
    assert done.returncode == 0
    assert b"no cited answer yet" in done.stdout


def test_what_a_glossary_holds_cannot_steer_the_terminal(tmp_path: Path) -> None:
    glossary = tmp_path / "kitchen.md"
    glossary.write_text(GLOSSARY.replace("minute", "[red]minute[/red] \x1b]0;title\x07"), "utf-8")
    done = subprocess.run(
        [*CHAT, "--corpus", str(glossary), "--cache-dir", str(tmp_path / "cache"), "--style", "plain"],
        input=b"What is blanching?\n/sources\n\x1b[31m\n",
        capture_output=True,
        env={**os.environ, "FORCE_COLOR": "1"},  # so that our own codes are there to tell apart
        timeout=SECONDS,
        check=True,
    )
    codes = set(re.findall(rb"\x1b.[\d;]*.?", done.stdout))
    assert codes
    assert all(re.fullmatch(rb"\x1b\[[\d;]*m", code) for code in codes)
    assert b"One [red]minute[/red] ]0;title" in done.stdout


def test_ctrl_c_stops_an_answer_and_twice_leaves(terminal: Terminal) -> None:
    for _ in range(10):  # an answer may be complete before our Ctrl+C comes
        terminal.wait_for("> ")
        terminal.type("Why does dropout help?\n")
        terminal.wait_for("Morty: ")  # the answer has begun
        terminal.interrupt()
        if terminal.wait_for(r"Stopped|\[1\] Dropout \(") == b"Stopped":  # the sources stand at an answer's end
            break
    else:
        pytest.fail("no answer was stopped")
    terminal.wait_for("> ")
    terminal.type("What is an epoch?\n")  # it goes on
    terminal.wait_for(r"\[1\] Epoch")
    for told in (r"Ctrl\+C again leaves", ""):
        terminal.wait_for_prompt()
        terminal.interrupt()
        terminal.wait_for(told)
    assert terminal.process.wait(timeout=SECONDS) == 0


def test_in_a_terminal_each_speaker_has_a_name_and_a_style(terminal: Terminal) -> None:
    terminal.wait_for("> ")
    terminal.type("Why does dropout help?\n")
    terminal.wait_for(r"\x1b\[3;36mMorty: \x1b\[0m")
    terminal.wait_for(r"\x1b\[1;32mRick: \x1b\[0m")
    terminal.wait_for(r"\[1\] Dropout")
    terminal.wait_for_prompt()
    terminal.type("\x04")  # Ctrl+D
    assert terminal.process.wait(timeout=SECONDS) == 0


def test_a_chat_streams_and_remembers_only_what_was_finished(rag: JargonRAG) -> None:
    talk = rag.chat()
    stopped = talk.stream("What is dropout?")
    next(stopped)
    stopped.close()
    assert talk.history == []
    *_, answer = talk.stream("What is an epoch?")
    assert isinstance(answer, Answer)
    assert [message["content"] for message in talk.history] == ["What is an epoch?", answer.text]
    talk.style = "plain"
    assert talk.ask("How many do I need?").standalone_question == "Epoch: How many do I need?"


def test_text_keeps_lines_and_loses_what_steers() -> None:
    assert without_escapes("a\x1b[31mb\x07\n\tc\u202e\u00a0d") == "a[31mb\n\tc\u00a0d"
