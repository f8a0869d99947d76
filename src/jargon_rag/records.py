"""Answers, search results and verdicts as the JSON objects of the command line and the HTTP endpoints."""

from __future__ import annotations

import dataclasses
from typing import Any

from jargon_rag.lint import Finding
from jargon_rag.types import Answer, Retrieval, Verdict


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
