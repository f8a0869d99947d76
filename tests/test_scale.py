"""The simulation of load against queueing theory, and the example deployment against the command line that it starts."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from benchmarks.simulate_load import boxes_needed, cost_per_thousand, simulate
from jargon_rag.cli import app

DEPLOY = Path(__file__).parents[1] / "deploy"


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_one_place_waits_as_pollaczek_and_khinchine_say(busy: float) -> None:
    service = [0.5, 1.0, 3.0]
    rate = busy / float(np.mean(service))
    found = [simulate(rate, service, places=1, seed=seed) for seed in range(10)]
    expected = rate * float(np.mean(np.square(service))) / (2 * (1 - busy))
    assert np.mean([load.waits.mean() for load in found]) == pytest.approx(expected, rel=0.1)
    assert np.mean([load.busy for load in found]) == pytest.approx(busy, rel=0.05)
    assert all(load.turned_away == 0 for load in found)


def test_a_line_that_is_full_turns_people_away() -> None:
    load = simulate(2.0, [1.0], places=1, line=16)
    assert load.turned_away == pytest.approx(0.5, abs=0.02)
    assert 10 < load.waits.max() <= 17


def test_without_room_to_wait_people_are_turned_away_as_erlang_says() -> None:
    offered = 2.0
    blocked = (offered**3 / 6) / sum(offered**n / (1, 1, 2, 6)[n] for n in range(4))
    found = [simulate(offered, [1.0], places=3, line=0, seed=seed).turned_away for seed in range(5)]
    assert np.mean(found) == pytest.approx(blocked, rel=0.05)


def test_the_boxes_needed_are_the_fewest_that_suffice() -> None:
    boxes = boxes_needed(5.0, [1.0], at_once=1, wait_s=1.0)
    waits = [np.quantile(simulate(5.0, [1.0], places=places).waits, 0.95) for places in (boxes - 1, boxes)]
    assert waits[0] > 1.0 >= waits[1]
    assert boxes_needed(5.0, [1.0], at_once=8, wait_s=1.0) == 1


def test_what_a_thousand_answers_cost() -> None:
    assert cost_per_thousand(3.6, 2.0) == pytest.approx(2.0)  # a thousand an hour


# The example deployment


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"])


def settings(command: str) -> set[str]:
    """Return the environment variables that a command of ours reads, by its options."""
    group = typer.main.get_command(app)
    options = group.commands[command].params  # type: ignore[attr-defined]
    return {str(option.envvar) for option in options if option.envvar}


def test_what_the_deployment_sets_is_read(services: dict[str, Any]) -> None:
    keys = set(re.findall(r"JARGON_RAG_\w*KEY", inspect.getsource(__import__("jargon_rag.cli").cli)))
    assert keys == {"JARGON_RAG_API_KEY", "JARGON_RAG_INDEX_KEY"}
    ours = [service for service in services.values() if service.get("command", [""])[0] == "jargon-rag"]
    assert len(ours) == 3
    for service in ours:
        assert set(service["environment"]) <= settings(service["command"][1]) | keys


def test_the_parts_of_the_deployment_find_each_other(services: dict[str, Any]) -> None:
    replica = services["replica-1"]["environment"]
    assert services["replica-2"]["environment"] == replica
    assert replica["JARGON_RAG_MODEL"] in services["vllm"]["command"]
    for name in ("JARGON_RAG_BASE_URL", "JARGON_RAG_INDEX_URL"):
        assert re.match(r"http://(\w+):", replica[name])[1] in services  # type: ignore[index]
    assert services["index"]["environment"]["JARGON_RAG_INDEX_URL"] == replica["JARGON_RAG_INDEX_URL"]
    upstream = re.findall(r"server ([\w-]+):7860", (DEPLOY / "nginx.conf").read_text("utf-8"))
    assert upstream == [name for name in services if name.startswith("replica")]
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
