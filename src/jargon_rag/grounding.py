"""Check a claim against the text it rests on.

The check is a certificate, not a score: a claim passes when it can be laid word by word, in order, over the evidence,
with no edits but these: words and openings of the persona's voice and articles in or out, singular for plural, a contraction spelled
out, a whole clause left out after a dash, a colon, a semicolon, a bracket, ', so', ', which', or ', because'. A clause
that holds a negation, a condition or a limit, or that begins with a preposition ('in training'), cannot be left out.
Words of two sentences stay two sentences. What the certificate cannot follow counts as unsupported: a false alarm costs a quotation, a false pass costs the reader's trust.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, zip_longest

from jargon_rag.chunking import split_sentences
from jargon_rag.terms import singular
from jargon_rag.types import Verdict

MAX_TOKENS = 400  # a longer claim is not supported; longer evidence is read up to the last whole sentence within
_NUMBER = r"(?:(?<![\w)])[-−])?(?:\d+(?:[.,]\d+)*|(?<![\w.])\.\d+)(?:e[-−+]?\d+(?!\w))?"
_TOKEN = re.compile(rf"{_NUMBER}|[^\W\d_]+|[^\w\s]|_")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:,|\.|$))")
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
ASIDES = (
    "alright|brace yourself|buckle up|class is in session|deep breath|eyes on me|for the record|frame this|geez|ha|here's the thing|hey|"
    "hold my flask|look|newsflash|oh|pay attention|plot twist|psst|read my lips|repeat after me|science time|sheesh|short version|spoiler|"
    "stay with me|try to keep up|ugh|wow|write this down"
).split("|")  # openings of the voice that claim nothing, where a sign of pause follows
_OPENING_ASIDES = re.compile(
    rf"^\W*(?:(?:(?:{'|'.join(ASIDES).replace(chr(39), '.')}|burp)(?:,?\s+morty)?|morty)\W*[,.:!…—–*]\W*)+(?=\w)",
    re.IGNORECASE,
)
_SILENT = frozenset(",.!'\"“”‘’()[]{};:…—–`*_") | {"-"}  # a hyphen joins words; a minus is part of its number
_LIGHT = _VOICE | _ARTICLES  # what a claim may have that the evidence has not
_PASSED = _ARTICLES | _SILENT | {"?", "morty"}  # what a claim need not have
_STOPS = frozenset(".!…")
_OPENING = re.compile(r"[\s\"'“‘(*`\[]+$")
_PAUSE = re.compile(r"['\"”’)]*(?:[,.;:!…—–]|\s+[—–])")
_NEGATIONS = frozenset("not no never none nothing neither nor cannot".split())
_LIMITS = frozenset(
    singular(word)
    for word in "without hardly rarely seldom barely few little less fewer least only just except unless if when whenever while until "
    "before after as long where once provided assuming given otherwise but however although though despite yet instead rather than "
    "usually often sometimes mostly typically generally may might can could should would must about roughly approximately nearly "
    "almost up most more some many alone perhaps probably possibly likely unlikely supposedly allegedly ideally one those "
    "wrong false untrue incorrect myth lie mistake joke".split()
)
_GUARDS = _NEGATIONS | _LIMITS
_PREPOSITIONS = frozenset(
    "in on at for during with within under over by from of per to like against among between across through".split()
)
_CUT_AFTER = frozenset("so which because".split())


@dataclass(frozen=True, slots=True)
class _Token:
    text: str  # as compared
    start: int  # in the original text
    end: int
    capital: bool  # the original has a capital letter or a digit


@dataclass(frozen=True, slots=True)
class _Clause:
    """A run of evidence tokens, [start, end), that a claim may leave out."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Evidence:
    """A passage as claims are laid over it: its tokens, and what runs of them are."""

    text: str
    tokens: list[_Token]
    sentences: list[tuple[int, int]]
    clauses: list[_Clause]
    starts: set[int]
    asks: set[int]


def check_support(claim: str, evidence: str) -> Verdict:
    """Say whether evidence supports a claim, by alignment; the score is the share of the claim's words found in order.

    Both are plain text. A question asserts nothing, so no claim can rest on one. An opening of the voice ('Plot twist,
    Morty:') is left out where the claim does not pass with it.
    """
    verdict = _check(claim, evidence)
    bare = _OPENING_ASIDES.sub("", claim)
    return verdict if verdict.supported or bare == claim else _check(bare, evidence)


def without_aside(claim: str) -> str:
    """Return a claim without the opening of the voice, if it has one, beginning with a capital."""
    bare = _OPENING_ASIDES.sub("", claim)
    return claim if bare == claim else bare[:1].upper() + bare[1:]


def _check(claim: str, evidence: str) -> Verdict:
    spoken = _tokens(unicodedata.normalize("NFC", claim))
    claimed = [token for token in spoken[:MAX_TOKENS] if token.text not in _SILENT]
    content = [token for token in claimed if token.text not in _LIGHT]
    if not content:
        return Verdict(False, 0.0, "there is no claim in it")
    if not evidence.strip():
        return Verdict(False, 0.0, "there is no evidence")
    read = _read(evidence)
    found, sentences = read.tokens, read.sentences
    if not found:
        return Verdict(False, 0.0, f"the evidence begins with a sentence of more than {MAX_TOKENS} words and signs")
    if len(spoken) > MAX_TOKENS:
        return Verdict(False, 0.0, f"the claim is too long to be checked: more than {MAX_TOKENS} words and signs")
    aligned = _align(spoken, found, read.clauses, starts=read.starts, asks=read.asks)
    if aligned is not None:
        first, last = aligned
        touched = [span for span in sentences if span[0] <= last and span[1] > first]
        quote = read.text[found[touched[0][0]].start : found[touched[-1][1] - 1].end]
        return Verdict(
            True,
            1.0,
            "every word of the claim stands in the evidence, in this order, with nothing left out that limits it",
            quote,
        )
    nearest = max(
        (found[start:end] for start, end in sentences), key=lambda sentence: _longest_common(content, sentence)
    )
    share = _longest_common(content, found) / len(content)
    return Verdict(False, round(min(share, 0.99), 4), _difference(content, nearest))


@lru_cache(256)  # an answer's passages are each checked against many times
def _read(evidence: str) -> _Evidence:
    text, tokens = _readable(unicodedata.normalize("NFC", evidence))
    sentences = _sentence_spans(text, tokens)
    clauses = _clauses(tokens, sentences)
    return _Evidence(text, tokens, sentences, clauses, _starts(tokens, sentences), _questions(tokens, sentences))


def _tokens(text: str) -> list[_Token]:
    """Return the tokens of a text; one more than MAX_TOKENS where there are more, so that a caller can tell."""
    tokens: list[_Token] = []
    for match in re.finditer(r"\S+", text):
        if len(tokens) > MAX_TOKENS:
            break
        word = match[0].casefold().replace("’", "'").replace("\u2011", "-").replace("\u2010", "-")
        spelled = word
        if "'" in word or "cannot" in word:
            for pattern, replacement in _CONTRACTIONS:
                spelled = pattern.sub(replacement, spelled)
        in_place = spelled == word and len(word) == len(match[0])
        for part in _TOKEN.finditer(spelled):
            start, end = (match.start() + part.start(), match.start() + part.end()) if in_place else match.span()
            capital = any(char.isupper() or char.isdigit() for char in text[start:end])
            tokens.append(_Token(_compared(part, text, start, end, in_place=in_place), start, end, capital))
            if len(tokens) > MAX_TOKENS:
                break
    # 'a few' is no 'few': there the article is part of the quantity
    return [
        replace(token, text="a-") if token.text == "a" and following.text in {"few", "little"} else token
        for token, following in zip_longest(tokens, tokens[1:], fillvalue=_Token("", 0, 0, False))
    ]


def _compared(part: re.Match[str], text: str, start: int, end: int, *, in_place: bool) -> str:
    """Return a token as it is compared: signs that calculate, 'No,' and the letter A are not silent."""
    token, word = part[0], part.string
    if token[-1].isdigit():
        return _THOUSANDS.sub("", token.replace("−", "-"))
    if token == "*":
        return "×*" if "*" in word.strip("*") or not word.strip("*") else token
    if token in {":", "-", "–", "—"}:
        before, after = word[: part.start()][-1:], word[part.end() :][:1]
        if (before.isdigit() and after.isdigit()) or word == "-":
            return "#:" if token == ":" else "#-"
        return token
    if token in _NEGATIONS and in_place and _PAUSE.match(text, end):
        return token + ","
    if token == "a" and in_place and _is_letter(text, start, end):
        return "a-"
    return singular(token)


def _is_letter(text: str, start: int, end: int) -> bool:
    """Tell whether an A is a name ('option A', 'A/B') rather than an article."""
    if text[end : end + 1] in set("/*+=_0123456789.,;:!?)"):
        return True
    before = _OPENING.sub("", text[max(0, start - 20) : start])
    return text[start] == "A" and bool(before) and before[-1] not in ".!?:;,—–-…"


def _readable(evidence: str) -> tuple[str, list[_Token]]:
    """Return evidence and its tokens, cut after the last whole sentence within MAX_TOKENS."""
    found = _tokens(evidence)
    if len(found) <= MAX_TOKENS:
        return evidence, found
    start = evidence[: found[-1].end]
    whole = split_sentences(start)[:-1]
    cut = start[: start.rindex(whole[-1]) + len(whole[-1])] if whole else ""
    return cut, _tokens(cut)


def _sentence_spans(evidence: str, tokens: list[_Token]) -> list[tuple[int, int]]:
    """Return the sentences of the evidence as runs of tokens, [start, end)."""
    spans: list[tuple[int, int]] = []
    position, n = 0, 0
    for sentence in split_sentences(evidence):
        position = evidence.index(sentence, position) + len(sentence)
        start = n
        while n < len(tokens) and tokens[n].start < position:
            n += 1
        if n > start:
            spans.append((start, n))
    return spans


def _clauses(tokens: list[_Token], sentences: list[tuple[int, int]]) -> list[_Clause]:
    """Return what a claim may leave out: whole sentences, and clauses that limit nothing."""
    clauses: list[_Clause] = []
    for start, end in sentences:
        cuts = [n for n in range(start + 1, end) if _is_cut(tokens, n)]
        for cut, following in pairwise([*cuts, end]):
            if tokens[cut].text != ";":
                clauses += [_Clause(cut, following), _Clause(cut, end)]
            elif not any(
                tokens[n].text == ":" for n in range(start, cut)
            ):  # after a colon it parts the items of a list
                clauses += [_Clause(start, cut + 1), _Clause(cut, end)]
        for opening in (n for n in range(start, end) if tokens[n].text == "("):
            closing = next((n for n in range(opening, end) if tokens[n].text == ")"), None)
            if closing is not None and not _qualifies(tokens[opening + 1 : closing]):
                clauses.append(_Clause(opening, closing + 1))
    whole = [_Clause(start, end) for start, end in sentences]
    return whole + [clause for clause in clauses if not _limits(tokens[clause.start : clause.end])]


def _limits(clause: list[_Token]) -> bool:
    """Tell whether leaving a clause out could widen the rest; what follows from it or explains it may be negative."""
    reason = clause[0].text in {"so", "because"}
    first = next((token.text for token in clause if token.text not in _SILENT), "")
    return first in _PREPOSITIONS or any(token.text.rstrip(",") in (_LIMITS if reason else _GUARDS) for token in clause)


def _qualifies(bracket: list[_Token]) -> bool:
    """Tell whether a bracket may be an adjective ('networks (deep)'): one or two words, and no abbreviation."""
    words = [token for token in bracket if token.text not in _SILENT]
    return len(words) <= 2 and not any(token.capital for token in words)


def _is_cut(tokens: list[_Token], n: int) -> bool:
    """Tell whether a clause begins here; a dash or colon between numbers is part of a range or a ratio."""
    text, before = tokens[n].text, tokens[n - 1]
    if text in {";", ":", "—", "–"}:
        return not before.text[-1].isdigit() or (n + 1 < len(tokens) and tokens[n + 1].start > tokens[n].end)
    return text in _CUT_AFTER and before.text == ","


def _align(
    spoken: list[_Token], found: list[_Token], clauses: list[_Clause], *, starts: set[int], asks: set[int]
) -> tuple[int, int] | None:
    """Return the first and last evidence token of an alignment of the whole claim, or None.

    A claim may begin and end anywhere that a left-out clause allows, so all evidence is consumed, token by token.
    Where a new sentence of the evidence starts, the claim must stop too.
    """
    claimed: list[_Token] = []
    pauses: set[int] = set()
    for token in spoken:
        if token.text in _STOPS:
            pauses.add(len(claimed))
        if token.text not in _SILENT:
            claimed.append(token)
    lead = next((i for i, token in enumerate(claimed) if token.text not in _LIGHT), 0)
    by_start: dict[int, list[int]] = {}
    for clause in clauses:
        by_start.setdefault(clause.start, []).append(clause.end)
    # state: (claim position, evidence position) → first matched evidence token (or -1), reached from (0, 0)
    reached: dict[tuple[int, int], tuple[int, int]] = {(0, 0): (-1, -1)}
    for j in range(len(found) + 1):
        for i in range(len(claimed) + 1):
            span = reached.get((i, j))
            if span is None or (j in starts and lead < i < len(claimed) and i not in pauses):
                continue
            if i < len(claimed) and claimed[i].text in _LIGHT:
                reached.setdefault((i + 1, j), span)
            if j == len(found):
                continue
            evidence_token = found[j].text
            if i < len(claimed) and claimed[i].text == evidence_token and j not in asks:
                reached.setdefault((i + 1, j + 1), (span[0] if span[0] >= 0 else j, j))
            if evidence_token in _PASSED:
                reached.setdefault((i, j + 1), span)
            for end in by_start.get(j, []):
                reached.setdefault((i, end), span)
    final = reached.get((len(claimed), len(found)))
    return final if final is not None and final[0] >= 0 else None


def _starts(tokens: list[_Token], sentences: list[tuple[int, int]]) -> set[int]:
    """Return where a new sentence may start: after every full stop that a space follows, abbreviation or not."""
    stops = {
        n
        for n, (token, after) in enumerate(pairwise(tokens), start=1)
        if token.text in {".", "!", "?"} and after.start > token.end
    }
    return stops | {start for start, _ in sentences}


def _questions(tokens: list[_Token], sentences: list[tuple[int, int]]) -> set[int]:
    """Return the tokens of what ends in a question mark."""
    asks: set[int] = set()
    for start, end in sentences:
        marks = [n for n in range(start, end) if tokens[n].text in {".", "!", "?"}]
        for previous, mark in pairwise([start - 1, *marks]):
            if tokens[mark].text == "?":
                asks.update(range(start if mark == marks[-1] else previous + 1, mark + 1))
    return asks


def _longest_common(claimed: list[_Token], found: list[_Token]) -> int:
    row = [0] * (len(found) + 1)
    others = [token.text for token in found]
    for token in claimed:
        diagonal = left = 0
        for j, other in enumerate(others, start=1):
            above = row[j]
            left = diagonal + 1 if token.text == other else max(above, left)
            diagonal, row[j] = above, left
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
