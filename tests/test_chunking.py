"""Entries cut into chunks that can be searched, with passages that can be quoted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jargon_rag.chunking import MAX_PASSAGE_CHARS, chunk_entry, chunk_glossary, split_passage, split_sentences
from jargon_rag.types import Entry, Passage, Question, Snippet, Turn


def make_entry(term: str = "Kiln", slug: str = "kiln") -> Entry:
    return Entry(
        term=term,
        slug=slug,
        area="Pottery",
        path="pottery.md",
        line=3,
        end_line=30,
        definition=(Passage("A kiln is an oven for clay.", 5, 5), Passage("It gets hotter than any kitchen.", 7, 8)),
        turns=(
            Turn("Morty", "How hot?", 10, 10),
            Turn("Rick", "A stoneware kiln reaches 1,250 °C.", 11, 11),
            Turn("Rick", "Stand back.", 12, 12),
            Turn("Morty", "Why so slow?", 13, 13),
            Turn("Rick", "Steam cracks a pot in a hurried kiln.", 14, 15),
            Turn("Morty", "Anything else?", 16, 16),
        ),
        gotchas=(Passage("A wet pot explodes.", 18, 18), Passage("Cones measure heat, not temperature.", 19, 19)),
        snippets=(Snippet("python", "# Kiln\nramp = 100", 21, 24),),
        aliases=("oven", "furnace"),
    )


def ask(passage: str, text: str = "what bakes clay", slug: str = "kiln") -> Question:
    return Question(slug=slug, text=text, passage=passage)


def without_space(text: str) -> str:
    return "".join(text.split())


def test_an_entry_gives_chunks_of_every_kind_in_reading_order() -> None:
    chunks = chunk_entry(make_entry())
    kinds = [chunk.kind for chunk in chunks]
    assert kinds == ["definition", "definition", "exchange", "exchange", "gotcha", "gotcha", "code"]
    assert [(chunk.line, chunk.end_line) for chunk in chunks] == [
        (5, 5),
        (7, 8),
        (11, 11),
        (14, 15),
        (18, 18),
        (19, 19),
        (21, 24),
    ]
    assert {chunk.slug for chunk in chunks} == {"kiln"}


def test_every_searched_text_begins_with_the_term() -> None:
    assert all(chunk.text.startswith("Kiln") for chunk in chunk_entry(make_entry()))


def test_aliases_stand_in_the_first_definition_chunk_only() -> None:
    chunks = chunk_entry(make_entry())
    assert chunks[0].text == "Kiln (oven, furnace): A kiln is an oven for clay."
    assert [chunk.kind for chunk in chunks if "furnace" in chunk.text] == ["definition"]


def test_a_passage_is_quotable_as_it_stands_in_the_entry() -> None:
    entry = make_entry()
    quotable = {passage.text for passage in (*entry.definition, *entry.gotchas)}
    quotable |= {turn.text for turn in entry.turns if turn.speaker == "Rick"} | {entry.snippets[0].text}
    assert {chunk.passage for chunk in chunk_entry(entry)} <= quotable


def test_an_exchange_is_searched_with_its_question_and_quoted_without_it() -> None:
    exchange = next(chunk for chunk in chunk_entry(make_entry()) if chunk.kind == "exchange")
    assert exchange.text == "Kiln: How hot? A stoneware kiln reaches 1,250 °C."
    assert exchange.passage == "A stoneware kiln reaches 1,250 °C."


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("definition", 5),
        ("exchange:1", 11),
        ("exchange:2", 14),
        ("gotcha:2", 19),
        ("code", 21),
        ("exchange", 11),
        ("exchange:3", 5),
        ("gotcha:0", 5),
        ("gotcha:-1", 18),
        ("code:²", 21),
        ("nonsense", 5),
        ("", 5),
    ],
)
def test_a_question_quotes_the_part_that_it_names_or_the_definition(part: str, line: int) -> None:
    chunk = chunk_entry(make_entry(), [ask(part)])[-1]
    assert (chunk.kind, chunk.text, chunk.line) == ("question", "what bakes clay", line)
    assert chunk.passage in {other.passage for other in chunk_entry(make_entry())}


def test_questions_go_to_their_own_entry_and_strays_are_left_out() -> None:
    entries = [make_entry(), make_entry("Glaze", "glaze")]
    questions = [ask("code", "second?", "glaze"), ask("definition", "first?"), ask("definition", "nobody's?", "wheel")]
    asked = [(c.slug, c.text) for c in chunk_glossary(entries, questions) if c.kind == "question"]
    assert asked == [("kiln", "first?"), ("glaze", "second?")]


def test_a_bare_heading_can_still_be_found() -> None:
    entry = Entry(term="Wedging", slug="wedging", area="Pottery", path="p.md", line=9, end_line=10)
    chunks = chunk_entry(entry, [ask("exchange:1", slug="wedging")])
    assert [(c.kind, c.text, c.passage, c.line) for c in chunks] == [
        ("definition", "Wedging", "Wedging", 9),
        ("question", "what bakes clay", "Wedging", 9),
    ]


def test_an_entry_with_code_only_is_not_given_an_invented_definition() -> None:
    entry = Entry(term="K", slug="k", area="P", path="p.md", line=1, end_line=5, snippets=(Snippet("", "a = 1", 2, 4),))
    assert [c.kind for c in chunk_entry(entry, [ask("definition", slug="k")])] == ["code", "question"]


def test_a_passage_that_fits_stays_whole() -> None:
    passage = Passage("x" * MAX_PASSAGE_CHARS, 4, 9)
    assert split_passage(passage) == [passage]


def test_a_long_passage_is_cut_between_sentences() -> None:
    sentence = "Clay shrinks while it dries and again while it is fired."
    parts = split_passage(Passage(" ".join([sentence] * 100), 4, 9))
    assert len(parts) > 1
    assert all(part.text.endswith("fired.") and len(part.text) <= MAX_PASSAGE_CHARS for part in parts)
    assert {(part.line, part.end_line) for part in parts} == {(4, 9)}
    assert " ".join(part.text for part in parts) == " ".join([sentence] * 100)


def test_a_paragraph_of_200_000_characters_without_a_space_is_cut_to_size() -> None:
    parts = split_passage(Passage("x" * 200_000, 1, 1))
    assert max(len(part.text) for part in parts) <= MAX_PASSAGE_CHARS
    assert "".join(part.text for part in parts) == "x" * 200_000


def test_200_000_characters_of_initials_do_not_hang() -> None:
    text = "A. " * 66_000 + "End."
    assert without_space("".join(split_sentences(text))) == without_space(text)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Use a wheel, e.g. a kick wheel. Then glaze.", ["Use a wheel, e.g. a kick wheel.", "Then glaze."]),
        ("See Fig. 3 and Smith et al. 2020 here. Done.", ["See Fig. 3 and Smith et al. 2020 here.", "Done."]),
        ("Clay vs. Mud is old. Next.", ["Clay vs. Mud is old.", "Next."]),
        ("Ask J. Smith. He knows.", ["Ask J. Smith.", "He knows."]),
        ("It costs 3.5 coins. Cheap.", ["It costs 3.5 coins.", "Cheap."]),
        ('He said "stop." Then left.', ['He said "stop."', "Then left."]),
        ("Ends (here.) “Next” one.", ["Ends (here.)", "“Next” one."]),
        ("Is it wet? 20 percent is.", ["Is it wet?", "20 percent is."]),
        ("no capital. so no end.", ["no capital. so no end."]),
        ("  Spaces.   Around.  ", ["Spaces.", "Around."]),
        ("", []),
        ("   ", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


SENTENCE_LIKE = st.lists(
    st.sampled_from(["A", "Fig.", "e.g.", "word", "End.", "what?", '"Yes!"', "(So.)", "3.", "x", "—", "’", "\n", "Ü."])
    | st.text(max_size=6),
    max_size=40,
).map(" ".join)


@given(SENTENCE_LIKE)
@settings(deadline=None, database=None, derandomize=True, max_examples=300)
def test_splitting_sentences_loses_no_character_but_spaces(text: str) -> None:
    sentences = split_sentences(text)
    assert without_space("".join(sentences)) == without_space(text)
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


@given(SENTENCE_LIKE, st.integers(1, 60))
@settings(deadline=None, database=None, derandomize=True)
def test_splitting_a_passage_loses_no_character_but_spaces(text: str, times: int) -> None:
    parts = split_passage(Passage(text * times, 1, 2))
    assert without_space("".join(part.text for part in parts)) == without_space(text * times)
    assert all(len(part.text) <= MAX_PASSAGE_CHARS for part in parts)
