"""Check written answers: the form, and that every claim is certified by the fact it cites. Prints what fails.

python -m training.answers PROMPTS.jsonl ANSWERS.jsonl
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from evals.data import read_rows
from jargon_rag.grounding import check_support

NONE = "NONE"  # the facts do not answer the question
_CLAIM = re.compile(r"\s*(.+?)\s*\[(\d+)\](?=\s|$)")
MAX_MORTY_WORDS = 16


def main() -> int:
    """Check one file of answers; the exit status says whether all hold."""
    prompts = {row["id"]: row for row in read_rows(Path(sys.argv[1]))}
    answers = read_rows(Path(sys.argv[2]))
    wrong = 0
    for row in answers:
        found = faults(prompts[row["id"]], row["answer"])
        wrong += bool(found)
        for fault in found:
            print(f"{row['id']}: {fault}")
    openings = [row["answer"].split("\n")[0] for row in answers if row["answer"].startswith("Morty")]
    print(f"{len(answers)} answers, {wrong} with faults, {len(set(openings))} of {len(openings)} openings distinct")
    return int(wrong > 0)


def faults(prompt: dict[str, Any], answer: str) -> list[str]:
    """Return what is wrong with an answer, nothing when it is fit to train on."""
    if answer == NONE:
        return []
    found: list[str] = []
    claims = 0
    for line in answer.split("\n"):
        if prompt["style"] == "rick":
            speaker, _, text = line.partition(": ")
            if speaker == "Morty":
                if not text.endswith("?") or "[" in text or len(text.split()) > MAX_MORTY_WORDS:
                    found.append(f"Morty asks a question of at most {MAX_MORTY_WORDS} words, without markers: {text}")
                continue
            if speaker != "Rick":
                found.append(f"a line begins with 'Morty: ' or 'Rick: ': {line}")
                continue
        else:
            text = line
        if _CLAIM.sub("", text).strip():
            found.append(f"every sentence ends with its marker, as in 'Text. [1]': {line}")
        for sentence, marker in _CLAIM.findall(text):
            claims += 1
            passages = [passage for n, passage in prompt["facts"] if n == int(marker)]
            verdicts = [check_support(sentence, passage) for passage in passages]
            if not any(verdict.supported for verdict in verdicts):
                why = verdicts[0].reason if verdicts else f"there is no fact [{marker}]"
                found.append(f"not certified: {sentence} [{marker}] ({why})")
    if not 1 <= claims <= 4:
        found.append(f"one to four claims, not {claims}")
    if prompt["style"] == "rick" and not answer.startswith("Morty: "):
        found.append("the first line is Morty's")
    return found


if __name__ == "__main__":
    sys.exit(main())
