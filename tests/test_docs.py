"""What README and docs show is executed."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from typer.testing import CliRunner

from jargon_rag.cli import app
from jargon_rag.rag import JargonRAG
from jargon_rag.ui.page import launch
from tests.conftest import free_port

ROOT = Path(__file__).parents[1]
DOORS = (ROOT / "docs" / "doors.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
OWN = re.search(r"```markdown\n(.*?)```", README, re.DOTALL)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("jargon-rag ")]
    return [line for line in lines if not line.startswith("jargon-rag serve")]


def test_the_python_example_runs_and_says_what_it_claims(
    monkeypatch: pytest.MonkeyPatch, rag: JargonRAG, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jargon_rag.rag.JargonRAG", lambda: rag)  # the same bot, already loaded
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})  # the README's own code
    printed = capsys.readouterr().out
    assert "Rick: " in printed
    assert "[1] Dropout (corpus/" in printed
    assert "Retrieval\n" in printed
    assert "Epoch: How many do I need?" in printed
    assert "True (" in printed


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_readme_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OWN is not None
    (tmp_path / "my_glossary.md").write_text(OWN[1], "utf-8")
    (tmp_path / "corpus").symlink_to(ROOT / "corpus")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()


@pytest.fixture(scope="module")
def address(rag: JargonRAG) -> Iterator[str]:
    port = free_port()
    has_mcp = importlib.util.find_spec("mcp") is not None
    page = launch(lambda _: rag, port=port, mcp=has_mcp, say=lambda _: None, wait=False)
    Client(f"http://127.0.0.1:{port}/", verbose=False).predict("What is an epoch?", api_name="/ask")  # it is loaded
    yield f"127.0.0.1:{port}"
    page.close()


@pytest.mark.parametrize(("number", "told"), list(enumerate(["\nRick: ", "Dropout", "Temperature / Top-p"])))
def test_the_programs_of_the_doors_run(number: int, told: str, address: str) -> None:
    program = re.findall(r"```python\n(.*?)```", DOORS, re.DOTALL)[number].replace("127.0.0.1:7860", address)
    if "mcp" in program:
        pytest.importorskip("mcp", reason="the extra mcp is not installed")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


@pytest.mark.parametrize(("start", "told"), [("printf", "[1] Epoch (corpus/"), ("curl", '"citations"')])
def test_the_commands_of_the_doors_run(start: str, told: str, address: str) -> None:
    (command,) = [block for block in re.findall(r"```sh\n(.*?)```", DOORS, re.DOTALL) if block.startswith(start)]
    command = command.replace("127.0.0.1:7860", address).replace("jargon-rag ", f"{sys.executable} -m jargon_rag ", 1)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


def test_the_own_glossary_example_is_answered(tmp_path: Path) -> None:
    assert OWN is not None
    (tmp_path / "my_glossary.md").write_text(OWN[1], "utf-8")
    result = CliRunner().invoke(app, ["ask", "What is a spinnaker?", "--corpus", str(tmp_path / "my_glossary.md")])
    assert "A large, light sail" in result.stdout
    assert "[1] Spinnaker (my_glossary.md#L" in result.stdout


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_tables_of_contents_are_fresh() -> None:
    result = subprocess.run([sys.executable, "scripts/toc.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("text", ["one two three four five six seven eight nine", "nothing of the kind"])
def test_copied_runs_of_words_are_found(text: str, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.md", tmp_path / "theirs.md"
    ours.write_text("## A\n\nZero one two three four five six seven eight.\n", "utf-8")
    theirs.write_text(f"## B\n\n{text}\n", "utf-8")
    command = [sys.executable, "scripts/shared_runs.py", str(theirs), "--corpus", str(ours)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == ("one two" in text), result.stdout


@pytest.mark.parametrize(
    "glossary", [path for path in [os.environ.get("JARGON_RAG_GLOSSARY")] if path] or ["README.md"]
)
def test_no_run_of_eight_words_is_shared_with(glossary: str) -> None:
    result = subprocess.run(
        [sys.executable, "scripts/shared_runs.py", glossary], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
