"""Markdown read into entries: every habit and every accident of a glossary kept by hand."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jargon_rag.chunking import chunk_glossary
from jargon_rag.errors import GlossaryError
from jargon_rag.glossary import (
    MAX_FILE_BYTES,
    corpus_hash,
    glossary_files,
    read_documents,
    read_glossary,
    read_questions,
)
from jargon_rag.lint import lint_glossary
from jargon_rag.markdown import plain_text
from jargon_rag.types import Entry, Passage, Snippet, Turn

TRAPS = Path(__file__).parent / "data" / "traps.md"


@dataclass(frozen=True)
class Expected:
    """What a glossary must give."""

    file: Path
    entries: int
    turns: int
    code_blocks: int


GLOSSARIES = [pytest.param(Expected(TRAPS, 9, 20, 5), id="own")]
if os.environ.get("JARGON_RAG_GLOSSARY"):
    GLOSSARIES.append(pytest.param(Expected(Path(os.environ["JARGON_RAG_GLOSSARY"]), 79, 540, 33), id="users"))


def read(folder: Path, text: str | bytes, name: str = "terms.md") -> list[Entry]:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_glossary(file)


def read_one(folder: Path, text: str) -> Entry:
    entries = read(folder, text)
    assert len(entries) == 1
    return entries[0]


def spoken(entry: Entry) -> list[tuple[str, str]]:
    return [(turn.speaker, turn.text) for turn in entry.turns]


def visible(entry: Entry) -> list[Passage | Turn]:
    return [*entry.definition, *entry.turns, *entry.gotchas]


def by_slug(file: Path) -> dict[str, Entry]:
    return {entry.slug: entry for entry in read_glossary(file)}


# the traps of a real glossary, in a fixture of our own and in the user's file


@pytest.mark.parametrize("expected", GLOSSARIES)
def test_every_entry_and_every_turn_of_a_real_glossary_is_found(expected: Expected) -> None:
    entries = read_glossary(expected.file)
    assert len(entries) == expected.entries
    assert sum(len(entry.turns) for entry in entries) == expected.turns
    assert {turn.speaker for entry in entries for turn in entry.turns} == {"Morty", "Rick"}
    assert all(entry.definition for entry in entries)


@pytest.mark.parametrize("expected", GLOSSARIES)
def test_morty_and_rick_take_turns_in_a_real_glossary(expected: Expected) -> None:
    for entry in read_glossary(expected.file):
        assert [turn.speaker for turn in entry.turns] == ["Morty", "Rick"] * (len(entry.turns) // 2), entry.term
        assert len(list(entry.exchanges())) * 2 == len(entry.turns)


@pytest.mark.parametrize("expected", GLOSSARIES)
def test_no_turn_of_a_real_glossary_keeps_markup_or_quotation_marks(expected: Expected) -> None:
    for entry in read_glossary(expected.file):
        for turn in entry.turns:
            assert "<br>" not in turn.text
            assert not turn.text.startswith(('"', "Morty:", "Rick:"))


@pytest.mark.parametrize("expected", GLOSSARIES)
def test_every_code_block_of_a_real_glossary_reaches_a_term(expected: Expected) -> None:
    (document,) = read_documents(expected.file)
    section = next(section for section in document.sections if not section.is_term)
    assert section.term == "Code Examples"
    assert len(section.snippets) == expected.code_blocks
    assert document.orphans == []
    assert document.open_fences == []
    attached = {(snippet.line, snippet.text) for term in document.terms for snippet in term.snippets}
    assert attached == {(snippet.line, snippet.text) for snippet in section.snippets}
    assert {snippet.language for snippet in section.snippets} == {"python"}
    assert not any("<br>" in snippet.text or "```" in snippet.text for snippet in section.snippets)


@pytest.mark.parametrize("expected", GLOSSARIES)
def test_source_lines_of_a_real_glossary_hold_what_is_cited(expected: Expected) -> None:
    lines = expected.file.read_text("utf-8").split("\n")
    for entry in read_glossary(expected.file):
        assert lines[entry.line - 1].removeprefix("## ") == entry.term
        for piece in visible(entry):
            cited = " ".join(plain_text(line) for line in lines[piece.line - 1 : piece.end_line])
            assert piece.text in cited, (entry.term, piece)
            assert entry.line < piece.line <= piece.end_line <= entry.end_line
        for snippet in entry.snippets:
            inside = [line.removesuffix("<br>") for line in lines[snippet.line : snippet.end_line - 1]]
            assert "\n".join(inside) == snippet.text


@pytest.mark.parametrize("expected", GLOSSARIES)
def test_entries_of_a_real_glossary_follow_each_other_without_a_gap(expected: Expected) -> None:
    entries = read_glossary(expected.file)
    assert [entry.end_line + 1 for entry in entries[:-1]] == [entry.line for entry in entries[1:]]
    assert len({entry.slug for entry in entries}) == len(entries)


@pytest.mark.parametrize("expected", GLOSSARIES)
def test_chunks_of_a_real_glossary_cite_lines_of_their_entry(expected: Expected) -> None:
    entries = {entry.slug: entry for entry in read_glossary(expected.file)}
    chunks = chunk_glossary(entries.values(), [])
    assert {chunk.slug for chunk in chunks} == set(entries)
    for chunk in chunks:
        if chunk.kind != "code":  # code may stand in a section of its own
            assert entries[chunk.slug].line <= chunk.line <= chunk.end_line <= entries[chunk.slug].end_line


def test_curly_and_straight_apostrophes_in_a_summary_are_both_left_out() -> None:
    for entry in read_glossary(TRAPS):
        texts = [piece.text for piece in visible(entry)]
        assert not any("this?" in text or "Rick & Morty" in text for text in texts)


def test_blank_lines_between_turns_make_no_difference() -> None:
    entries = by_slug(TRAPS)
    assert spoken(entries["average"])[0] == ("Morty", "So one number stands for the whole crowd?")
    assert spoken(entries["minmax-range"])[-1] == ("Rick", "One typo in the data and the range doubles.")
    assert len(entries["average"].turns) == len(entries["minmax-range"].turns) == 4


def test_an_entry_without_a_dialogue_keeps_its_definition() -> None:
    entry = by_slug(TRAPS)["moving-window"]
    assert entry.turns == ()
    assert [passage.text for passage in entry.definition] == [
        "The last k values, looked at together, one step at a time."
    ]


def test_titles_with_slashes_commas_dots_and_odd_hyphens_keep_their_spelling_and_githubs_anchor() -> None:
    assert {entry.slug: entry.term for entry in read_glossary(TRAPS)} == {
        "average": "Average",
        "minmax-range": "Min/Max Range",
        "ab-trial--pilot": "A/B Trial / Pilot",
        "rate-ratio-share": "Rate, Ratio, Share",
        "left-vs-right-skew": "Left vs. Right Skew",
        "moving-window": "Moving Window",
        "zscore": "Z\u2011Score",
        "forgotten-baseline": "Forgotten Baseline",
        "unlisted-outlier": "Unlisted Outlier",
    }


def test_characters_outside_ascii_survive() -> None:
    entries = by_slug(TRAPS)
    assert (
        entries["average"]
        .definition[0]
        .text.endswith("Σx → one number, and mean ≠ typical — ask any millionaire on a bus.")
    )
    assert entries["average"].turns[3].text == "The median, with ε tears for the average × the number of bosses."
    assert "z\u2011score" in entries["zscore"].definition[0].text
    assert "range—the rest" in entries["minmax-range"].turns[1].text


def test_code_goes_to_the_terms_that_its_first_comment_names() -> None:
    owners: dict[str, list[str]] = {}
    for entry in read_glossary(TRAPS):
        for snippet in entry.snippets:
            owners.setdefault(snippet.text.split("\n")[0], []).append(entry.slug)
    assert owners == {
        "# Average": ["average"],
        "# Moving Window / Z-Score / Outliers": ["moving-window", "zscore"],
        "# Counting Helpers": ["rate-ratio-share"],
        "# Skew (left)": ["left-vs-right-skew"],
        "# A/B Trial Readout": ["ab-trial--pilot"],
    }


def test_a_blank_line_inside_code_stays() -> None:
    assert "ratio = clicks / views\n\nshare = clicks" in by_slug(TRAPS)["rate-ratio-share"].snippets[0].text


def test_a_fence_closed_with_br_does_not_swallow_the_rest(tmp_path: Path) -> None:
    first, second = read(tmp_path, "## Loop\n\nAgain.\n\n```python<br>\nx = 1<br />\n```<br>\n\n## Exit\n\nEnough.\n")
    assert [(s.language, s.text, s.line, s.end_line) for s in first.snippets] == [("python", "x = 1", 5, 7)]
    assert (second.term, second.line) == ("Exit", 9)


def test_code_named_by_an_alias_in_brackets_or_by_the_beginning_of_a_term_is_attached(tmp_path: Path) -> None:
    text = (
        "## Kiln Oven\n\nHot.\n\n## Tide Table (TT)\n\nWet.\n\n## Snippets\n\nNot a section of code.\n\n"
        "## Code Examples\n\n```\n// Clay (TT)\na\n```\n\n```\n# Kiln\nb\n```\n\n```\nno comment\n```\n\n```\n# Nobody\nc\n```\n"
    )
    entries = read(tmp_path, text)
    assert {e.term: [s.text.split("\n")[1] for s in e.snippets] for e in entries} == {
        "Kiln Oven": ["b"],
        "Tide Table (TT)": ["a"],
        "Snippets": [],
    }
    assert [orphan.text for orphan in read_documents(tmp_path / "terms.md")[0].orphans] == ["no comment", "# Nobody\nc"]


def test_sections_that_are_no_terms_are_no_entries(tmp_path: Path) -> None:
    text = "# G\n\n## Table of Contents\n\n- [Kiln](#kiln)\n\n## Kiln\n\nHot.\n\n## License\n\nMIT\n\n## See Also\n\nthat\n"
    assert read_one(tmp_path, text).term == "Kiln"


# dialogue


@pytest.mark.parametrize(
    ("line", "speaker", "text"),
    [
        ('Morty: "Why?"', "Morty", "Why?"),
        ("Morty: “Why?”", "Morty", "Why?"),
        ("Rick: «So.»", "Rick", "So."),
        ("**Rick:** So.", "Rick", "So."),
        ("**Rick**: So.", "Rick", "So."),
        ("__Morty__ : Why?", "Morty", "Why?"),
        ("MORTY: why", "Morty", "why"),
        ('rick: "a" and "b"', "Rick", '"a" and "b"'),
        ('Rick: "unclosed', "Rick", '"unclosed'),
        ("- Rick: listed", "Rick", "listed"),
        ("> Rick: quoted", "Rick", "quoted"),
        ("Rick: *so* `x_1` [linked](u) &amp; <b>bold</b><br>", "Rick", "so x_1 linked & bold"),
        ("Rick: cafe\u0301", "Rick", "café"),
    ],
)
def test_a_turn_is_read_in_any_usual_spelling(tmp_path: Path, line: str, speaker: str, text: str) -> None:
    assert spoken(read_one(tmp_path, f"## T\n\n{line}\n")) == [(speaker, text)]


@pytest.mark.parametrize("line", ["Rick is here: look", "Patrick: hello", "Ric\u212a: hello", "Summer: hi", "Rick"])
def test_what_only_looks_like_a_turn_is_prose(tmp_path: Path, line: str) -> None:
    entry = read_one(tmp_path, f"## T\n\n{line}\n")
    assert entry.turns == ()
    assert [passage.text for passage in entry.definition] == [plain_text(line)]


def test_a_line_without_a_speaker_continues_its_turn(tmp_path: Path) -> None:
    entry = read_one(tmp_path, "## T\n\nMorty: one\nand two\nRick: three<br>\nand four\n")
    assert [(t.speaker, t.text, t.line, t.end_line) for t in entry.turns] == [
        ("Morty", "one and two", 3, 4),
        ("Rick", "three and four", 5, 6),
    ]


def test_an_exchange_is_morty_followed_by_rick(tmp_path: Path) -> None:
    entry = read_one(tmp_path, "## T\n\nRick: 0\nMorty: 1\nMorty: 2\nRick: 3\nRick: 4\nMorty: 5\n")
    assert [(question.text, answer.text) for question, answer in entry.exchanges()] == [("2", "3")]


def test_a_dialogue_without_details_is_read(tmp_path: Path) -> None:
    entry = read_one(tmp_path, "## T\n\nA thing.\n\nMorty: Why?\n\nRick: Because.\n")
    assert spoken(entry) == [("Morty", "Why?"), ("Rick", "Because.")]
    assert [passage.text for passage in entry.definition] == ["A thing."]


@pytest.mark.parametrize(
    "details",
    [
        '<details><summary>S</summary>\nMorty: "Q"\nRick: "A"\n</details>',
        '<details open>\n<summary>S</summary>\n\nMorty: "Q"\n\n<details>\n<summary>S</summary>\n\nRick: "A"\n\n</details>\n\n</details>',
        '<details>\n<summary>S</summary>\n\nMorty: "Q"<br/>\nRick: "A"<br />\n',
        '<DETAILS>\n<SUMMARY>S\nS</SUMMARY>\nMorty: "Q"<BR>\nRick: "A"\n</DETAILS>',
        '<div>\n<p>\nMorty: "Q"\nRick: "A"\n</p>\n</div>',
        '<details>\n<!-- Rick: "hidden" -->\nMorty: "Q"\nRick: "A"\n</details>',
    ],
    ids=["tight", "nested", "unclosed", "capitals", "other tags", "comment"],
)
def test_html_around_a_dialogue_neither_adds_nor_loses_turns(tmp_path: Path, details: str) -> None:
    first, second = read(tmp_path, f"## T\n\nDefinition.\n\n{details}\n\n## Next\n\nMore.\n")
    assert spoken(first) == [("Morty", "Q"), ("Rick", "A")]
    assert [passage.text for passage in first.definition] == ["Definition."]
    assert second.term == "Next"


def test_html_comments_are_invisible_everywhere(tmp_path: Path) -> None:
    text = "<!-- ## Hidden -->\n\n## T\n\nSeen <!-- unseen --> text.\n\n<!-- source: A et al. 2020\n\n## Also hidden -->\n\nMore.\n"
    entry = read_one(tmp_path, text)
    assert [passage.text for passage in entry.definition] == ["Seen text.", "More."]


def test_an_unclosed_comment_hides_its_rest_and_does_not_crash(tmp_path: Path) -> None:
    entry = read_one(tmp_path, "## T\n\nSeen.\n\n<!-- open\n\n## Lost\n")
    assert [passage.text for passage in entry.definition] == ["Seen."]


def test_an_unclosed_fence_keeps_what_stood_before_it(tmp_path: Path) -> None:
    text = "## T\n\nSeen.\n\n```python\nx = 1\n\n## Swallowed\n"
    entry = read_one(tmp_path, text)
    assert [passage.text for passage in entry.definition] == ["Seen."]
    assert entry.snippets[0].text == "x = 1\n\n## Swallowed"
    assert read_documents(tmp_path / "terms.md")[0].open_fences == [5]


def test_closed_fences_of_any_kind_are_not_reported_open(tmp_path: Path) -> None:
    text = "## T\n\nd\n\n~~~~ Python numbered\na\n~~~~\n\n```\n```\n\n- ```\n  b\n  ```\n\nd\n\n    indented\n"
    entry = read_one(tmp_path, text)
    assert [(s.language, s.text) for s in entry.snippets] == [("python", "a"), ("", "b"), ("", "indented")]
    assert read_documents(tmp_path / "terms.md")[0].open_fences == []


# headings and labels


def test_setext_headings_are_headings(tmp_path: Path) -> None:
    entry = read_one(tmp_path, "Pottery\n=======\n\nKiln\n----\n\nHot.\n")
    assert (entry.area, entry.term, entry.line) == ("Pottery", "Kiln", 4)


def test_markup_in_a_heading_is_no_part_of_the_term(tmp_path: Path) -> None:
    assert read_one(tmp_path, "## **Kiln** `oven` [x](y) <br>\n\nHot.\n").term == "Kiln oven x"


def test_a_glossary_of_first_or_third_level_headings_is_read_too(tmp_path: Path) -> None:
    assert [entry.term for entry in read(tmp_path, "# Kiln\n\nHot.\n\n# Clay\n\nWet.\n")] == ["Kiln", "Clay"]
    entries = read(tmp_path, "# Pottery\n\n### Kiln\n\nHot.\n\n### Clay\n\nWet.\n")
    assert [(entry.term, entry.area) for entry in entries] == [("Kiln", "Pottery"), ("Clay", "Pottery")]


def test_an_area_is_the_title_or_else_the_files_name(tmp_path: Path) -> None:
    assert read_one(tmp_path, "## Kiln\n\nHot.\n").area == "terms"
    assert read_one(tmp_path, "# Clay & fire\n\n## Kiln\n\nHot.\n").area == "Clay & fire"


LABELLED = {
    "lines": (
        "**Also known as:** oven; furnace, oven.\n\nHot.\n\n**Gotchas:**\n- Wet pots explode.\n- Cones lie.\n\n"
        "**See also:** [Clay](#clay), [Glaze](other.md#glaze)\n"
    ),
    "bold without colon": (
        "Hot.\n\n**Aliases**\n\n- oven\n- furnace\n\n**Pitfalls**\n\n1. Wet pots explode.\n2. Cones lie.\n\n"
        "**Related**\n\n* [Clay](#clay)\n* [Glaze](other.md#glaze)\n"
    ),
    "headings": (
        "Hot.\n\n### Also known as\n\noven, furnace\n\n### Gotchas:\n\nWet pots explode.\n\nCones lie.\n\n"
        "### See also\n\nClay, Glaze\n"
    ),
    "underscores": (
        "Hot.\n\n__AKA__: oven, furnace\n\n__Gotcha:__ Wet pots explode.\n\n__Gotcha:__ Cones lie.\n\n__Related:__ Clay, Glaze\n"
    ),
}


@pytest.mark.parametrize("labelled", LABELLED.values(), ids=LABELLED)
def test_labels_are_understood_as_lines_lists_and_headings(tmp_path: Path, labelled: str) -> None:
    entry = read_one(tmp_path, f"## Kiln\n\n{labelled}")
    assert entry.aliases == ("oven", "furnace")
    assert [passage.text for passage in entry.gotchas] == ["Wet pots explode.", "Cones lie."]
    assert entry.see_also == ("clay", "glaze")
    assert [passage.text for passage in entry.definition] == ["Hot."]


def test_prose_after_a_line_of_aliases_is_definition_again(tmp_path: Path) -> None:
    entry = read_one(tmp_path, "## Kiln\n\n**Also known as:** oven\n\nHot.\n\nVery.\n")
    assert [passage.text for passage in entry.definition] == ["Hot.", "Very."]


def test_a_dialogue_after_a_label_is_a_dialogue(tmp_path: Path) -> None:
    text = "## Kiln\n\nHot.\n\n**Gotchas**\n\n- Wet.\n\n<details>\n\nMorty: Q\nRick: A\n\n</details>\n\n**Code**\n\n```\nx\n```\n"
    entry = read_one(tmp_path, text)
    assert (spoken(entry), len(entry.gotchas), len(entry.snippets)) == ([("Morty", "Q"), ("Rick", "A")], 1, 1)


@pytest.mark.parametrize(
    "opening", ["**Code review** is", "**Related work** says", "__Examples__ show", "**Gotchaſ**", "*Code*"]
)
def test_bold_words_that_only_begin_like_a_label_stay_in_the_definition(tmp_path: Path, opening: str) -> None:
    entry = read_one(tmp_path, f"## T\n\n{opening} that pots break.\n")
    assert [passage.text for passage in entry.definition] == [plain_text(f"{opening} that pots break.")]


def test_see_also_targets_are_anchors_even_when_a_link_is_percent_encoded(tmp_path: Path) -> None:
    entry = read_one(tmp_path, "## T\n\nd\n\n**See also:** [Größe](#größe), [Übermaß](#%C3%BCberma%C3%9F), [T](#t)\n")
    assert entry.see_also == ("größe", "übermaß", "t")


# files and folders


def test_a_folder_is_read_file_by_file_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "pots"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.md").write_text("## Beta\n\nb\n")
    (folder / "a.md").write_text("## Alpha\n\na\n")
    (folder / "sub" / "c.md").write_text("## Gamma\n\nc\n")
    (folder / "notes.txt").write_text("## No\n\nno\n")
    found = [(entry.term, entry.path) for entry in read_glossary(folder)]
    assert found == [("Alpha", "pots/a.md"), ("Beta", "pots/b.md"), ("Gamma", "pots/sub/c.md")]


def test_a_single_file_is_cited_by_its_name_whatever_its_suffix(tmp_path: Path) -> None:
    assert read(tmp_path, "## T\n\nd\n", "terms.txt")[0].path == "terms.txt"


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.md").write_text("## Hidden\n\nx\n")
    (tmp_path / ".draft.md").write_text("## Draft\n\nx\n")
    (tmp_path / "a.md").write_text("## Seen\n\nx\n")
    assert glossary_files(tmp_path) == [tmp_path / "a.md"]


def test_a_glossary_inside_a_hidden_folder_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / ".mine"
    folder.mkdir()
    assert read(folder, "## T\n\nd\n")[0].term == read_glossary(folder)[0].term == "T"


def test_code_sections_of_one_file_reach_terms_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("## Kiln\n\nHot.\n")
    (tmp_path / "b.md").write_text("## Code Examples\n\n```\n# Kiln\nx\n```\n")
    assert read_glossary(tmp_path)[0].snippets[0].text == "# Kiln\nx"


def test_slugs_are_unique_within_and_across_files(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("## A\n\nx\n\n## A\n\nx\n\n## A 1\n\nx\n\n## !\n\nx\n")
    (tmp_path / "b.md").write_text("## a\n\nx\n\n## ?\n\nx\n")
    assert [entry.slug for entry in read_glossary(tmp_path)] == ["a", "a-1", "a-1-1", "term", "a-2", "term-1"]


# bad input


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "No entries"),
        (b"just prose\n", "No entries"),
        (b"# Title only\n\n## License\n\nMIT\n", "No entries|needs headings"),
        (b"## T\n\n\x00\x01binary", "binary"),
        (b"## T\n\nna\xefve", r"not UTF-8 \(byte 8\)"),
        ("## T\n\nd\n".encode("utf-16"), "binary|not UTF-8"),
    ],
    ids=["empty", "prose", "no term", "binary", "latin-1", "utf-16"],
)
def test_a_file_that_is_no_glossary_is_refused_with_its_name(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(GlossaryError, match=told) as raised:
        read(tmp_path, content)
    assert "terms.md" in str(raised.value)


def test_a_missing_path_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(GlossaryError, match=r"No such file or folder: .*gone\.md"):
        read_glossary(tmp_path / "gone.md")


def test_a_folder_without_markdown_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(GlossaryError, match=r"No \.md files in .*terms\.md"):
        read_glossary(tmp_path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.md"
    with file.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(GlossaryError, match=r"huge\.md has 20,000,001 bytes, more than 20,000,000"):
        read_glossary(file)


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_windows_and_old_mac_files_read_like_any_other(tmp_path: Path, newline: str) -> None:
    text = TRAPS.read_text("utf-8")
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    plain = read(tmp_path / "one", text)
    assert read(tmp_path / "other", b"\xef\xbb\xbf" + text.replace("\n", newline).encode()) == plain


def test_control_and_bidi_characters_are_taken_out(tmp_path: Path) -> None:
    text = '## Ki\u202eln\x07\n\nA \x1b[31mhot\x1b[0m \u2066oven\u2069.\x9b\n\nRick: "o\x08k\x7f"\n\n```\nrm\u202e x\ty\n```\n'
    entry = read_one(tmp_path, text)
    assert entry.term == "Kiln"
    assert [passage.text for passage in entry.definition] == ["A [31mhot[0m oven."]
    assert spoken(entry) == [("Rick", '"ok"'.strip('"'))]
    assert entry.snippets[0].text == "rm x\ty"


def test_a_paragraph_of_200_000_characters_is_read_whole(tmp_path: Path) -> None:
    paragraph = "word " * 40_000
    entry = read_one(tmp_path, f"## T\n\n{paragraph}\n")
    assert entry.definition[0].text == paragraph.strip()


HOSTILE = {
    "quotes in quotes": "> " * 5_000 + "x",
    "lists in lists": "".join(f"{'  ' * depth}- a\n" for depth in range(300)),
    "details in details": "<details>\n" * 5_000,
    "details with blank lines": "<details>\n\n" * 1_000,
    "open summaries": "<div>\n" + "<summary>" * 20_000,
    "open scripts and styles": "<div>\n" + "<script><style>" * 10_000,
    "open comments": "<!-- " * 20_000,
    "tags in tags": "\n".join("<" * (depth + 1) + "a>" * depth + "div>" for depth in range(400)),
    "half tags": "<div>" + "<a " * 10_000,
    "spaces": f"a{' ' * 150_000}b",
    "breaks": "<br>" * 10_000,
    "spaces after a speaker": f"Morty{' ' * 100_000}x",
    "brackets": "[" * 5_000,
    "stars": "*a " * 5_000,
    "backticks": " ".join("`" * length for length in range(1, 500)),
    "brackets in a comment": f"```\n# {'(' * 50_000}\n```\n\n## Code Examples\n\n```\n# {'(' * 50_000}\n```",
    "initials": "A. " * 60_000,
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_deep_nesting_and_long_runs_neither_hang_nor_crash(tmp_path: Path, hostile: str) -> None:
    entries = read(tmp_path, f"## T\n\n{hostile}\n\n## After\n\nStill here.\n")
    assert entries[0].term == "T"
    assert chunk_glossary(entries, [])
    assert lint_glossary(tmp_path / "terms.md")[0] == len(entries)


def test_a_text_is_not_lost_after_deep_nesting(tmp_path: Path) -> None:
    entries = read(tmp_path, "## T\n\n" + "<details>\n\n" * 1_000 + "## After\n\nStill here.\n")
    assert [(entry.term, entry.definition[0].text) for entry in entries[1:]] == [("After", "Still here.")]


# questions


def question(term: str = "Kiln", text: str = "what is hot", split: str = "index", passage: str = "definition") -> str:
    return json.dumps({"term": term, "question": text, "kind": "term", "passage": passage, "split": split})


def glossary_with_questions(folder: Path, *lines: str) -> Path:
    (folder / "questions").mkdir()
    (folder / "a.md").write_text("## Kiln\n\nHot.\n")
    (folder / "questions" / "a.jsonl").write_text("\n".join(lines))
    return folder


def test_questions_marked_index_are_read_and_those_of_other_splits_never(tmp_path: Path) -> None:
    rows = [question(text=split, split=split) for split in ("train", "index", "dev", "test", "Index", "")]
    folder = glossary_with_questions(tmp_path, *rows)
    found = read_questions(folder, read_glossary(folder))
    assert [(q.slug, q.text, q.passage) for q in found] == [("kiln", "index", "definition")]


def test_blank_lines_between_questions_are_skipped(tmp_path: Path) -> None:
    folder = glossary_with_questions(tmp_path, "", question(text="a"), "  ", question(text="b"), "")
    assert [q.text for q in read_questions(folder, read_glossary(folder))] == ["a", "b"]


def test_a_glossary_without_questions_has_none(tmp_path: Path) -> None:
    entries = read(tmp_path, "## Kiln\n\nHot.\n")
    assert read_questions(tmp_path, entries) == read_questions(tmp_path / "terms.md", entries) == []


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        '{"term": "Kiln"}',
        "[]",
        "null",
        "7",
        '"text"',
        '{"term": "Kiln", "question": "q", "passage": "definition"}',
        "[" * 100_000,
    ],
    ids=["text", "no question", "list", "null", "number", "string", "no split", "nested"],
)
def test_a_bad_question_is_named_with_its_file_and_line(tmp_path: Path, bad: str) -> None:
    folder = glossary_with_questions(tmp_path, question(), "", bad)
    with pytest.raises(GlossaryError, match=r"a\.jsonl:3 is not a question"):
        read_questions(folder, read_glossary(folder))
    with pytest.raises(GlossaryError, match=r"a\.jsonl:3 is not a question"):
        corpus_hash(folder)


def test_a_question_about_an_unknown_term_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    folder = glossary_with_questions(tmp_path, question(), question(term="Wheel"))
    with pytest.raises(GlossaryError, match=r"a\.jsonl:2 asks about 'Wheel', which is no heading"):
        read_questions(folder, read_glossary(folder))


def test_a_questions_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    folder = glossary_with_questions(tmp_path)
    (folder / "questions" / "a.jsonl").write_bytes(b'{"term": "na\xefve"}')
    with pytest.raises(GlossaryError, match=r"a\.jsonl is not UTF-8"):
        read_questions(folder, read_glossary(folder))


def test_the_corpus_hash_changes_with_what_is_indexed_and_with_nothing_else(tmp_path: Path) -> None:
    folder = glossary_with_questions(tmp_path, question(text="a"), question(text="b", split="test"))
    questions = folder / "questions" / "a.jsonl"
    first = corpus_hash(folder)
    assert first == corpus_hash(folder)
    questions.write_text(f"{question(text='a')}\n{question(text='c', split='dev')}\n\n")
    (folder / "notes.txt").write_text("unrelated")
    assert corpus_hash(folder) == first
    questions.write_text(question(text="c"))
    second = corpus_hash(folder)
    (folder / "a.md").write_text("## Kiln\n\nHotter.\n")
    third = corpus_hash(folder)
    (folder / "a.md").rename(folder / "b.md")
    assert len({first, second, third, corpus_hash(folder)}) == 4


# plain text


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("a **b** _c_ `d_e`", "a b c d_e"),
        ("[link](https://x.example) and ![picture](p.png)", "link and"),
        ("one<br>two<BR/>three", "one two three"),
        ("x &lt; y &amp; \\*z\\*", "x < y & *z*"),
        ("a  \nb\nc", "a b c"),
        ("<https://x.example>", "https://x.example"),
        ("x < y", "x < y"),
        ("e\u0301", "é"),
        ("a\u202eb\x1bc", "abc"),
        ("", ""),
    ],
)
def test_plain_text_is_what_a_reader_sees(markdown: str, shown: str) -> None:
    assert plain_text(markdown) == shown


# properties

PIECES = [
    "## ", "# ", "### ", "Term", "\n", "\n\n", "Morty: ", 'Rick: "', '"', "<details>", "</details>", "<summary>",
    "</summary>", "```", "```python", "~~~", "<br>", "<!--", "-->", "- ", "1. ", "> ", "    ", "**Gotchas**",
    "**See also:** ", "**Also known as:** ", "[a](#a)", "[b](x.md#b)", "](", "===", "---", "# Term / Other", "*", "_",
    "`", "<", ">", "&", "\\", "|", "\t", "\r", "\u2028", "\x0c", "\x85", "\ufeff", "\u202e", "<br\n>", "<script>",
    "[a]: /u\n", "Code Examples", "Contents", ",", ";", " ", "/",
]  # fmt: skip
ANYTHING = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=60).map("".join)


def test_an_empty_code_block_is_no_snippet(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("## A\n\nA is a letter.\n\n```python\n\n```\n\n```python\na = 1\n```\n")
    (entry,) = read_glossary(tmp_path / "a.md")
    assert [snippet.text for snippet in entry.snippets] == ["a = 1"]


@given(ANYTHING)
@settings(deadline=None, database=None, derandomize=True, max_examples=400)
def test_no_text_crashes_the_reader_and_every_line_is_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "anything.md"
    file.write_bytes(text.replace("\0", "").encode())
    last = len(file.read_text("utf-8-sig").split("\n"))
    count, findings = lint_glossary(file)
    assert all(1 <= finding.line <= last for finding in findings)
    if count == 0:
        return
    entries = read_glossary(file)
    assert len({entry.slug for entry in entries}) == len(entries) == count
    for entry in entries:
        assert 1 <= entry.line <= entry.end_line <= last
        pieces: list[Passage | Turn | Snippet] = [*visible(entry), *entry.snippets]
        assert all(1 <= piece.line <= piece.end_line <= last for piece in pieces)
        assert all(piece.text == " ".join(piece.text.split()) != "" for piece in visible(entry))
    for chunk in chunk_glossary(entries, []):
        assert 1 <= chunk.line <= chunk.end_line <= last


@dataclass(frozen=True)
class Written:
    """An entry as it was meant, before it is rendered as Markdown."""

    term: str
    definition: str
    dialogue: list[tuple[str, str]]
    gotchas: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    code: str = ""


WORD = st.text(
    st.characters(categories=["Ll", "Lu", "Nd"], max_codepoint=0x17F), min_size=1, max_size=8
) | st.sampled_from(
    [
        "Σx",
        "→",
        "≠",
        "z\u2011score",
        "it's",
        "it’s",
        "vs.",
        "e.g.",
        "A/B",
        "—",
        "100%",
        "Rick",
        "Morty",
        "naïve",
    ]
)
SENTENCE = st.lists(WORD, min_size=1, max_size=8).map(lambda words: f"Aa {' '.join(words)}.")
TERM = st.lists(WORD, min_size=1, max_size=3).map(lambda words: f"T {' '.join(words)}")
CODE = st.lists(
    st.sampled_from(["x = 1", "# Morty: no", "## no heading", "", "print('<br/>', x)", "'''"]), max_size=4
).map(lambda lines: "\n".join(["# code", *lines, "end()"]))
WRITTEN = st.builds(
    Written,
    term=TERM,
    definition=SENTENCE,
    dialogue=st.lists(st.tuples(st.sampled_from(["Morty", "Rick"]), SENTENCE), max_size=8),
    gotchas=st.lists(SENTENCE, max_size=3),
    aliases=st.lists(st.text("abcdefgh", min_size=1, max_size=6), max_size=3, unique=True),
    code=st.just("") | CODE,
)


@dataclass(frozen=True)
class Habits:
    """How an author writes."""

    blank: bool
    details: bool
    ending: str
    quotes: str
    newline: str

    def render(self, entry: Written) -> str:
        opening, closing = self.quotes[:1], self.quotes[1:]
        between = "\n\n" if self.blank else "\n"
        turns = between.join(f"{who}: {opening}{text}{closing}{self.ending}" for who, text in entry.dialogue)
        if self.details and turns:
            gap = "\n" if self.blank else ""
            turns = f"<details>\n<summary>Rick & Morty: What's this?</summary>\n{gap}{turns}\n{gap}</details>"
        blocks = [
            f"## {entry.term}",
            f"**Also known as:** {', '.join(entry.aliases)}" if entry.aliases else "",
            entry.definition,
            turns,
            "**Gotchas**\n\n" + "\n".join(f"- {gotcha}" for gotcha in entry.gotchas) if entry.gotchas else "",
            f"**Code**\n\n```python\n{entry.code}\n```{self.ending}" if entry.code else "",
        ]
        return "\n\n".join(block for block in blocks if block).replace("\n", self.newline)


HABITS = st.builds(
    Habits,
    blank=st.booleans(),
    details=st.booleans(),
    ending=st.sampled_from(["", "<br>", "<br/>", " <BR />"]),
    quotes=st.sampled_from(['""', "“”", ""]),
    newline=st.sampled_from(["\n", "\r\n"]),
)


@given(st.lists(WRITTEN, min_size=1, max_size=4), HABITS)
@settings(deadline=None, database=None, derandomize=True, max_examples=100)
def test_what_is_written_is_read_no_turn_lost_and_none_invented(
    tmp_path_factory: pytest.TempPathFactory, written: list[Written], habits: Habits
) -> None:
    file = tmp_path_factory.getbasetemp() / "written.md"
    text = f"{habits.newline * 2}".join(["# Title", *(habits.render(entry) for entry in written)])
    file.write_bytes(text.encode())
    lines = text.replace("\r\n", "\n").split("\n")
    entries = read_glossary(file)
    assert [entry.term for entry in entries] == [entry.term for entry in written]
    assert max(Counter(entry.slug for entry in entries).values()) == 1
    for entry, meant in zip(entries, written, strict=True):
        assert spoken(entry) == meant.dialogue
        assert [passage.text for passage in entry.definition] == [meant.definition]
        assert [passage.text for passage in entry.gotchas] == meant.gotchas
        assert list(entry.aliases) == meant.aliases
        assert [snippet.text for snippet in entry.snippets] == ([meant.code] if meant.code else [])
        assert lines[entry.line - 1] == f"## {entry.term}"
        for turn in entry.turns:
            assert turn.line == turn.end_line
            assert lines[turn.line - 1].startswith(f"{turn.speaker}: ")
            assert turn.text in lines[turn.line - 1]
