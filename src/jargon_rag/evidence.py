"""Evidence: the entries that an answer may cite, and their passages, those that answer the likeliest first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from jargon_rag.chunking import split_sentences
from jargon_rag.retriever import Retriever
from jargon_rag.terms import name_key, split_heading, words
from jargon_rag.types import Chunk, Entry, Retrieval

MAX_SOURCES = 3  # entries that one answer may cite
PASSAGES_PER_SOURCE = 3
CLOSE_ODDS = 0.1  # an entry this likely to be the right one, against the best, is a source too
NAMED_ODDS = 0.003  # one that the question names without comparing is passed over below: "any model", "SGD on images"
SURE = 0.8  # so many passages are said that the one that answers is among them with this probability,
MAX_LIKELY = 3  # but no more than these

_COMPARES = re.compile(  # where it names fewer than two entries, the best two are taken if they are close
    r"\b(vs\.?|versus|or|compar\w+|differ\w*|between|better than|instead of|rather than|apart|separates?|synonyms?|same|"
    r"beats?|another (?:word|name)|isn't \w.* (?:just|simply|merely))\b",
    re.IGNORECASE,
)
_VERDICT = re.compile(r"(yes|no|maybe(?: not)?)[,:]\s+(?=\S)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an answer may rest on."""

    sources: tuple[Entry, ...]  # in the order of their use; the entry that marker n stands for is the n-th
    passages: tuple[tuple[int, Chunk], ...]  # each with its marker, in the order in which they are to be used
    likely: int  # so many of them, from the first on, may well be the one that answers: none is left out
    required: frozenset[int]  # markers of the entries that are asked about together: each is cited
    compared: tuple[str, ...]  # terms that the question names and sets against each other

    @property
    def facts(self) -> tuple[tuple[int, str, str], ...]:
        """Return marker, term and text of each passage."""
        sources = self.sources
        return tuple((n, sources[n - 1].term, stated(sources[n - 1], chunk.passage)) for n, chunk in self.passages)


def gather(retrieval: Retrieval, retriever: Retriever) -> Evidence:
    """Return the evidence for a question in scope."""
    question = retrieval.standalone_question
    named = retriever.named(question)
    compares = bool(_COMPARES.search(question))
    together = [
        result.entry.slug
        for result in retrieval.results
        if result.entry.slug in named and (compares or result.odds >= NAMED_ODDS)
    ]
    entries = _sources(retrieval, together if compares or len(together) > 1 else [])
    together = [slug for slug in entries if slug in together]
    sets_apart = compares and len(together) > 1
    if sets_apart:
        chunks, likely = (
            [chunk for entry in entries.values() for chunk in _apart(entry, retriever, retrieval, named)],
            1,
        )
    else:
        chunks, likely = _ranked(retrieval, entries, retriever)
    if len(together) < 2:
        together = list(entries)[:2] if compares else []
    markers = {slug: n for n, slug in enumerate(dict.fromkeys(chunk.slug for chunk in chunks), start=1)}
    return Evidence(
        sources=tuple(entries[slug] for slug in markers),
        passages=tuple((markers[chunk.slug], chunk) for chunk in chunks),
        likely=likely,
        required=frozenset(markers[slug] for slug in together),
        compared=tuple(entries[slug].term for slug in together) if sets_apart else (),
    )


def _sources(retrieval: Retrieval, together: Sequence[str]) -> dict[str, Entry]:
    """Return the best entry, those it is asked about together with, and near ties, by their slugs."""
    best, *others = retrieval.results
    compared = [result for result in others if result.entry.slug in together]
    close = [result for result in others if result.odds >= CLOSE_ODDS]
    found = {result.entry.slug: result.entry for result in (best, *compared, *close)}
    return dict(list(found.items())[:MAX_SOURCES])


def _apart(entry: Entry, retriever: Retriever, retrieval: Retrieval, named: Mapping[str, str]) -> list[Chunk]:
    """Return an entry's best passage and its definition, which comes first where the other names nothing compared."""
    chunks = [chunk for chunk, _ in retriever.passages(retrieval.standalone_question, entry.slug, retrieval.read)]
    definition = _definition(entry, chunks)
    other = any(slug in named and slug != entry.slug for slug in retriever.named(chunks[0].passage))
    first = other or entry.slug not in named
    return list(dict.fromkeys([chunks[0], *definition] if first else [*definition, chunks[0]]))


def _ranked(retrieval: Retrieval, entries: Mapping[str, Entry], retriever: Retriever) -> tuple[list[Chunk], int]:
    """Return passages, those that answer the likeliest first, and how many of them may well do.

    The probability that a passage answers is that of its entry times that of the passage within it.
    """
    odds = {result.entry.slug: result.odds for result in retrieval.results}
    found: list[tuple[float, Chunk]] = []
    others: list[Chunk] = []
    for slug, entry in entries.items():
        own = retriever.passages(retrieval.standalone_question, slug, retrieval.read)
        found += [(share * odds[slug] / sum(odds.values()), chunk) for chunk, share in own]
        chunks = [chunk for chunk, _ in own]
        best = chunks[: PASSAGES_PER_SOURCE if len(entries) == 1 else 1]
        definition = [chunk for chunk in _definition(entry, chunks) if chunk not in best]
        others += [*(best[: PASSAGES_PER_SOURCE - 1] if definition else best), *definition]
    found.sort(key=lambda pair: -pair[0])
    reached = accumulate(share for share, _ in found)
    likely = next((count for count, share in enumerate(reached, start=1) if share >= SURE), MAX_LIKELY)
    likely = min(likely, MAX_LIKELY, len(found))
    return list(dict.fromkeys([*(chunk for _, chunk in found[:likely]), *others])), likely


def _definition(entry: Entry, chunks: Sequence[Chunk]) -> list[Chunk]:
    return [chunk for chunk in chunks if entry.definition and chunk.line == entry.definition[0].line][:1]


def stated(entry: Entry, passage: str) -> str:
    """Return a passage as it can be understood alone.

    A definition that does not name its term gets it in front; a reply loses its 'Yes:' or 'No,', which is to a question of
    the glossary's, not to the reader's.
    """
    if not entry.definition or not entry.definition[0].text.startswith(passage):
        verdict = _VERDICT.match(passage)
        return passage if verdict is None else passage[verdict.end()].upper() + passage[verdict.end() + 1 :]
    first = "".join(words(split_sentences(passage)[0]))
    names = [name_key(name) for title in (entry.term, *entry.aliases) for name in split_heading(title)]
    return passage if any(name and name in first for name in names) else f"{entry.term}: {passage}"
