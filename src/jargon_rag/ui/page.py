"""The Gradio page: chat on the left, numbered sources beside it, and the typed endpoints /ask and /search.

The page is bound before any model is loaded; a thread loads them, and questions wait for it.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api

from jargon_rag.errors import InputError, JargonRAGError
from jargon_rag.rag import JargonRAG, check_question
from jargon_rag.records import answer_record, retrieval_record
from jargon_rag.types import Answer, Message, Retrieval, Sentence, Style
from jargon_rag.ui.render import dialogue_markdown, escape_markdown, shown, sources_html

EXAMPLES = (
    "What is overfitting?",
    "Why does dropout help?",
    "How do I choose a learning rate?",
    "My loss turned into NaN, what now?",
    "Temperature or top-p?",
)
STYLESHEET = Path(__file__).with_name("style.css")
STYLES: dict[str, Style] = {"Rick & Morty": "rick", "Plain": "plain"}


class Loader:
    """Loads the bot in a thread; says how far it is, and hands it out when it is there."""

    def __init__(self, load: Callable[[Callable[[str], None]], JargonRAG]) -> None:
        """Start loading; `load` is given a function that takes progress notes."""
        self._load = load
        self._done = threading.Event()
        self._rag: JargonRAG | None = None
        self._error: str | None = None
        self.note = "Loading the models…"
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def _run(self) -> None:
        try:
            self._rag = self._load(self._tell)
            self._rag.ask("What is overfitting?")  # the first pass allocates; let it not be a reader's
            self.note = f"Ready: {len(self._rag.entries)} terms."
        except JargonRAGError as error:
            self._error = self.note = str(error)
        except Exception as error:  # shown on the page: a silent thread would leave it loading for ever
            self._error = self.note = f"Could not start: {type(error).__name__}: {error}"
        finally:
            self._done.set()

    def _tell(self, note: str) -> None:
        self.note = note

    @property
    def done(self) -> bool:
        """Tell whether loading ended, well or badly."""
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        """Tell whether it ended badly; `note` says why."""
        return self._error is not None

    def get(self) -> JargonRAG:
        """Wait for the bot and return it; raises gr.Error with the reason if it could not be loaded."""
        self._done.wait()
        if self._rag is None:
            raise gr.Error(escape_markdown(self._error or "The models could not be loaded."))
        return self._rag


def create_page(loader: Loader) -> gr.Blocks:
    """Return the page; its events ask the loader for the bot."""

    def respond(question: str, history: list[dict[str, Any]], style: str) -> Iterator[tuple[str, str]]:
        try:
            question = check_question(question)
            if not loader.done:
                yield "_One moment, the models are still loading…_", sources_html(None, None)
            rag = loader.get()
            retrieval: Retrieval | None = None
            sentences: list[Sentence] = []
            for event in rag.stream(question, history=_messages(history), style=STYLES.get(style, "rick")):
                match event:
                    case Retrieval():
                        retrieval = event
                    case Sentence():
                        sentences.append(event)
                    case Answer():
                        yield dialogue_markdown(event.sentences, event.code), sources_html(retrieval, event)
                        return
                yield dialogue_markdown(sentences) or "_Reading the glossary…_", sources_html(retrieval, None)
        except InputError as error:
            yield escape_markdown(str(error)), sources_html(None, None)

    def ask(question: str, history: list[dict[str, Any]] | None = None, style: str = "rick") -> dict[str, Any]:
        """Answer a question from the glossary; the object is that of `jargon-rag ask --json`."""
        with _errors_told():
            return answer_record(loader.get().ask(question, history=_messages(history or []), style=style))  # type: ignore[arg-type]

    def search(question: str, top_k: int = 5) -> dict[str, Any]:
        """Find the entries nearest to a question; the object is that of `jargon-rag search --json`."""
        with _errors_told():
            return retrieval_record(loader.get().retrieve(question, top_k=min(int(top_k), 50)))

    def state() -> tuple[str, gr.Timer]:
        kind = "bad" if loader.failed else "ready" if loader.done else "loading"
        return f"<p class='state {kind}' role='status'>{shown(loader.note)}</p>", gr.Timer(active=not loader.done)

    page = gr.Blocks(title="jargon-rag", analytics_enabled=False)
    with page:
        gr.HTML(
            "<h1>jargon-rag</h1><p>Ask about AI jargon in your own words. Every claim is cited to the glossary and checked before you see it."
            " A parody: not affiliated with any show.</p>"
        )
        status = gr.HTML(state()[0])
        timer = gr.Timer(1.0)
        with gr.Row():
            sources = gr.HTML(sources_html(None, None), elem_id="sources", render=False)
            with gr.Column(scale=3, min_width=320):
                style = gr.Radio(list(STYLES), value="Rick & Morty", label="Style", container=False)
                gr.ChatInterface(
                    respond,
                    chatbot=gr.Chatbot(
                        label="Answers",
                        elem_id="chat",
                        height=520,
                        placeholder="What is it you nodded along to today?",
                        buttons=["copy", "copy_all"],
                        latex_delimiters=[],
                        allow_tags=False,
                    ),
                    textbox=gr.Textbox(
                        label="Question",
                        placeholder="Why does dropout help?",
                        submit_btn=True,
                        stop_btn=True,
                        autofocus=True,
                    ),
                    additional_inputs=[style],
                    additional_outputs=[sources],
                    examples=[[example, None] for example in EXAMPLES],
                    cache_examples=False,
                    concurrency_limit=1,
                    api_visibility="private",
                    save_history=False,
                )
            with gr.Column(scale=2, min_width=280):
                gr.Markdown("## Sources")
                sources.render()  # type: ignore[no-untyped-call]
        timer.tick(state, outputs=[status, timer], show_progress="hidden", api_visibility="private", queue=False)
        api(ask, api_name="ask", concurrency_id="answers", concurrency_limit=1)
        api(search, api_name="search")
    return page


def launch(
    load: Callable[[Callable[[str], None]], JargonRAG],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    root_path: str | None = None,
    say: Callable[[str], None] = print,
    wait: bool = True,
) -> gr.Blocks:
    """Bind the page, then load the models behind it. With `wait`, serve until interrupted.

    root_path: where a proxy in front shows the page, if not at the root of its host: "/jargon".
    Raises InputError when the port is taken, or the root path is none.
    """
    if root_path is not None and not re.fullmatch(r"(/[\w.~-]+)+", root_path):
        raise InputError(f"A root path looks like /jargon, with no slash at the end: not {root_path!r}.")
    check_address(host, port)
    page = create_page(Loader(load))
    page.queue(default_concurrency_limit=1, max_size=16, api_open=True)
    page.launch(
        server_name=host,
        server_port=port,
        root_path=root_path,
        prevent_thread_lock=True,
        quiet=True,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLESHEET.read_text("utf-8"),
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        strict_cors=True,
        max_file_size="1mb",
    )
    say(f"jargon-rag is at {page.local_url} (the models load behind it; stop with Ctrl+C)")
    if wait:
        page.block_thread()
    return page


@contextmanager
def _errors_told() -> Iterator[None]:
    """Turn our errors into those that Gradio hands to a client."""
    try:
        yield
    except JargonRAGError as error:
        raise gr.Error(str(error), print_exception=False) from error


def check_address(host: str, port: int) -> None:
    """Raise InputError when nothing can listen at an address, before anything is loaded for it."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise InputError(
            f"Cannot listen on {host}:{port} ({error.strerror}): it is in use, or not an address of this machine. Choose another --port."
        ) from error


def _messages(history: Sequence[dict[str, Any]]) -> list[Message]:
    """Return Gradio's history as plain messages: texts joined, thoughts and files left out."""
    messages: list[Message] = []
    for message in history:
        if not isinstance(message, dict) or (message.get("metadata") or {}).get("title"):
            continue
        content = message.get("content")
        if isinstance(content, list):
            content = " ".join(
                str(part.get("text", "")) for part in content if isinstance(part, dict) and part.get("type") == "text"
            )
        messages.append({"role": str(message.get("role")), "content": content if isinstance(content, str) else ""})
    return messages
