"""The folder that is pushed to a Hugging Face Space. `make space` installs and starts it, which takes minutes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import metadata_load

from jargon_rag.models import PACKAGED
from scripts.space import ROOT, SHIPPED, stage

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
KINDS = {".py", ".md", ".json", ".jsonl", ".txt", ".css", ".faiss", ".safetensors", ".png", ".svg", ".js", ".woff2", ""}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "folder"
    (folder / "left over").mkdir(parents=True)
    stage(folder)
    return folder


@pytest.fixture(scope="module")
def front_matter(staged: Path) -> dict[str, Any]:
    return dict(metadata_load(staged / "README.md") or {})


def names(lines: list[str]) -> set[str]:
    """The names of required packages, as pip compares them."""
    packages = [re.match(r"[\w.-]+", line) for line in lines]
    return {found[0].lower().replace("_", "-") for found in packages if found}


def test_only_what_a_space_needs_is_staged(staged: Path) -> None:
    files = {str(path.relative_to(staged)) for path in staged.rglob("*") if not path.is_dir()}
    assert {path.name for path in staged.iterdir()} == {
        "README.md", "LICENSE", "app.py", "requirements.txt", "src", "corpus", "index", "adapter", "docs",
    }  # fmt: skip
    assert {Path(name).suffix for name in files} <= KINDS
    assert [
        name for name in files if "__pycache__" in name or name.startswith((".", "corpus/questions", "docs/review"))
    ] == []
    assert [path.name for path in (staged / "src").iterdir()] == ["jargon_rag"]
    assert {"app.py", "src/jargon_rag/weights.txt", "src/jargon_rag/ui/style.css", "index/manifest.json"} <= files


def test_what_git_does_not_track_is_never_staged(tmp_path: Path) -> None:
    secret = ROOT / "index" / "untracked-note.txt"
    secret.write_text("mine", "utf-8")
    try:
        assert "untracked-note.txt" not in {path.name for path in stage(tmp_path / "space")}
    finally:
        secret.unlink()


def test_every_entry_of_the_allow_list_names_something(staged: Path) -> None:
    for pathspec in SHIPPED:
        assert list(staged.glob(pathspec.removeprefix(":(glob)"))), pathspec


def test_the_front_matter_is_one_that_the_hub_takes(front_matter: dict[str, Any]) -> None:
    assert front_matter["sdk"] == "gradio"
    assert {front_matter["colorFrom"], front_matter["colorTo"]} <= COLOURS
    assert len(front_matter["short_description"]) <= 60  # more is refused
    assert re.fullmatch(r"3\.12\.\d+", front_matter["python_version"])  # a text: 3.10 as a number is 3.1
    assert re.fullmatch(r"\d+[mh]", front_matter["startup_duration_timeout"])
    assert front_matter["license"] == "mit"
    assert set(front_matter["models"]) == {model.hub_id for model in PACKAGED}


def test_the_space_runs_the_tested_gradio(front_matter: dict[str, Any]) -> None:
    assert f"gradio=={front_matter['sdk_version']}" in (ROOT / "constraints.txt").read_text("utf-8").splitlines()


def test_the_front_matter_and_the_readme_name_files_that_are_staged(staged: Path, front_matter: dict[str, Any]) -> None:
    assert (staged / front_matter["app_file"]).is_file()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (staged / "README.md").read_text("utf-8")):
        assert (staged / target).exists(), target


def test_a_space_installs_what_the_package_depends_on(staged: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (staged / "requirements.txt").read_text("utf-8").splitlines()
    required = [line for line in lines if line and not line.startswith("#")]
    assert names(required) == names(project["dependencies"]) - {"gradio"}  # it comes with sdk_version
    assert set(required) <= set(project["dependencies"])


@pytest.mark.parametrize(
    "spaces", [None, "def GPU(task):\n    found.append(task.__name__)\n    return task\nfound = []\n"]
)
def test_app_has_a_gpu_function_where_there_is_zerogpu(staged: Path, tmp_path: Path, spaces: str | None) -> None:
    program = (
        "import sys\n"
        f"sys.path[:0] = [{str(tmp_path)!r}, {str(staged)!r}]\n"
        "import app\n"
        "assert 'torch' not in sys.modules\n"
        "print(app.device(), getattr(sys.modules.get('spaces'), 'found', None))\n"
    )
    if spaces is not None:
        (tmp_path / "spaces.py").write_text(spaces, "utf-8")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    device, marked = done.stdout.split()
    assert device in {"cpu", "cuda"}
    assert marked == ("None" if spaces is None else "['device']")
