from __future__ import annotations

import pytest

from jargon_rag.prompt import INSTRUCTIONS, NONE, build_messages
from jargon_rag.types import Style


@pytest.mark.parametrize("style", ["rick", "plain"])
def test_the_prompt_holds_the_instruction_and_the_numbered_facts_between_the_question(style: Style) -> None:
    system, user = build_messages(
        "Why {so}?", [(1, "A/B", "It fits [noise]."), (2, "B", "B: Not {here}."), (1, "A/B", "More.")], style=style
    )
    assert system == {"role": "system", "content": INSTRUCTIONS[style]}
    assert NONE in system["content"]
    assert user["content"].split("\n") == [
        "Question: Why {so}?", "", "Facts:", "[1] A/B: It fits [noise].", "[2] B: Not {here}.", "[1] A/B: More.", "", "Question: Why {so}?",
    ]  # fmt: skip
