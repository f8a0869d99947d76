from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import jargon_rag
from jargon_rag import errors, types

SOURCE = Path(jargon_rag.__file__).parent
HEAVY = ("torch", "transformers", "faiss", "gradio", "sentence_transformers", "bm25s", "numpy", "typer")
LIGHT = ("types", "errors", "terms")
EDGES = ("cli", "batch", "__main__", "ui")

# who may import whom within the library: a module imports only from lines above its own
LAYERS = [
    ("types", "errors", "terms", "markdown", "lines", "waiting"),
    ("calibration", "chunking", "glossary", "paths", "prompt", "voice"),
    ("grounding", "letters", "lint", "llama", "models", "reading"),
    ("batching", "embedder", "form", "index", "records"),
    ("generator", "remote"),
    ("retriever", "indexing", "qdrant"),
    ("conversation", "evidence", "answering"),
    ("rag",),
    ("doctor", "api", "batch", "terminal"),
    ("ui",),
    ("cli",),
    ("__main__",),
]


def name_of(file: Path) -> str:
    return file.relative_to(SOURCE).with_suffix("").parts[0]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(file: Path) -> Iterator[str]:
    """Yield every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: a relative import"
            yield node.module or ""
            if node.module == "jargon_rag":
                yield from (f"jargon_rag.{alias.name}" for alias in node.names)


def own_modules(file: Path) -> set[str]:
    """Return the library's modules that a file imports; a folder counts as one."""
    parts = [name.split(".") for name in imported(file)]
    return {name[1] for name in parts if name[0] == "jargon_rag" and len(name) > 1 and name[1] in MODULES}


FILES = sorted(file for file in SOURCE.rglob("*.py") if file != SOURCE / "__init__.py" and "data" not in file.parts)
MODULES = {name_of(file) for file in FILES}


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = json.loads(
        python("import json, sys, jargon_rag; jargon_rag.Answer; print(json.dumps(sorted(sys.modules)))")
    )
    assert "jargon_rag.types" in loaded
    assert sorted(set(HEAVY) & set(loaded)) == []


@pytest.mark.parametrize("module", ["grounding", "glossary", "lint", "calibration", "prompt", "voice", "chunking"])
def test_reading_and_checking_needs_no_model_library(module: str) -> None:
    loaded = json.loads(python(f"import json, sys, jargon_rag.{module}; print(json.dumps(sorted(sys.modules)))"))
    assert sorted({"torch", "transformers", "faiss", "gradio", "sentence_transformers"} & set(loaded)) == []


def test_the_command_line_s_help_needs_no_model_library() -> None:
    loaded = json.loads(python("import json, sys, jargon_rag.cli; print(json.dumps(sorted(sys.modules)))"))
    assert sorted({"torch", "transformers", "faiss", "gradio", "sentence_transformers"} & set(loaded)) == []


def test_all_lists_the_public_names_and_each_can_be_had() -> None:
    listed = jargon_rag.__all__
    assert listed == sorted(set(listed))
    own_errors = [name for name, value in vars(errors).items() if isinstance(value, type)]
    own_types = [
        name for name, value in vars(types).items() if isinstance(value, type) and value.__module__ == types.__name__
    ]
    assert set(listed) == {"JargonRAG", "Chat", "RemoteGenerator", *own_errors, *own_types}
    for name in listed:
        assert getattr(jargon_rag, name).__name__ == name


def test_a_star_import_gives_the_public_names() -> None:
    names = json.loads(
        python(
            "import json; from jargon_rag import *; print(json.dumps([n for n in dir() if n[0] != '_' and n != 'json']))"
        )
    )
    assert set(names) == set(jargon_rag.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'JargonBot'"):
        _ = jargon_rag.JargonBot


def test_every_module_has_its_layer() -> None:
    assert sorted(module for layer in LAYERS for module in layer) == sorted(MODULES)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_module_imports_only_from_layers_below_or_beside_it(file: Path) -> None:
    height = {module: number for number, layer in enumerate(LAYERS) for module in layer}
    own = name_of(file)
    assert [other for other in own_modules(file) if other != own and height[other] > height[own]] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    waiting = {module: set[str]() for module in MODULES}
    for file in FILES:
        waiting[name_of(file)] |= own_modules(file) - {name_of(file)}
    while free := {module for module, others in waiting.items() if not others & set(waiting)}:
        waiting = {module: others for module, others in waiting.items() if module not in free}
    assert waiting == {}


@pytest.mark.parametrize("module", LIGHT)
def test_the_lowest_layer_imports_only_the_standard_library(module: str) -> None:
    tree = ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))
    for_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    excused = {
        alias.name
        for guard in for_types
        for node in ast.walk(guard)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    roots = {name.split(".")[0] for name in imported(SOURCE / f"{module}.py") if name not in excused}
    assert roots <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("file", [file for file in FILES if name_of(file) not in EDGES], ids=name_of)
def test_only_the_edges_know_gradio_and_typer(file: Path) -> None:
    assert not {"gradio", "typer"} & {name.split(".")[0] for name in imported(file)}


@pytest.mark.parametrize("file", [file for file in FILES if name_of(file) != "cli"], ids=name_of)
def test_environment_variables_are_read_only_at_the_edge(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not used & {"environ", "environb", "getenv", "putenv"}


def test_a_space_installs_what_the_package_needs_but_gradio() -> None:
    root = SOURCE.parents[1]
    needed = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    lines = (root / "requirements.txt").read_text("utf-8").splitlines()
    installed = [line for line in lines if line and not line.startswith("#")]
    assert sorted(installed) == sorted(name for name in needed if not name.startswith("gradio"))
