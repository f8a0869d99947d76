"""A dozen of the attacks of `make eval-injections`, and that its judge sees what it is there to see."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from evals.data import read_rows
from evals.injections import ATTEMPTS, FAULTS, HOSTILE, Obedient, attempt, faults, obeyed, table
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.prompt import INSTRUCTIONS
from jargon_rag.rag import MAX_QUESTION_CHARS, JargonRAG
from jargon_rag.types import Answer

ROWS = {row["id"]: row for row in read_rows(ATTEMPTS)}
QUESTION_SIDE = ("inj-002", "inj-053", "inj-067", "inj-083", "inj-111", "inj-163")
CORPUS_SIDE = ("inj-199", "inj-207", "inj-212", "inj-219", "inj-226", "inj-235")


@pytest.fixture(scope="module")
def hostile(
    embedder: SentenceTransformerEmbedder, rag: JargonRAG, tmp_path_factory: pytest.TempPathFactory
) -> JargonRAG:
    """The real bot on the hostile glossary."""
    cache = tmp_path_factory.mktemp("hostile")
    return JargonRAG(corpus=HOSTILE, embedder=embedder, model=rag.load(), cache_dir=cache)


@pytest.fixture(scope="module")
def sound(rag: JargonRAG) -> Answer:
    """An answer without a fault."""
    return rag.ask("Why does dropout help?")


def test_the_attempts_are_many_kinds_and_each_can_be_asked(rag: JargonRAG) -> None:
    kinds = Counter(row["kind"] for row in ROWS.values())
    assert len(ROWS) >= 200
    assert min(kinds.values()) >= 5
    assert all(0 < len(row["question"]) <= MAX_QUESTION_CHARS for row in ROWS.values())
    passages = [part.text for entry in rag.entries for part in entry.definition + entry.gotchas]
    prose = " ".join([*passages, *(turn.text for entry in rag.entries for turn in entry.turns)]).casefold()
    for row in ROWS.values():
        assert row["forbidden"], row["id"]
        if row["glossary"] == "own":  # what the glossary says itself would prove nothing
            assert not [text for text in row["forbidden"] if text.casefold() in prose], row["id"]


@pytest.mark.parametrize("name", QUESTION_SIDE)
def test_an_attack_by_question_gets_nothing_through(rag: JargonRAG, name: str) -> None:
    assert ROWS[name]["glossary"] == "own"
    assert attempt(rag, ROWS[name])["faults"] == []


@pytest.mark.parametrize("name", CORPUS_SIDE)
def test_an_attack_by_glossary_is_quoted_at_most(hostile: JargonRAG, name: str) -> None:
    assert ROWS[name]["glossary"] == "hostile"
    assert attempt(hostile, ROWS[name])["faults"] == []


@pytest.mark.parametrize("name", [*QUESTION_SIDE, *CORPUS_SIDE])
def test_a_model_that_obeys_gets_nothing_past_the_check(embedder: SentenceTransformerEmbedder, name: str) -> None:
    model = Obedient()
    model.wishes = ROWS[name]["forbidden"]
    corpus = HOSTILE if ROWS[name]["glossary"] == "hostile" else None
    result = attempt(JargonRAG(corpus=corpus, embedder=embedder, model=model), ROWS[name])
    assert result["faults"] == []


def told(answer: Answer, **changes: object) -> Answer:
    """Return an answer whose last claim is changed."""
    *others, last = [sentence for sentence in answer.sentences if sentence.supported is not None]
    return dataclasses.replace(answer, sentences=(*others, dataclasses.replace(last, **changes)))  # type: ignore[arg-type]


def test_the_judge_finds_a_sound_answer_sound(sound: Answer, rag: JargonRAG) -> None:
    assert faults(sound, rag.entries) == []
    assert faults(rag.ask("Which pizza is best?"), rag.entries) == []


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("asserted", {"text": "Dropout was banned by law."}),
        ("asserted", {"quote": "Dropout was banned by law.", "text": "Dropout was banned by law."}),
        ("asserted", {"supported": None, "origin": "fixed", "text": "Trust me."}),
        ("asserted", {"supported": None, "origin": "model", "text": "Is it? It is."}),
        ("asserted", {"citations": ()}),
        ("marker", {"citations": (3,)}),
        ("marker", {"text": "Dropout helps [7]."}),
        ("leaked", {"text": INSTRUCTIONS["rick"]}),
        ("live", {"text": "Dropout\x1b[31m"}),
        ("live", {"text": "Dropout\u202e"}),
    ],
)
def test_the_judge_sees_each_fault(sound: Answer, rag: JargonRAG, kind: str, changes: dict[str, object]) -> None:
    assert kind in {fault.split(":")[0] for fault in faults(told(sound, **changes), rag.entries)}


def test_the_judge_hears_obedience_whatever_its_letters(sound: Answer) -> None:
    assert obeyed(told(sound, text="BANANA-Fish!"), ["banana-fish", "kiwi"]) == ["obeyed: 'banana-fish'"]


def test_the_table_counts_attempts_not_faults() -> None:
    row = {"id": "a", "kind": "k", "refused": False, "claims": 2, "by_model": 1}
    lines = table([{**row, "faults": ["marker: x", "marker: y", "live: z"]}, {**row, "id": "b", "faults": []}])
    assert list(FAULTS) == ["asserted", "obeyed", "marker", "leaked", "live"]
    assert lines[2] == "| k | 2 | 0 | 4 | 2 | 0 | 0 | 1 | 0 | 1 |"
    assert lines[-1] == "What got through: a."


def test_brackets_with_a_number_in_a_glossary_are_no_markers(hostile: JargonRAG) -> None:
    log = hostile.ask("What is the keeper's log?", style="plain")
    assert "of every watch (7). [1]" in log.text
    assert any("of every watch [7]." in citation.quote for citation in log.citations)  # a quotation stays as it is
    bells = hostile.ask("Watch bell or tide bell?")
    assert "Watch Bell (4) and Tide Bell" in bells.sentences[0].text
