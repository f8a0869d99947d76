"""The Gradio page: chat, map and glossary, and the typed endpoints /ask and /search.

The page is bound before any model is loaded; a thread loads them, and questions wait for it.
"""

from __future__ import annotations

import importlib.util
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from gradio.events import api

from jargon_rag.answering import restyled
from jargon_rag.api import routes
from jargon_rag.errors import InputError, JargonRAGError
from jargon_rag.generator import AT_ONCE
from jargon_rag.rag import JargonRAG, check_question
from jargon_rag.records import answer_record, retrieval_record
from jargon_rag.types import Answer, Message, Retrieval, Sentence, Style
from jargon_rag.ui.feedback import add_feedback, check_feedback_file
from jargon_rag.ui.glossary_map import figure, project
from jargon_rag.ui.loader import Loader
from jargon_rag.ui.render import escape_markdown, footnoted, message, shown, whole_entry, why
from jargon_rag.ui.theme import stylesheet, theme
from jargon_rag.waiting import WaitingLine

EXAMPLES = (
    "What is overfitting?",
    "Why does dropout help?",
    "How do I choose a learning rate?",
    "My loss turned into NaN, what now?",
    "Temperature or top-p?",
)
HERE = Path(__file__).parent
STYLES: dict[str, Style] = {"Rick & Morty": "rick", "Plain": "plain"}
MAX_FOUND = 12  # entries that browsing offers for words that are in no heading
COPY = "text => { navigator.clipboard.writeText(text || ''); return []; }"
SHARE = (
    "text => { const url = new URL(location.href); url.search = text ? '?q=' + encodeURIComponent(text) : '';"
    " navigator.clipboard.writeText(url.href); history.replaceState(null, '', url); return []; }"
)
FOCUS = "() => { if (document.activeElement === document.body) document.querySelector('#question textarea')?.focus(); }"
History = list[dict[str, Any]]


def create_page(loader: Loader, *, line: WaitingLine, feedback: Path | None = None) -> gr.Blocks:
    """Return the page; its events ask the loader for the bot when their turn in the line has come.

    Thumbs go into the file `feedback`, if there is one.
    """
    stops: dict[str | None, threading.Event] = {}  # of those who wait for an answer, by their session

    def add(question: str, history: History) -> tuple[str, History]:
        return "", asking(history, question)

    def pick(history: History, data: gr.SelectData) -> History:
        chosen = data.value
        return asking(history, str(chosen["text"] if isinstance(chosen, dict) else chosen))

    def pick_term(history: History, data: gr.EventData) -> tuple[gr.Tabs, History]:
        return gr.Tabs(selected="chat"), asking(history, f"What is {data.term}?")

    def about_term(term: str, history: History) -> tuple[gr.Tabs, History]:
        return gr.Tabs(selected="chat"), asking(history, f"What is {term}?")

    def again(history: History) -> History:
        return history[: _last_question(history) + 1]

    def edit(history: History, data: gr.EditData) -> History:
        index = data.index[0] if isinstance(data.index, list | tuple) else data.index
        return asking(history[:index], str(data.value))

    def undo(history: History) -> tuple[str, History]:
        last = _last_question(history)
        return (_text(history[last]), history[:last]) if last >= 0 else ("", history)

    def link(request: gr.Request) -> History:
        question = str(request.query_params.get("q", "")).strip()
        return asking([], question) if question else []

    def busy(request: gr.Request) -> gr.Textbox:
        stop(request)  # a chip or an example may ask while an answer is written
        stops[request.session_hash] = threading.Event()
        return gr.Textbox(interactive=False, submit_btn=False, stop_btn=True)

    def stop(request: gr.Request) -> None:
        """Have the answer that this reader waits for end where it is, waiting in the line or being written."""
        if event := stops.get(request.session_hash):
            event.set()

    def free() -> gr.Textbox:
        return gr.Textbox(interactive=True, submit_btn=True, stop_btn=False)

    def settle(answer: Answer | None) -> tuple[gr.Textbox, str, str, gr.Button, gr.Button]:
        there = answer is not None
        asked, markdown = (answer.question, footnoted(answer)) if answer is not None else ("", "")
        return free(), markdown, asked, gr.Button(interactive=there), gr.Button(interactive=there)

    def reply(history: History, style: str, request: gr.Request) -> Iterator[tuple[History, str, Answer | None]]:
        """Answer the last question of the history, sentence by sentence."""
        if not history or history[-1]["role"] != "user":
            return
        *earlier, asked = history
        stopped = stops.setdefault(request.session_hash, threading.Event())
        key = f"source{len(history)}"

        def showing(text: str, terms: Sequence[str] = ()) -> History:
            options = [{"label": term, "value": f"What is {term}?"} for term in terms]
            return [*history, {"role": "assistant", "content": text, "options": options}]

        try:
            question = check_question(_text(asked))
            line.admit(_address(request))
            if not loader.done:
                yield showing("_One moment, the models are still loading…_"), why(None, None, ()), None
            rag = loader.get()
            named = STYLES.get(style, "rick")
            retrieval: Retrieval | None = None
            prompt: list[Message] = []
            sentences: list[Sentence] = []
            with line.turn():
                for event in rag.stream(question, history=_messages(earlier), style=named, stop=stopped):
                    match event:
                        case Retrieval():
                            retrieval, prompt = event, rag.prompt(event, style=named)
                            yield showing("_Reading the glossary…_"), why(event, None, prompt), None
                        case Sentence():
                            sentences.append(event)
                            yield showing(message(sentences, key=key)), why(retrieval, None, prompt), None
                        case Answer():
                            text = message(event.sentences, key=key, answer=event)
                            yield showing(text, event.suggestions), why(retrieval, event, prompt), event
                            return  # a stop that comes now takes nothing back
            if stopped.is_set():
                yield (
                    showing("\n\n".join([message(sentences, key=key), "_Stopped._"])),
                    why(retrieval, None, prompt),
                    None,
                )
        except JargonRAGError as error:
            yield showing(escape_markdown(str(error))), why(None, None, ()), None
        finally:
            if stops.get(request.session_hash) is stopped:
                del stops[request.session_hash]

    def restyle(history: History, style: str, answer: Answer | None) -> tuple[History, Answer | None]:
        """Say the last answer again in the other style: the same facts, so the model is not asked."""
        if answer is None or not history or history[-1]["role"] != "assistant":
            return history, answer
        told = restyled(answer, STYLES.get(style, "rick"))
        text = message(told.sentences, key=f"source{len(history) - 1}", answer=told)
        return [*history[:-1], {**history[-1], "content": text}], told

    def draw(answer: Answer | None) -> go.Figure | None:
        if not loader.done or loader.failed:
            return None
        retriever = loader.get().retriever
        projection = project(retriever.index)
        if answer is None:
            return figure(retriever.index.entries, projection)
        question = answer.standalone_question
        found = [result.entry.slug for result in answer.retrieval.results]
        vector = retriever.embedder.embed([question])[0]
        return figure(retriever.index.entries, projection, question=question, vector=vector, found=found)

    def find(text: str) -> gr.Radio:
        """Offer the headings that hold what is typed, then the entries nearest in meaning."""
        rag = loader.get()
        terms = [entry.term for entry in rag.entries]
        if text := text.strip():
            holding = [term for term in terms if text.lower() in term.lower()]
            near = [result.entry.term for result in rag.search(text[:200], top_k=MAX_FOUND)]
            terms = list(dict.fromkeys([*holding, *near]))
        return gr.Radio(terms, value=None)

    def read(term: str | None) -> tuple[str, gr.Button]:
        rag = loader.get()
        entry = next((entry for entry in rag.entries if entry.term == term), None)
        if entry is None:
            return "<p class='hint'>Choose a term.</p>", gr.Button(visible=False)
        return whole_entry(entry, {other.slug: other.term for other in rag.entries}), gr.Button(visible=True)

    def ask(question: str, request: gr.Request, history: History | None = None, style: str = "rick") -> dict[str, Any]:
        """Answer a question about the jargon of AI and machine learning, or whatever glossary this server has, from its entries.

        Every claim is cited to an entry and was checked against it: `answer` has the text with [n] markers, `citations` the
        quoted words behind each. `refused` is true when the glossary does not answer; `suggestions` then has the nearest
        terms.

        Args:
            question: One question in plain words, at most 2,000 characters.
            history: Earlier messages, oldest first, as {"role": "user" or "assistant", "content": "text"}, so that a
                follow-up such as "And when is it off?" is understood.
            style: "plain" for plain sentences, "rick" for a parody dialogue; the facts are the same.
        """
        rag = loader.get()
        with _errors_told():
            line.admit(_address(request))  # before the line: whoever may not ask need not wait to hear it
        with line.turn(), _errors_told():
            return answer_record(rag.ask(question, history=_messages(history or []), style=style))  # type: ignore[arg-type]

    def search(question: str, top_k: int = 5) -> dict[str, Any]:
        """Find the glossary's entries nearest to a question. It is quick: no answer is written.

        `results` has them best first, each with its `term`, its `score` and the `passage` that fits best; `in_scope` tells
        whether the glossary can answer the question at all.

        Args:
            question: A question, a term, or a description of a term whose name is not known.
            top_k: How many entries, 1 to 50.
        """
        with _errors_told():
            return retrieval_record(loader.get().retrieve(question, top_k=min(int(top_k), 50)))

    def state() -> tuple[str, gr.Timer]:
        kind = "bad" if loader.failed else "ready" if loader.done else "loading"
        return f"<p class='state {kind}' role='status'>{shown(loader.note)}</p>", gr.Timer(active=not loader.done)

    page = gr.Blocks(title="jargon-rag", analytics_enabled=False)
    with page:
        answer = gr.State()
        with gr.Row(elem_id="head"):
            gr.HTML(header())
            status = gr.HTML(state()[0], elem_id="status")
        timer = gr.Timer(1.0)
        with gr.Tabs() as tabs:
            with gr.Tab("Chat", id="chat"), gr.Row(equal_height=False):
                with gr.Column(scale=3, min_width=320):
                    chatbot = gr.Chatbot(
                        label="Answers",
                        elem_id="chat",
                        height="max(340px, calc(100dvh - 330px))",
                        placeholder="### What did you nod along to today?\nEvery claim below will carry its source.",
                        examples=[{"text": example} for example in EXAMPLES],
                        buttons=["copy_all"],
                        editable="user",
                        latex_delimiters=[],
                        allow_tags=False,
                        layout="bubble",
                    )
                    box = gr.Textbox(
                        placeholder="Why does dropout help?",
                        label="Question",
                        submit_btn=True,
                        autofocus=True,
                        lines=1,
                        max_lines=6,
                        elem_id="question",
                    )
                    with gr.Row(elem_id="actions"):
                        style = gr.Radio(list(STYLES), value="Rick & Morty", label="Style", container=False)
                        copy = gr.Button("Copy as Markdown", size="sm", interactive=False)
                        share = gr.Button("Copy link", size="sm", interactive=False)
                with (
                    gr.Column(scale=2, min_width=300),
                    gr.Accordion("Why this answer", open=True, elem_id="why"),
                ):
                    reasons = gr.HTML(why(None, None, ()))
            with gr.Tab("Map", id="map") as map_tab:
                gr.HTML(
                    "<p class='hint'>Each dot is a term; near dots are near in meaning. Your last question is the star. Click a dot to ask about it;"
                    " the Glossary tab has the same terms for the keyboard.</p>"
                )
                plot = gr.Plot(show_label=False, elem_id="map")
            with gr.Tab("Glossary", id="glossary") as glossary_tab, gr.Row(equal_height=False):
                with gr.Column(scale=1, min_width=260):
                    words = gr.Textbox(label="Search the terms", placeholder="nucleus sampling", elem_id="search")
                    terms = gr.Radio([], label="Terms", elem_id="terms")
                with gr.Column(scale=2, min_width=320):
                    entry = gr.HTML("<p class='hint'>Choose a term.</p>", elem_id="reading")
                    about = gr.Button("Ask about this", visible=False, variant="primary")
        bridge = gr.HTML(js_on_load=(HERE / "page.js").read_text("utf-8"), elem_id="bridge")
        markdown, asked = gr.Textbox(visible=False), gr.Textbox(visible=False)  # what the two buttons copy

        if feedback is not None:
            add_feedback(chatbot, feedback)
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        instant: dict[str, Any] = {**private, "queue": False}
        afterwards = [box, markdown, asked, copy, share]
        timer.tick(state, outputs=[status, timer], **instant)
        for started in (
            box.submit(add, [box, chatbot], [box, chatbot], **instant),
            gr.on([chatbot.example_select, chatbot.option_select], pick, chatbot, chatbot, **instant),
            bridge.click(pick_term, chatbot, [tabs, chatbot], **instant),
            about.click(about_term, [terms, chatbot], [tabs, chatbot], **instant),
            chatbot.retry(again, chatbot, chatbot, **instant),
            chatbot.edit(edit, chatbot, chatbot, **instant),
            page.load(link, outputs=chatbot, **instant),
        ):
            answering = started.then(busy, outputs=box, **instant).then(
                reply, [chatbot, style], [chatbot, reasons, answer], concurrency_id="answers", concurrency_limit=line.at_once,
                api_visibility="private", show_progress="minimal",
            )  # fmt: skip
            answering.then(settle, answer, afterwards, **instant).then(None, js=FOCUS, **instant)
        # not Gradio's own `cancels`: it may hit the next question's answer, which has the same event
        box.stop(stop, **instant)
        page.unload(stop)
        chatbot.undo(undo, chatbot, [box, chatbot], **instant)
        chatbot.clear(lambda: (None, why(None, None, ())), outputs=[answer, reasons], **instant)
        style.change(restyle, [chatbot, style, answer], [chatbot, answer], **instant).then(
            settle, answer, afterwards, **instant
        )
        copy.click(None, markdown, js=COPY, **instant)
        share.click(None, asked, js=SHARE, **instant)
        map_tab.select(draw, answer, plot, **private)
        glossary_tab.select(find, words, terms, **private)
        words.change(find, words, terms, trigger_mode="always_last", **private)
        terms.change(read, terms, [entry, about], **private)
        api(ask, api_name="ask", concurrency_id="answers", concurrency_limit=line.at_once)
        api(search, api_name="search")
    return page


def header() -> str:
    """Return the page's head: the logo, the name, and what this is."""
    logo = (HERE / "logo.svg").read_text("utf-8")
    return (
        f"<header class='head'>{logo}<div><h1>jargon-rag</h1><p>Ask about jargon in your own words. Every claim is cited to the glossary"
        " and checked before you see it. A parody, in no way connected with any show.</p></div></header>"
    )


def launch(
    load: Callable[[Callable[[str], None]], JargonRAG],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    feedback: Path | None = None,
    at_once: int = AT_ONCE,
    mcp: bool = False,
    root_path: str | None = None,
    per_minute: int | None = None,
    say: Callable[[str], None] = print,
    wait: bool = True,
) -> gr.Blocks:
    """Bind the page, then load the models behind it. With `wait`, serve until interrupted.

    at_once: answers that are written side by side.
    feedback: a file that readers' thumbs are appended to; without one there are no thumbs.
    mcp: offer /ask and /search as tools of a Model Context Protocol server too, at /gradio_api/mcp/.
    per_minute: questions that one address may ask; None for any number.
    root_path: where a proxy in front shows the page, if not at the root of its host: "/jargon".
    Raises InputError when the port is taken, the file cannot be written, the root path is none, or MCP is not installed.
    """
    if mcp and importlib.util.find_spec("mcp") is None:
        raise InputError("MCP is not installed. Install it with: pip install 'jargon-rag[mcp]'")
    if root_path is not None and not re.fullmatch(r"(/[\w.~-]+)+", root_path):
        raise InputError(f"A root path looks like /jargon, with no slash at the end: not {root_path!r}.")
    check_address(host, port)
    if feedback is not None:
        check_feedback_file(feedback)
    loader, line = Loader(load), WaitingLine(at_once, per_minute=per_minute)
    page = create_page(loader, line=line, feedback=feedback)
    page.queue(default_concurrency_limit=1, max_size=16, api_open=True)
    page.launch(
        server_name=host,
        server_port=port,
        root_path=root_path,
        prevent_thread_lock=True,
        quiet=True,
        theme=theme(),
        css=stylesheet(),
        favicon_path=HERE / "logo.svg",
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        strict_cors=True,
        max_file_size="1mb",
        mcp_server=mcp,
        # given to the FastAPI app that launch makes, so they are there before it listens; mounting the page in an app of
        # our own (gr.mount_gradio_app) would leave the server, its thread and its closing to us
        app_kwargs={"routes": routes(loader, line)},
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


def asking(history: History, question: str) -> History:
    """Return a chat with one more question."""
    return [*history, {"role": "user", "content": question}]


def _last_question(history: History) -> int:
    """Return the place of the last question in a chat, -1 when there is none."""
    return max((place for place, part in enumerate(history) if part["role"] == "user"), default=-1)


def _address(request: gr.Request) -> str:
    """Return the address of whoever asks; behind a proxy on this machine, the one that it names."""
    return request.client.host if request.client else ""


def _text(part: dict[str, Any]) -> str:
    """Return the text of one of Gradio's messages; files are left out."""
    content = part.get("content")
    if isinstance(content, list):
        content = " ".join(str(p.get("text", "")) for p in content if isinstance(p, dict) and p.get("type") == "text")
    return content if isinstance(content, str) else ""


def _messages(history: Sequence[dict[str, Any]]) -> list[Message]:
    """Return Gradio's history as plain messages, thoughts left out."""
    return [
        {"role": str(part.get("role")), "content": _text(part)}
        for part in history
        if isinstance(part, dict) and not (part.get("metadata") or {}).get("title")
    ]
