"""Ask the questions of the scorecard and keep every answer: `python -m evals.answers [--rows shipped ...]`.

A row of the scorecard is one way of answering: the language model as published or with the shipped adapter, free or held
to the form, its sentences checked before they are shown or not. The questions are drawn once, by seed: test terms of our
glossary, kinds of question evenly, the sailing glossary, and questions that neither answers. `evals/answers/ROW.jsonl`
holds the answers, `python -m evals.scorecard` reads them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from tqdm import tqdm

from evals.retrieval import HERE, SAILING, own_exam, sailing_exam
from jargon_rag.generator import LocalGenerator
from jargon_rag.paths import default_cache_dir, shipped_folder, write_atomic
from jargon_rag.rag import JargonRAG
from jargon_rag.records import answer_record
from jargon_rag.types import AnswerForm, Message, Style, TextPiece

ANSWERS = HERE / "answers"
PER_KIND, OUTSIDE = 10, 30  # questions of each kind, and of those that a glossary does not answer
GLOSSARIES = {"own": None, "sailing": SAILING / "glossary.md"}


ROWS: dict[str, tuple[bool, bool, Style]] = {  # adapter, held to the form, style
    "base": (False, False, "rick"),
    "base-form": (False, True, "rick"),
    "adapter": (True, False, "rick"),
    "shipped": (True, True, "rick"),
    "plain": (True, True, "plain"),
}
FEWER = ("base", "base-form", "adapter")  # every fourth question: they are slow, and far off


class Heard:
    """A language model whose words are kept, and that is held to the form or only told of it."""

    def __init__(self, model: LocalGenerator, *, held: bool) -> None:
        self._model, self._held = model, held
        self.said = ""

    @property
    def id(self) -> str:
        """Return the model's."""
        return self._model.id

    def likelihoods(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return the model's."""
        return self._model.likelihoods(question, passages)

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        """Stream and keep the text."""
        self.said = ""
        pieces = self._model.stream(messages, max_new_tokens=max_new_tokens, form=form if self._held else None)
        with closing(pieces):
            for piece in pieces:
                self.said += piece.text
                yield piece


def main() -> None:
    """Ask, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    options = parser.parse_args()
    for row in options.rows:
        adapter, held, style = ROWS[row]
        folder = shipped_folder("adapter") if adapter else None
        engine = Heard(LocalGenerator(cache_dir=default_cache_dir(), adapter=folder), held=held)
        found = []
        for glossary, corpus in GLOSSARIES.items():
            bot = JargonRAG(corpus=corpus, model=engine, style=style)
            asked = questions(glossary)[:: 4 if row in FEWER else 1]
            for question in tqdm(asked, desc=f"{row}, {glossary}"):
                engine.said = ""
                record = answer_record(bot.ask(question["question"]))
                found.append({"glossary": glossary, "asked": question, "said": engine.said, **record})
        lines = (json.dumps({"id": f"{row}-{n}", **line}, ensure_ascii=False) + "\n" for n, line in enumerate(found))
        ANSWERS.mkdir(exist_ok=True)
        write_atomic(ANSWERS / f"{row}.jsonl", "".join(lines).encode())


def questions(glossary: str) -> list[dict[str, Any]]:
    """Return a glossary's questions: of each kind that it answers the same number, and those beside it."""
    exam = own_exam("test") if glossary == "own" else sailing_exam()
    rng = random.Random(0)
    drawn = []
    for kind in sorted({row["kind"] for row in exam.inside}):
        some = [row for row in exam.inside if row["kind"] == kind]
        drawn += rng.sample(some, min(PER_KIND, len(some)))
    return drawn + rng.sample(exam.outside, OUTSIDE)


if __name__ == "__main__":
    main()
