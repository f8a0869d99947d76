from __future__ import annotations

from jargon_rag.prompt import INSTRUCTION, build_messages


def test_the_prompt_holds_question_and_numbered_facts_and_ends_in_the_instruction() -> None:
    (message,) = build_messages("Why {so}?", [(1, "It fits [noise]."), (2, "Not {here}."), (1, "More.")])
    assert message["role"] == "user"
    assert message["content"].split("\n") == [
        "Question: Why {so}?", "", "Facts:", "[1] It fits [noise].", "[2] Not {here}.", "[1] More.", "", INSTRUCTION,
    ]  # fmt: skip
