"""Answers, search results and verdicts as the JSON objects of the command line and the HTTP endpoints; and the lines of a batch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from jargon_rag.errors import InputError
from jargon_rag.lint import Finding
from jargon_rag.types import Answer, Retrieval, Verdict

MAX_LINE_BYTES = 1_000_000  # of a batch: a question with fifty long messages has a tenth of it


def read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a batch that are not blank; of one that is too long, no more than tells so is kept in memory."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        if line.strip():
            yield line


def read_row(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line; raises InputError for anything else."""
    if len(line) > MAX_LINE_BYTES:
        raise InputError(f"A line has at most {MAX_LINE_BYTES:,} bytes. Ask less at once.")
    try:
        row = json.loads(line.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"A line is a JSON object, not {type(row).__name__}.")
    return row


def answer_record(answer: Answer) -> dict[str, Any]:
    """Return what `ask --json` prints."""
    return {
        "question": answer.question,
        "standalone_question": answer.standalone_question,
        "refused": answer.refused,
        "answer": answer.text,
        "sentences": [
            {**dataclasses.asdict(sentence), "citations": list(sentence.citations)} for sentence in answer.sentences
        ],
        "citations": [
            {
                "marker": citation.marker,
                "term": citation.entry.term,
                "slug": citation.entry.slug,
                "quote": citation.quote,
                "source": citation.source,
            }
            for citation in answer.citations
        ],
        "code": [dataclasses.asdict(block) for block in answer.code],
        "suggestions": list(answer.suggestions),
        "timings": dataclasses.asdict(answer.timings),
    }


def retrieval_record(retrieval: Retrieval) -> dict[str, Any]:
    """Return what `search --json` prints."""
    return {
        "question": retrieval.question,
        "standalone_question": retrieval.standalone_question,
        "in_scope": retrieval.in_scope,
        "reason": retrieval.reason,
        "confidence": round(retrieval.confidence, 4),
        "results": [
            {
                "rank": result.rank,
                "term": result.entry.term,
                "slug": result.entry.slug,
                "score": round(result.score, 4),
                "signals": {name: round(value, 4) for name, value in result.signals.items()},
                "kind": result.chunk.kind,
                "passage": result.chunk.passage,
            }
            for result in retrieval.results
        ],
    }


def verdict_record(claim: str, evidence: str, verdict: Verdict) -> dict[str, Any]:
    """Return what `verify --json` prints."""
    return {"claim": claim, "evidence": evidence, **dataclasses.asdict(verdict)}


def findings_record(path: str, entries: int, findings: list[Finding]) -> dict[str, Any]:
    """Return what `lint --json` prints."""
    return {"path": path, "entries": entries, "findings": [dataclasses.asdict(finding) for finding in findings]}
