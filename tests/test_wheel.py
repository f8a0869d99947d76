"""The built wheel works from another folder, with its own corpus and index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROGRAM = """
import jargon_rag, json
from pathlib import Path
from jargon_rag.paths import shipped_folder
here = Path(jargon_rag.__file__).parent
assert shipped_folder("index") == here / "data" / "index", shipped_folder("index")
rag = jargon_rag.JargonRAG()
print(json.dumps([str(here), rag.search("nucleus sampling", top_k=1)[0].entry.term]))
"""


def test_the_wheel_works_from_another_folder(tmp_path: Path) -> None:
    wheels, target = tmp_path / "dist", tmp_path / "site"
    run = [sys.executable, "-m"]
    subprocess.run([*run, "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)], check=True)
    (wheel,) = wheels.glob("jargon_rag-*.whl")
    subprocess.run([*run, "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(target) in result.stdout
    assert "Temperature / Top-p" in result.stdout
