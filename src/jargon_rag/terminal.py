"""What a terminal shows: the chat, and tables. Whatever a question or a glossary holds comes out as inert text."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jargon_rag.errors import JargonRAGError
from jargon_rag.types import Answer, Retrieval, Sentence, Style

if TYPE_CHECKING:
    from jargon_rag.rag import Event, JargonRAG

HELP = """\
/rick      answer as a dialogue
/plain     answer in plain sentences
/sources   the words that the last answer rests on
/quit      leave; so do Ctrl+D, and Ctrl+C twice
Ctrl+C     stop the answer that is being written"""
LABELS = {"Morty": "italic cyan", "Rick": "bold green"}  # the names tell them apart where there are no colours


def without_escapes(text: str) -> str:
    """Return text that cannot steer a terminal, whatever a file name or a glossary holds."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable() or char == "\u00a0")


def results_table(retrieval: Retrieval) -> Table:
    """Return what was found as a table, under the verdict."""
    verdict = f"{'in' if retrieval.in_scope else 'out of'} scope: {retrieval.reason}"
    table = Table("", "score", "term", "passage", title=_inert(verdict))
    for result in retrieval.results:
        table.add_row(str(result.rank), f"{result.score:.3f}", _inert(result.entry.term), _inert(result.chunk.passage))
    return table


def chat(rag: JargonRAG, *, style: Style) -> None:
    """Hold a conversation until /quit, the end of the input, or Ctrl+C twice. Lines from a pipe are questions too."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1_000_000  # a pipe has no width: nothing is wrapped
    talk = rag.chat(style=style)
    answer: Answer | None = None
    leaving = False  # Ctrl+C was pressed, and nothing asked since
    console.print(f"{len(rag.entries)} terms. Ask in your own words; /help lists the commands.", style="dim")
    while True:
        try:
            line = _read(console)
        except EOFError:
            return
        except KeyboardInterrupt:
            if leaving:
                return
            leaving = True
            console.print("\nCtrl+C again leaves.", style="dim")
            continue
        leaving = False
        match line.split():
            case []:
                continue
            case ["/quit"]:
                return
            case ["/help"]:
                console.print(HELP)
            case ["/rick" | "/plain" as command]:
                talk.style = "rick" if command == "/rick" else "plain"
                console.print(f"Style: {talk.style}.", style="dim")
            case ["/sources"]:
                _show_quotes(answer, console)
            case [command, *_] if command.startswith("/"):
                console.print(_inert(f"No such command: {command}. /help lists them."))
            case _:
                try:
                    answer = _show(talk.stream(line), console) or answer
                except KeyboardInterrupt:
                    leaving = True
                    console.print("\nStopped. Ctrl+C again leaves.", style="dim")
                except JargonRAGError as error:
                    console.print(_inert(str(error)), style="red")


def _read(console: Console) -> str:
    """Return the next line; raises EOFError at the end of the input."""
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401 (arrow keys and earlier questions, where the system has it)
        return input("> ")
    line = sys.stdin.buffer.readline().decode("utf-8", errors="replace")
    if not line:
        raise EOFError
    if line.strip():
        console.print(_inert(f"> {line.strip()}"))  # so that what is written reads as a conversation
    return line


def _show(events: Iterable[Event], console: Console) -> Answer | None:
    """Print each sentence as it comes, then code and sources; return the answer."""
    speaker: str | None = None
    for event in events:
        if isinstance(event, Sentence):
            console.print(_line(event, first=event.speaker != speaker))
            speaker = event.speaker
        elif isinstance(event, Answer):
            for block in event.code:
                console.print(Padding(_inert(block.text), (1, 4)))
            sources = {citation.marker: citation for citation in reversed(event.citations)}
            for marker, citation in sorted(sources.items()):
                console.print(_inert(f"[{marker}] {citation.entry.term} ({citation.source})"), style="dim")
            console.print()
            return event
    return None


def _line(sentence: Sentence, *, first: bool) -> Padding:
    """Return a sentence with its speaker's name, or indented below it when the same one goes on."""
    label = f"{sentence.speaker}: " if sentence.speaker else ""
    text = Text.assemble(
        (label if first else "", LABELS.get(sentence.speaker or "", "")),
        _inert(sentence.text),
        ("".join(f" [{marker}]" for marker in sentence.citations), "dim"),
    )
    return Padding(text, (0, 0, 0, 0 if first else len(label)), expand=False)


def _show_quotes(answer: Answer | None, console: Console) -> None:
    if answer is None or not answer.citations:
        console.print("There is no cited answer yet.", style="dim")
        return
    for citation in answer.citations:
        console.print(_inert(f"[{citation.marker}] {citation.entry.term} ({citation.source})"))
        console.print(Padding(_inert(f"“{citation.quote}”"), (0, 0, 0, 4), expand=False))


def _inert(text: str) -> Text:
    """Return text that is neither markup nor a terminal's control codes."""
    return Text(without_escapes(text))
