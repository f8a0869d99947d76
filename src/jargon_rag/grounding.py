"""Read markers, split a stream into sentences, and check each claim against the text it rests on.

The check is a certificate, not a score: a claim passes when it can be laid word by word, in order, over the evidence,
with no edits but these: words of the persona's voice and articles in or out, singular for plural, a contraction spelled
out, a whole clause left out after a dash, a colon, a semicolon, a bracket, ', so', ', which', or ', because'. A clause
that holds a negation, a condition or a limit cannot be left out. What the certificate cannot follow counts as
unsupported: a false alarm costs a quotation, a false pass costs the reader's trust.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest

from jargon_rag.chunking import split_sentences
from jargon_rag.terms import singular
from jargon_rag.types import Verdict

MAX_TOKENS = 400  # of a claim or an evidence text; what is longer is cut, so the check stays fast
MARKER = re.compile(r"\s*\[\s*(\d{1,3})\s*\]", re.ASCII)
_MARKED = re.compile(
    MARKER.pattern + r"(?:[.!?,;]?" + MARKER.pattern + r")*[.!?,;]?\s*[^\s\[\].!?,;]"
)  # markers, then something else
_BRACKETED = re.compile(r"\s*\[[^\[\]]{0,40}\]?")
_SPEAKER = re.compile(r"^\W*(rick|morty|question|answer)\b\W*:\s*", re.IGNORECASE)

_TOKEN = re.compile(r"(?<![\w)])[-−]?\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s]|_")
_CONTRACTIONS = (
    (re.compile(r"\bcan't\b|\bcannot\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"\b(it|that|there|what|he|she|here|who)'s\b"), r"\1 is"),
)
_ARTICLES = frozenset({"a", "an", "the"})
_VOICE = frozenset({"morty", "rick", "listen", "okay", "ok", "yeah", "yep"})  # none that could be part of a claim
_SILENT = frozenset(",.!'\"“”‘’()[]{};:…—–`*_") | {"-"}  # a hyphen joins words; a minus is part of its number
_NEGATIONS = frozenset("not no never none nothing neither nor cannot".split())
_LIMITS = frozenset(
    "without hardly rarely seldom barely few little less fewer least only just except unless if when whenever while until before after "
    "as long where once provided assuming given otherwise but however although though despite yet instead rather than usually often "
    "sometimes mostly typically generally may might can could should would must about roughly approximately nearly almost up most more "
    "some many".split()
)
_GUARDS = _NEGATIONS | _LIMITS
_CUT_AFTER = frozenset("so which because".split())


@dataclass(frozen=True, slots=True)
class RawSentence:
    """A sentence as the model wrote it, with the markers that it wrote; nothing is checked yet."""

    speaker: str | None
    text: str
    markers: tuple[int, ...]


def read_sentences(pieces: Iterable[str]) -> Iterator[RawSentence]:
    """Yield sentences as soon as they are complete: with the marker that follows, or at their full stop or line's end.

    Brackets that hold anything but a number are dropped; text without letters or digits is no sentence.
    """
    speaker: str | None = None
    buffer = ""
    for piece in pieces:
        buffer += piece
        while (end := _sentence_end(buffer)) is not None:
            complete, buffer = buffer[:end], buffer[end:]
            speaker, sentence = _read_sentence(complete, speaker)
            if sentence:
                yield sentence
    _, sentence = _read_sentence(buffer, speaker)
    if sentence:
        yield sentence


def _sentence_end(buffer: str) -> int | None:
    """Return where the first sentence ends, or None while what comes next could still belong to it."""
    ends = [newline + 1] if (newline := buffer.find("\n")) >= 0 else []
    if marked := _MARKED.search(buffer):
        ends.append(marked.end() - 1)
    first, *rest = split_sentences(buffer.split("\n", 1)[0]) or [""]
    if rest and not rest[0].startswith("["):
        ends.append(buffer.index(first) + len(first))
    return min(ends, default=None)


def _read_sentence(text: str, speaker: str | None) -> tuple[str | None, RawSentence | None]:
    if spoken := _SPEAKER.match(text):
        name = spoken[1].capitalize()
        speaker = name if name in ("Rick", "Morty") else None
        text = text[spoken.end() :]
    markers = tuple(dict.fromkeys(int(number) for number in MARKER.findall(text)))
    text = " ".join(_BRACKETED.sub("", text).split())
    text = re.sub(r"([.!?])[.,;]+$", r"\1", re.sub(r"\s+([.,;:!?])", r"\1", text)).lstrip(".,;:!? ")
    return speaker, RawSentence(speaker, text, markers) if any(char.isalnum() for char in text) else None


# The check


@dataclass(frozen=True, slots=True)
class _Token:
    text: str  # as compared
    start: int  # in the original text
    end: int


@dataclass(frozen=True, slots=True)
class _Clause:
    """A run of evidence tokens, [start, end), that a claim may leave out."""

    start: int
    end: int


def check_support(claim: str, evidence: str) -> Verdict:
    """Say whether evidence supports a claim, by alignment; the score is the share of the claim's words found in order.

    Both are plain text. A question asserts nothing, so no claim can rest on one.
    """
    evidence = unicodedata.normalize("NFC", evidence)
    claimed = [
        token for token in _tokens(unicodedata.normalize("NFC", claim))[:MAX_TOKENS] if token.text not in _SILENT
    ]
    content = [token for token in claimed if token.text not in _VOICE | _ARTICLES]
    if not content:
        return Verdict(False, 0.0, "there is no claim in it")
    if not evidence.strip():
        return Verdict(False, 0.0, "there is no evidence")
    found = _tokens(evidence)[:MAX_TOKENS]
    aligned = _align(claimed, found, _clauses(evidence, found))
    if aligned is not None:
        first, last = found[aligned[0]], found[aligned[1]]
        quote = _whole_sentences(evidence, first.start, last.end)
        return Verdict(
            True,
            1.0,
            "every word of the claim stands in the evidence, in this order, with nothing left out that limits it",
            quote,
        )
    nearest = max(
        (_tokens(sentence) for sentence in split_sentences(evidence)),
        key=lambda sentence: _longest_common(content, sentence),
    )
    share = _longest_common(content, found) / len(content)
    return Verdict(False, round(min(share, 0.99), 4), _difference(content, nearest))


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    for match in re.finditer(r"\S+", text):
        word = match[0].casefold().replace("’", "'").replace("\u2011", "-").replace("\u2010", "-")
        spelled = word
        for pattern, replacement in _CONTRACTIONS:
            spelled = pattern.sub(replacement, spelled)
        for part in _TOKEN.finditer(spelled):
            value = part[0].replace("−", "-").replace(",", "") if part[0][-1].isdigit() else singular(part[0])
            start = match.start() + part.start() if spelled == word else match.start()
            end = match.start() + part.end() if spelled == word else match.end()
            tokens.append(_Token(value, start, min(end, match.end())))
    # 'a few' is no 'few': there the article is part of the quantity
    return [
        replace(token, text="a-") if token.text == "a" and following.text in {"few", "little"} else token
        for token, following in zip_longest(tokens, tokens[1:], fillvalue=_Token("", 0, 0))
    ]


def _clauses(evidence: str, tokens: list[_Token]) -> list[_Clause]:
    """Return what a claim may leave out: whole sentences, and clauses that limit nothing."""
    clauses: list[_Clause] = []
    position = 0
    for sentence in split_sentences(evidence):
        at = evidence.find(sentence, position)
        position = at + len(sentence)
        inside = [n for n, token in enumerate(tokens) if at <= token.start < position]
        if not inside:
            continue
        start, end = inside[0], inside[-1] + 1
        clauses.append(_Clause(start, end))
        cuts = [n for n in range(start + 1, end) if _is_cut(tokens, n)]
        edges = [*cuts, end]
        for cut, following in pairwise(edges):
            for stop in (following, end):
                clauses.append(_Clause(cut, stop))
            if tokens[cut].text == ";":
                clauses.append(_Clause(start, cut + 1))
        opened = [n for n in range(start, end) if tokens[n].text == "("]
        for opening in opened:
            closing = next((n for n in range(opening, end) if tokens[n].text == ")"), None)
            if closing is not None:
                clauses.append(_Clause(opening, closing + 1))
    return [
        clause
        for clause in clauses
        if _is_sentence(clause, tokens, evidence) or not _limits(tokens[clause.start : clause.end])
    ]


def _limits(clause: list[_Token]) -> bool:
    """Tell whether leaving a clause out could widen the rest; what follows from it or explains it may be negative."""
    reason = clause[0].text in {"so", "because"}
    return any(token.text in (_LIMITS if reason else _GUARDS) for token in clause)


def _is_sentence(clause: _Clause, tokens: list[_Token], evidence: str) -> bool:
    starts = clause.start == 0 or evidence[: tokens[clause.start].start].rstrip(" \"'“‘(").endswith(
        (".", "!", "?", ".'", '."')
    )
    ends = clause.end == len(tokens) or tokens[clause.end - 1].text in {".", "!", "?"}
    return starts and ends


def _is_cut(tokens: list[_Token], n: int) -> bool:
    """Tell whether a clause begins here; a dash or colon between numbers is part of a range or a ratio."""
    text, before = tokens[n].text, tokens[n - 1]
    if text in {";", ":", "—", "–"}:
        return not before.text[-1].isdigit() or (n + 1 < len(tokens) and tokens[n + 1].start > tokens[n].end)
    return text in _CUT_AFTER and before.text == ","


def _align(claimed: list[_Token], found: list[_Token], clauses: list[_Clause]) -> tuple[int, int] | None:
    """Return the first and last evidence token of an alignment of the whole claim, or None.

    A claim may begin and end anywhere that a left-out clause allows, so all evidence is consumed, token by token.
    """
    by_start: dict[int, list[int]] = {}
    for clause in clauses:
        by_start.setdefault(clause.start, []).append(clause.end)
    asks = _questions(found)
    # state: (claim position, evidence position) → first matched evidence token (or -1), reached from (0, 0)
    reached: dict[tuple[int, int], tuple[int, int]] = {(0, 0): (-1, -1)}
    for j in range(len(found) + 1):
        for i in range(len(claimed) + 1):
            span = reached.get((i, j))
            if span is None:
                continue
            if i < len(claimed) and claimed[i].text in _VOICE | _ARTICLES:
                reached.setdefault((i + 1, j), span)
            if j == len(found):
                continue
            evidence_token = found[j].text
            if i < len(claimed) and claimed[i].text == evidence_token and j not in asks:
                reached.setdefault((i + 1, j + 1), (span[0] if span[0] >= 0 else j, j))
            if evidence_token in _ARTICLES | _SILENT | {"?", "morty"}:
                reached.setdefault((i, j + 1), span)
            for end in by_start.get(j, []):
                reached.setdefault((i, end), span)
    final = reached.get((len(claimed), len(found)))
    return final if final is not None and final[0] >= 0 else None


def _questions(tokens: list[_Token]) -> set[int]:
    """Return the tokens of sentences that end in a question mark."""
    asks: set[int] = set()
    start = 0
    for n, token in enumerate(tokens):
        if token.text in {".", "!", "?"}:
            if token.text == "?":
                asks.update(range(start, n + 1))
            start = n + 1
    return asks


def _whole_sentences(evidence: str, start: int, end: int) -> str:
    """Return the sentences of the evidence that a span lies in: a quote that can be read alone."""
    kept: list[str] = []
    position = 0
    for sentence in split_sentences(evidence):
        at = evidence.find(sentence, position)
        position = at + len(sentence)
        if at < end and position > start:
            kept.append(sentence)
    if not kept:
        return evidence[start:end]
    first = evidence.find(kept[0])
    return evidence[first : evidence.find(kept[-1], first) + len(kept[-1])]


def _longest_common(claimed: list[_Token], found: list[_Token]) -> int:
    row = [0] * (len(found) + 1)
    for token in claimed:
        previous = 0
        for j, other in enumerate(found, start=1):
            previous, row[j] = row[j], previous + 1 if token.text == other.text else max(row[j], row[j - 1])
    return row[-1]


def _difference(content: list[_Token], found: list[_Token]) -> str:
    known = {token.text for token in found}
    foreign = list(dict.fromkeys(token.text for token in content if token.text not in known))
    if foreign:
        return "not in the nearest sentence of the evidence: " + ", ".join(f"'{word}'" for word in foreign[:5])
    said = {token.text for token in content}
    guards = list(dict.fromkeys(token.text for token in found if token.text in _GUARDS and token.text not in said))
    if guards:
        return "the claim leaves out what limits it: " + ", ".join(f"'{word}'" for word in guards[:5])
    return "the words are there, but not together in this order"
