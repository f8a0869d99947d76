from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from jargon_rag import __version__
from jargon_rag.cli import app

COMMANDS = ["ask", "chat", "search", "verify", "serve", "index", "lint", "pull", "doctor"]
ANSWER_KEYS = {
    "question",
    "standalone_question",
    "refused",
    "answer",
    "sentences",
    "citations",
    "code",
    "suggestions",
    "timings",
}
SENTENCE_KEYS = {"speaker", "text", "citations", "supported", "support", "origin"}
CITATION_KEYS = {"marker", "term", "slug", "quote", "source"}
TIMING_KEYS = {"retrieve_ms", "prefill_ms", "decode_ms", "check_ms", "first_token_ms", "first_shown_ms", "total_ms", "prompt_tokens", "answer_tokens"}  # fmt: skip
SEARCH_KEYS = {"question", "standalone_question", "in_scope", "results"}
RESULT_KEYS = {"rank", "term", "slug", "score", "kind", "passage"}
VERDICT_KEYS = {"claim", "supported", "score", "reason"}
FINDING_KEYS = {"line", "rule", "term", "message", "path"}

GLOSSARY = """# Kitchen

## Roux

A roux is flour cooked in butter until it smells of nuts.

Morty: "Why is my roux lumpy?"<br>
Rick: "Cold milk and impatience make a roux lumpy. Whisk it, Morty."<br>

## Blanching

Blanching is a short boil that ends in ice \x1b[31mwater.

Morty: "How long?"<br>
Rick: "One minute for beans."<br>
"""


def run(*args: str | Path, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def process(*args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "jargon_rag", *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=500, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def objects(output: str | bytes) -> list[dict[str, Any]]:
    """Return one object for each line; anything else on stdout fails the test."""
    text = output.decode("utf-8") if isinstance(output, bytes) else output
    assert text.endswith("\n")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def assert_answer_shape(record: dict[str, Any]) -> None:
    assert record.keys() >= ANSWER_KEYS
    assert record["sentences"]
    for sentence in record["sentences"]:
        assert sentence.keys() >= SENTENCE_KEYS
        assert sentence["speaker"] in ("Rick", "Morty", None)
        assert sentence["origin"] in ("model", "entry", "fixed")
        assert sentence["supported"] in (True, False, None)
        assert 0 <= sentence["support"] <= 1
        assert sentence["text"] in record["answer"]
    for citation in record["citations"]:
        assert citation.keys() >= CITATION_KEYS
        assert re.fullmatch(r"corpus/[\w-]+\.md#L\d+(-L\d+)?", citation["source"])
    used = {n for sentence in record["sentences"] for n in sentence["citations"]}
    assert used <= {citation["marker"] for citation in record["citations"]}
    assert all({"language", "text", "marker"} <= block.keys() for block in record["code"])
    assert record["timings"].keys() >= TIMING_KEYS
    assert all(type(value) in (int, float) for value in record["timings"].values())


@pytest.fixture
def glossary(tmp_path: Path) -> Path:
    file = tmp_path / "kitchen.md"
    file.write_text(GLOSSARY, encoding="utf-8")
    return file


# ask


def test_ask_json_as_a_process_prints_one_object_of_the_contract() -> None:
    done = process("ask", "What is overfitting?", "--json")
    assert done.returncode == 0
    (record,) = objects(done.stdout)
    assert_answer_shape(record)
    assert not record["refused"]
    assert {citation["term"] for citation in record["citations"]} == {"Overfitting"}


def test_an_ask_batch_as_a_process_answers_line_by_line_and_goes_on_after_bad_lines() -> None:
    told = [{"role": "user", "content": "What is dropout?"}]
    stdin = (
        b"\n"
        + lines({"question": "How do I cook rice for six people?"})
        + b"{nonsense\n   \n\xff\xfe{}\n"
        + lines(
            ["question"], {"history": []}, {"question": 3}, {"question": "  "}, {"question": "Why?", "history": "x"}
        )
        + lines({"question": "x" * 3000}, {"question": "How much of it do I need?", "history": told})
        + b"[" * 100_000
        + b"\n\r\n"
        + json.dumps({"question": "Wie kocht man Reis für sechs?"}, ensure_ascii=False).encode()
    )
    done = process("ask", "--batch", "-", "--json", stdin=stdin)
    assert done.returncode == 0
    records = objects(done.stdout)
    assert [sorted(record) == ["error"] for record in records] == [False] + 8 * [True] + [False, True, False]
    assert all(isinstance(record.get("error", ""), str) for record in records)
    for number in (0, 9, 11):
        assert_answer_shape(records[number])
    assert [records[number]["refused"] for number in (0, 9, 11)] == [True, False, True]
    assert records[9]["standalone_question"] == "Dropout: How much of it do I need?"
    assert "Dropout" in {citation["term"] for citation in records[9]["citations"]}
    assert records[11]["question"] == "Wie kocht man Reis für sechs?"


def test_a_refusal_in_text_is_a_dialogue_on_stdout() -> None:
    result = run("ask", "How do I cook rice for six people?")
    assert result.exit_code == 0
    assert result.stdout.startswith("Rick: ")


def test_a_refusal_in_plain_style_has_no_speaker_and_no_citations() -> None:
    result = run("ask", "How do I cook rice for six people?", "--style", "plain", "--json")
    (record,) = objects(result.stdout)
    assert_answer_shape(record)
    assert record["refused"]
    assert record["citations"] == []
    assert {
        (sentence["speaker"], tuple(sentence["citations"]), sentence["supported"], sentence["origin"])
        for sentence in record["sentences"]
    } == {(None, (), None, "fixed")}


# search


def test_search_json_lists_entries_best_first() -> None:
    result = run("search", "What is overfitting?", "--json", "--top-k", "3")
    assert result.exit_code == 0
    (record,) = objects(result.stdout)
    assert record.keys() >= SEARCH_KEYS
    assert record["in_scope"] is True
    assert [row["rank"] for row in record["results"]] == [1, 2, 3]
    assert all(row.keys() >= RESULT_KEYS for row in record["results"])
    assert (record["results"][0]["term"], record["results"][0]["slug"]) == ("Overfitting", "overfitting")
    scores = [row["score"] for row in record["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len({row["slug"] for row in record["results"]}) == 3


def test_search_gives_results_whatever_the_verdict() -> None:
    (record,) = objects(run("search", "How do I cook rice for six people?", "--json").stdout)
    assert record["in_scope"] is False
    assert len(record["results"]) == 5


def test_a_search_batch_from_a_file_keeps_order_and_takes_a_history(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    told = [{"role": "user", "content": "What is an epoch?"}, {"role": "assistant", "content": "One pass."}]
    rows = [{"question": "dropout"}, {"question": ""}, {"question": "How many do I need?", "history": told}]
    file.write_bytes(b"\xef\xbb\xbf" + lines(*rows) + lines({"question": "Why?", "history": [{"role": "user"}]}))
    result = run("search", "--batch", file, "--top-k", "1")
    assert result.exit_code == 0
    first, empty, follow_up, malformed = objects(result.stdout)
    assert [row["term"] for row in first["results"]] == ["Dropout"]
    assert empty.keys() == malformed.keys() == {"error"}
    assert [row["term"] for row in follow_up["results"]] == ["Epoch"]
    assert (follow_up["question"], follow_up["standalone_question"]) == (
        "How many do I need?",
        "Epoch: How many do I need?",
    )


def test_search_in_text_is_a_table_with_the_verdict() -> None:
    result = run("search", "overfitting", "--top-k", "2")
    assert result.exit_code == 0
    assert "in scope" in result.stdout
    assert "Overfitting" in result.stdout


def test_search_of_an_own_glossary_notes_progress_on_stderr_only(glossary: Path, tmp_path: Path) -> None:
    result = run("search", "Why is my roux lumpy?", "--corpus", glossary, "--cache-dir", tmp_path / "cache", "--json")
    assert result.exit_code == 0
    (record,) = objects(result.stdout)
    assert record["results"][0]["term"] == "Roux"
    assert "Indexing" in result.stderr


def test_what_a_glossary_holds_cannot_steer_the_terminal(glossary: Path, tmp_path: Path) -> None:
    result = run("search", "How long is blanching?", "--corpus", glossary, "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 0
    assert "Blanching" in result.stdout
    assert "\x1b" not in result.stdout


# index


def test_an_index_can_be_made_moved_and_searched_without_its_corpus(glossary: Path, tmp_path: Path) -> None:
    made = run("index", "--corpus", glossary, "--out", tmp_path / "deep" / "index")
    assert made.exit_code == 0
    assert made.stdout.startswith("2 entries, ")
    moved = (tmp_path / "deep" / "index").rename(tmp_path / "moved")
    (moved / "notes.txt").write_text("mine", encoding="utf-8")
    glossary.unlink()
    (record,) = objects(run("search", "roux", "--index", moved, "--json").stdout)
    assert record["results"][0]["term"] == "Roux"


# verify


@pytest.mark.parametrize(("claim", "supported"), [("Dropout is off.", True), ("Dropout is on.", False)])
def test_verify_json_prints_the_verdict_and_exits_0(claim: str, supported: bool) -> None:
    result = run("verify", claim, "Dropout is off.", "--json")
    assert result.exit_code == 0
    (record,) = objects(result.stdout)
    assert record.keys() >= VERDICT_KEYS
    assert (record["claim"], record["supported"]) == (claim, supported)
    assert (record["score"] == 1) == supported
    assert record["reason"]


@pytest.mark.parametrize(
    ("claim", "words"), [("Dropout is off.", "supported: "), ("Dropout is on.", "not supported: ")]
)
def test_verify_in_text_says_the_verdict_and_why(claim: str, words: str) -> None:
    assert run("verify", claim, "Dropout is off.").stdout.startswith(words)


def test_a_verify_batch_yields_errors_in_place() -> None:
    good = {"claim": "Caf\u00e9s fit \ud800.", "evidence": "Caf\u00e9s fit \ud800."}
    stdin = lines(good, {"claim": "x"}, {"claim": None, "evidence": "x"}, {"claim": [], "evidence": {}}, 7, good)
    result = run("verify", "--batch", "-", stdin=b"\n" + stdin + b"\xc3\n" + lines(good))
    assert result.exit_code == 0
    records = objects(result.stdout)
    assert [record.keys() == {"error"} for record in records] == [False, True, True, True, True, False, True, False]
    assert records[0]["claim"] == good["claim"]
    assert records[0]["supported"] is True


def test_an_empty_batch_prints_nothing_and_is_fine() -> None:
    result = run("verify", "--batch", "-", stdin=b"\n \n")
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    row = lines({"claim": "Dropout is off.", "evidence": "Dropout is off. " * 20})
    command = [sys.executable, "-m", "jargon_rag", "verify", "--batch", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.write(row)
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["supported"]
        running.stdout.close()
        try:
            running.stdin.write(row * 400)
            running.stdin.close()
        except BrokenPipeError:
            pass
        told = running.stderr.read().decode()
    assert running.returncode == 1
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


# lint


def test_lint_of_the_shipped_glossary_is_one_object(corpus: Path) -> None:
    result = run("lint", corpus, "--json")
    assert result.exit_code == 0
    (record,) = objects(result.stdout)
    assert record.keys() >= {"path", "entries", "findings"}
    assert record["path"] == str(corpus)
    assert record["entries"] > 100
    assert isinstance(record["findings"], list)


def test_findings_name_place_and_rule_and_do_not_change_the_exit_status(tmp_path: Path) -> None:
    file = tmp_path / "bad.md"
    file.write_text("# Kitchen\n\n## Roux\n\n## Roux\n\nFlour in butter.\n", encoding="utf-8")
    result = run("lint", file, "--json")
    assert result.exit_code == 0
    (record,) = objects(result.stdout)
    assert record["entries"] == 2
    assert all(finding.keys() >= FINDING_KEYS for finding in record["findings"])
    assert {(f["line"], f["rule"], f["term"]) for f in record["findings"]} >= {
        (3, "no-definition", "Roux"),
        (5, "duplicate-term", "Roux"),
    }
    told = run("lint", file)
    assert told.exit_code == 0
    assert re.search(r"bad\.md:5: duplicate-term: Roux: ", told.stdout)
    assert told.stdout.endswith(f"2 entries, {len(record['findings'])} findings\n")


# Exit statuses


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    assert re.search(rf"\b{command}\b", result.stdout)
    assert result.stderr == ""


def test_version_prints_the_package_s() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_help_lists_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(re.search(rf"\b{command}\b", result.stdout) for command in COMMANDS)
    assert {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    } == set(COMMANDS)


BAD_USAGE: list[Sequence[str]] = [
    ["ask"], ["ask", "What?", "--batch", "-"], ["ask", "What?", "more"], ["ask", "What?", "--style", "shakespeare"], ["ask", "--no-such-flag"],
    ["search"], ["search", "What?", "--batch", "-"], ["search", "What?", "--top-k", "0"], ["search", "What?", "--top-k", "many"],
    ["search", "--batch", "no/such/file.jsonl"], ["search", "--batch", "."], ["verify"], ["verify", "claim"], ["verify", "a", "b", "--batch", "-"],
    ["verify", "--batch", "no/such/file.jsonl"], ["serve", "--port", "0"], ["serve", "--port", "65536"], ["lint"], ["cook"],
]  # fmt: skip


@pytest.mark.parametrize("path", ["jargon", "/jargon/", "/", "/a b", "https://example.org/jargon"])
def test_serve_names_a_root_path_that_is_none(path: str) -> None:
    result = run("serve", "--root-path", path)
    assert result.exit_code == 1
    assert "A root path looks like /jargon" in result.stderr
    assert path in result.stderr


@pytest.mark.parametrize(
    "args", [args for args in BAD_USAGE if "--batch" not in args or args[0] == "verify" or len(args) > 3], ids=" ".join
)
def test_bad_usage_exits_2_with_a_message_on_stderr(args: Sequence[str]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage:" in result.stderr


@pytest.mark.parametrize("batch", ["no/such/file.jsonl", "."])
def test_a_batch_file_that_cannot_be_read_exits_2(batch: str) -> None:
    result = run("search", "--batch", batch)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert batch in result.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["search", "roux", "--corpus", "no/such.md"], "no/such.md"),
        (["search", "roux", "--index", "no/such"], "no/such"),
        (["search", ""], "question is empty"),
        (["search", "x" * 2001, "--json"], "2,000"),
        (["search", "roux", "--embedder", "./no/such/model"], "no/such/model"),
        (["ask", "roux", "--corpus", "no/such.md", "--json"], "no/such.md"),
        (["ask", "roux", "--model", "./no/such/model"], "no/such/model"),
        (["ask", "roux", "--adapter", "no/such/adapter"], "no/such/adapter"),
        (["index", "--corpus", "no/such.md"], "no/such.md"),
        (["lint", "no/such.md", "--json"], "no/such.md"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_work_that_fails_exits_1_with_a_message_and_an_empty_stdout(args: list[str], told: str) -> None:
    result = run(*args)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.lstrip().startswith("Error:") or "\nError:" in result.stderr
    assert told in result.stderr


def test_a_message_cannot_steer_the_terminal() -> None:
    result = run("lint", "no\x1b[31msuch.md")
    assert result.exit_code == 1
    assert "\x1b" not in result.stderr


def test_the_environment_names_the_embedder() -> None:
    result = run("search", "roux", env={"JARGON_RAG_EMBEDDER": "./no/such/model"})
    assert result.exit_code == 1
    assert "no/such/model" in result.stderr


def test_the_doctor_exits_1_exactly_if_something_is_bad() -> None:
    result = run("doctor")
    assert result.exit_code == (1 if "BAD" in result.stdout else 0)
    assert re.search(r"^(ok |BAD) ", result.stdout, re.MULTILINE)
