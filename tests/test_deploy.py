"""The container's recipe and what docs/deploy.md says, against the code. Neither Docker nor systemd is needed here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer
from huggingface_hub import metadata_load

from jargon_rag.cli import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
GUIDE = (ROOT / "docs" / "deploy.md").read_text("utf-8")
IGNORED = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
SERVE = {
    name: option.opts[0]
    for option in typer.main.get_command(app).commands["serve"].params  # type: ignore[attr-defined]
    if isinstance(name := option.envvar, str)
}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Docker would be sent of this checkout."""
    folder = tmp_path_factory.mktemp("context")
    for name in (line[1:] for line in IGNORED if line.startswith("!")):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def test_docker_is_sent_an_allow_list() -> None:
    rules = [line for line in IGNORED if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert [line for line in rules[1:] if not line.startswith("!")] == ["**/__pycache__"]


def test_what_the_dockerfile_copies_is_sent(context: Path) -> None:
    for sources in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (context / source).exists(), source


def test_the_wheel_builds_from_what_docker_is_sent(context: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir"]
    subprocess.run([*build, str(tmp_path), str(context)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    assert {"jargon_rag/weights.txt", "jargon_rag/data/index/manifest.json"} <= files
    assert any(name.startswith("jargon_rag/data/corpus/") for name in files)
    assert "jargon_rag/data/adapter/adapter_config.json" in files


def test_the_image_runs_the_python_of_the_space() -> None:
    minor = metadata_load(ROOT / "README.md")["python_version"].rpartition(".")[0]
    images = re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, re.MULTILINE)
    assert set(images) == {minor}
    assert len(images) == 2


def test_the_image_starts_the_server_as_an_ordinary_user() -> None:
    instructions = dict(re.findall(r"^(USER|EXPOSE|CMD) (.+)$", DOCKERFILE, re.MULTILINE))
    assert int(instructions["USER"]) > 0
    assert json.loads(instructions["CMD"]) == ["jargon-rag", "serve"]
    assert f":{instructions['EXPOSE']}/" in DOCKERFILE  # the health check asks it
    assert instructions["EXPOSE"] == "7860"


def test_variables_of_the_image_and_of_the_guide_are_those_of_serve() -> None:
    assert set(re.findall(r"JARGON_RAG_\w+", DOCKERFILE)) <= set(SERVE)
    rows = re.findall(r"^\| (`JARGON_RAG.+?`) \| (`--.+?`) \|", GUIDE, re.MULTILINE)
    documented = {
        name.strip("`"): option.strip("`")
        for names, options in rows
        for name, option in zip(names.split(", "), options.split(", "), strict=True)
    }
    assert documented
    assert documented.items() <= SERVE.items()


def test_the_guide_serves_below_the_path_that_its_nginx_shows() -> None:
    path = re.search(r"serve --root-path (\S+)\nEnvironment", GUIDE)
    assert path is not None
    assert f"location {path[1]}/ {{\n    proxy_pass http://127.0.0.1:7860/;" in GUIDE
