"""Faults of a glossary, each reported at its line with what to do."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from jargon_rag.errors import GlossaryError
from jargon_rag.lint import Finding, lint_glossary

TRAPS = Path(__file__).parent / "data" / "traps.md"
DIALOGUE = 'Morty: "Why?"\nRick: "Because."'

GLOSSARIES = [pytest.param(TRAPS, 9, {"missing-from-toc": 2, "no-dialogue": 1}, id="own")]
if os.environ.get("JARGON_RAG_GLOSSARY"):
    users = Path(os.environ["JARGON_RAG_GLOSSARY"])
    GLOSSARIES.append(pytest.param(users, 79, {"missing-from-toc": 5, "no-dialogue": 1}, id="users"))


def entry(term: str, extra: str = "") -> str:
    return f"## {term}\n\nSomething.\n\n{DIALOGUE}\n\n{extra}\n\n"


def lint(folder: Path, text: str, name: str = "terms.md") -> list[Finding]:
    (folder / name).write_text(text, "utf-8")
    return lint_glossary(folder / name)[1]


def rules(findings: list[Finding]) -> list[tuple[str, int, str]]:
    return [(finding.rule, finding.line, finding.term) for finding in findings]


@pytest.mark.parametrize(("file", "entries", "expected"), GLOSSARIES)
def test_a_real_glossary_has_exactly_its_known_faults(file: Path, entries: int, expected: dict[str, int]) -> None:
    count, findings = lint_glossary(file)
    assert count == entries
    assert Counter(finding.rule for finding in findings) == expected


@pytest.mark.parametrize(("file", "entries", "expected"), GLOSSARIES)
def test_findings_of_a_real_glossary_name_the_heading_at_their_line(
    file: Path, entries: int, expected: dict[str, int]
) -> None:
    lines = file.read_text("utf-8").split("\n")
    findings = lint_glossary(file)[1]
    assert len(findings) == sum(expected.values())
    for finding in findings:
        assert (finding.path, lines[finding.line - 1]) == (file.name, f"## {finding.term}")


def test_the_faults_of_the_fixture_are_found_in_reading_order() -> None:
    assert rules(lint_glossary(TRAPS)[1]) == [
        ("no-dialogue", 85, "Moving Window"),
        ("missing-from-toc", 101, "Forgotten Baseline"),
        ("missing-from-toc", 113, "Unlisted Outlier"),
    ]


def test_a_missing_line_of_the_contents_is_written_out_ready_to_paste() -> None:
    messages = [finding.message for finding in lint_glossary(TRAPS)[1]]
    assert "* [Forgotten Baseline](#forgotten-baseline)" in messages[1]


def test_a_sound_glossary_has_no_findings(tmp_path: Path) -> None:
    text = "# G\n\n- [A/B, C](#ab-c)\n\n" + entry("A/B, C", "**See also:** [A/B, C](#ab-c), A/B")
    assert lint(tmp_path, text) == []


def test_contents_are_not_asked_for_where_there_are_none(tmp_path: Path) -> None:
    assert lint(tmp_path, "# G\n\nSee [a site](https://x.example).\n\n" + entry("Kiln")) == []


def test_contents_in_a_section_of_their_own_count(tmp_path: Path) -> None:
    text = "## Table of Contents\n\n1. [Kiln](#kiln)\n\n" + entry("Kiln") + entry("Clay")
    assert rules(lint(tmp_path, text)) == [("missing-from-toc", 14, "Clay")]


def test_a_dead_anchor_is_reported_at_its_own_line(tmp_path: Path) -> None:
    text = "* [Kiln](#kiln)\n* [Gone](#gone)\n* [Kiln again](#Kiln)\n\n" + entry("Kiln")
    findings = lint(tmp_path, text)
    assert rules(findings) == [("dead-anchor", 2, "Gone"), ("dead-anchor", 3, "Kiln again")]
    assert "#gone" in findings[0].message


def test_anchors_with_umlauts_are_alive(tmp_path: Path) -> None:
    text = "* [Größe](#größe)\n* [Öl](#%C3%B6l)\n\n" + entry("Größe") + entry("Öl")
    assert lint(tmp_path, text) == []


def test_the_second_of_two_equal_headings_is_listed_under_its_numbered_anchor(tmp_path: Path) -> None:
    text = "* [Kiln](#kiln)\n* [Kiln](#kiln-1)\n\n" + entry("Kiln") + entry("Kiln")
    assert [finding.rule for finding in lint(tmp_path, text)] == ["duplicate-term"]


def test_duplicate_terms_are_found_across_spellings(tmp_path: Path) -> None:
    findings = lint(tmp_path, entry("Batch Norm") + entry("Kiln") + entry("batch-norms"))
    assert [(f.rule, f.term) for f in findings] == [("duplicate-term", "batch-norms")]
    assert "'Batch Norm' in terms.md line 1" in findings[0].message


def test_duplicate_terms_are_found_across_files(tmp_path: Path) -> None:
    folder = tmp_path / "pots"
    folder.mkdir()
    (folder / "a.md").write_text(entry("Kiln"))
    (folder / "b.md").write_text(entry("Clay") + entry("Kiln"))
    count, findings = lint_glossary(folder)
    assert count == 3
    assert [(f.path, f.rule, f.term) for f in findings] == [("pots/b.md", "duplicate-term", "Kiln")]
    assert "pots/a.md line 1" in findings[0].message


def test_two_terms_with_one_anchor_are_reported_as_such(tmp_path: Path) -> None:
    findings = lint(tmp_path, entry("Goodhart's Law") + entry("Goodharts Law"))
    assert [(f.rule, f.term) for f in findings] == [("duplicate-slug", "Goodharts Law")]


def test_an_unknown_see_also_is_reported_at_its_line(tmp_path: Path) -> None:
    text = entry("Kiln", "**See also:** [Clay](#clay), [Kiln](#kiln), Wheel, Kiln")
    findings = lint(tmp_path, text)
    assert rules(findings) == [("unknown-see-also", 8, "Kiln")]
    assert "'Clay' (#clay)" in findings[0].message
    assert rules(lint(tmp_path, entry("Kiln", "**See also:** Wheel, Kiln"))) == [("unknown-see-also", 8, "Kiln")]


def test_see_also_may_name_a_part_of_a_heading_or_the_web(tmp_path: Path) -> None:
    text = entry("Kiln / Oven (Big)", "**See also:** Oven, Kiln, Big")
    text += entry("Clay", "**See also:** [a page](https://x.example/a#b)")
    assert lint(tmp_path, text) == []


def test_a_list_of_see_also_is_checked_item_by_item(tmp_path: Path) -> None:
    text = entry("Kiln", "### See also\n\n- [Kiln](#kiln)\n- [Clay](#clay)")
    assert rules(lint(tmp_path, text)) == [("unknown-see-also", 11, "Kiln")]


def folder_of_two(tmp_path: Path, link: str) -> Path:
    folder = tmp_path / "pots"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text(entry("Clay"))
    (folder / "sub" / "b c.md").write_text(entry("Kiln", f"**See also:** {link}"))
    return folder


@pytest.mark.parametrize("link", ["[Clay](../a.md#clay)", "[Kiln](#kiln)", "[Kiln](b%20c.md#kiln)", "Clay"])
def test_links_between_the_files_of_a_folder_are_followed(tmp_path: Path, link: str) -> None:
    folder = folder_of_two(tmp_path, link)
    assert lint_glossary(folder)[1] == []
    assert lint_glossary(folder / "sub" / "b c.md")[1] == [] or link == "Clay"


@pytest.mark.parametrize(
    "link",
    [
        "[Clay](a.md#clay)",
        "[Kiln](../a.md#kiln)",
        "[Clay](#clay)",
        "[x](../../../../nowhere.md#x)",
        f"[x]({'x' * 400}.md#x)",
        "[x](%00.md#x)",
        "[x](/dev/zero#x)",
        "[x](.#x)",
    ],
    ids=["wrong folder", "wrong file", "other file", "outside", "too long", "nul", "device", "folder"],
)
def test_links_that_lead_nowhere_are_reported_and_crash_nothing(tmp_path: Path, link: str) -> None:
    folder = folder_of_two(tmp_path, link)
    for path in (folder, folder / "sub" / "b c.md"):
        assert [(f.rule, f.line, f.term) for f in lint_glossary(path)[1]] == [("unknown-see-also", 8, "Kiln")]


def test_an_entry_needs_a_definition_and_a_dialogue(tmp_path: Path) -> None:
    text = f"## Bare\n\n## Talk only\n\n{DIALOGUE}\n\n## Prose only\n\nSomething.\n"
    assert rules(lint(tmp_path, text)) == [
        ("no-definition", 1, "Bare"),
        ("no-dialogue", 1, "Bare"),
        ("no-definition", 3, "Talk only"),
        ("no-dialogue", 8, "Prose only"),
    ]


def test_a_speaker_who_answers_himself_is_reported_at_the_second_turn(tmp_path: Path) -> None:
    findings = lint(tmp_path, "## T\n\nd\n\nMorty: a\nRick: b\nRick: c\nMorty: d\nRick: e\n")
    assert rules(findings) == [("same-speaker", 7, "T")]
    assert findings[0].message.startswith("Rick speaks twice")


def test_a_question_without_an_answer_is_reported_at_its_line(tmp_path: Path) -> None:
    assert rules(lint(tmp_path, "## T\n\nd\n\nMorty: a\nRick: b\nMorty: c\n")) == [("no-answer", 7, "T")]


def test_unclosed_details_are_reported_where_they_open(tmp_path: Path) -> None:
    text = f"## T\n\nd\n\n<details>\n<summary>S</summary>\n\n{DIALOGUE}\n\n" + entry("Next")
    assert rules(lint(tmp_path, text)) == [("unclosed-details", 5, "T")]


def test_nested_details_that_are_closed_are_no_fault(tmp_path: Path) -> None:
    inner = f"<details>\n<summary>S</summary>\n\n{DIALOGUE}\n\n</details>"
    assert lint(tmp_path, f"## T\n\nd\n\n<details>\n\n{inner}\n\n</details>\n") == []
    assert lint(tmp_path, f"## T\n\nd\n\n<details><details>\n{DIALOGUE}\n</details></details>\n") == []


def test_details_in_a_comment_are_no_fault(tmp_path: Path) -> None:
    assert lint(tmp_path, entry("T", "<!-- <details> -->")) == []


def test_an_unclosed_fence_is_reported_where_it_opens(tmp_path: Path) -> None:
    assert rules(lint(tmp_path, entry("T", "```python\nx = 1"))) == [("unclosed-code", 8, "")]


def test_a_fence_closed_with_br_is_no_fault(tmp_path: Path) -> None:
    assert lint(tmp_path, entry("T", "```python<br>\nx = 1<br>\n```<br>")) == []


def test_code_that_names_no_term_is_reported_with_its_first_line(tmp_path: Path) -> None:
    text = entry("Kiln") + "## Code Examples\n\n```\n# Wheel\nspin()\n```\n\n```\n# Kiln\nbake()\n```\n"
    findings = lint(tmp_path, text)
    assert rules(findings) == [("orphan-code", 12, "")]
    assert "'# Wheel'" in findings[0].message


@pytest.mark.parametrize("text", ["", "prose\n", "# Title\n\n## Contents\n", "## License\n\nMIT\n"])
def test_a_file_without_entries_is_a_finding_and_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.md").write_text(text)
    count, findings = lint_glossary(tmp_path / "t.md")
    assert (count, [finding.rule for finding in findings]) == (0, ["no-entries"])


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.md").write_bytes(b"## T\n\n\xff")
    with pytest.raises(GlossaryError, match=r"t\.md is not UTF-8"):
        lint_glossary(tmp_path / "t.md")


def test_findings_of_a_folder_come_file_by_file_and_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("## B\n")
    (tmp_path / "a.md").write_text("[Z](#z)\n\n## A\n\nd\n\nMorty: q\n")
    found = [(Path(f.path).name, f.line, f.rule) for f in lint_glossary(tmp_path)[1]]
    assert found == [
        ("a.md", 1, "dead-anchor"),
        ("a.md", 3, "missing-from-toc"),
        ("a.md", 7, "no-answer"),
        ("b.md", 1, "no-definition"),
        ("b.md", 1, "no-dialogue"),
    ]
