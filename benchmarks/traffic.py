"""Put mixed traffic to a real server and watch it: `python -m benchmarks.traffic [--minutes 30] [--clients 16]`.

Clients ask through /v1/chat/completions, whole and streamed, and through /search; they send what cannot be read, and hang
up in the middle. Every reply is what was promised (an answer with its sources, a declared "busy", a named error) or a
fault, which is kept word by word. Memory is sampled all the while. Then the time between hanging up and the model's
rest is measured. Writes docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.cold import page_up, serving
from benchmarks.machine import commit, cores, describe, resident_mib
from evals.retrieval import own_exam
from jargon_rag.paths import write_atomic
from jargon_rag.rag import JargonRAG

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
SEED = 0
REPLY_SECONDS = 120
WARM_UP = 0.2  # the share of the time after which memory is expected to stay
SAMPLE_SECONDS = 2.0
STOPS = 60  # answers that are stopped somewhere
WAYS = {"whole": 5, "streamed": 5, "search": 3, "hang up": 2, "nonsense": 1}  # how often each is done


@dataclass(slots=True)
class Seen:
    """What clients and the sampler saw."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of answers
    memory: list[float] = field(default_factory=list)  # MiB, in the order of time
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> None:
    """Load the server, then measure stopping, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    questions = [row["question"] for row in own_exam("dev").inside]
    with serving("-m", "jargon_rag", "serve", "--port") as (process, url, started):
        page_up(url, process, started)
        port = int(url.rstrip("/").rpartition(":")[2])
        while _once(port, "whole", questions[0], random.Random(SEED)) == "busy":  # the models load
            time.sleep(SAMPLE_SECONDS)
        seen = load(port, process.pid, questions, clients=options.clients, seconds=60 * options.minutes)
    stops = measure_stops(questions)
    write_atomic(PAGE, ("\n".join(report(seen, stops, options.clients, options.minutes)) + "\n").encode())
    print(f"Written to {PAGE}")


def load(port: int, pid: int, questions: Sequence[str], *, clients: int, seconds: float) -> Seen:
    """Let clients ask for so long, and return what was seen."""
    seen = Seen()
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(clients + 1) as pool:
        pool.submit(_watch, pid, seen, end)
        for number in range(clients):
            pool.submit(_ask_on, port, questions, random.Random(f"{SEED} {number}"), seen, end)
    return seen


def _watch(pid: int, seen: Seen, end: float) -> None:
    with tqdm(total=round(end - time.monotonic()), desc="traffic", unit="s") as bar:
        while time.monotonic() < end:
            seen.memory.append(resident_mib(pid))
            time.sleep(SAMPLE_SECONDS)
            bar.update(round(SAMPLE_SECONDS))


def _ask_on(port: int, questions: Sequence[str], rng: random.Random, seen: Seen, end: float) -> None:
    while time.monotonic() < end:
        way = rng.choices([*WAYS], [*WAYS.values()])[0]
        started = time.monotonic()
        try:
            outcome = _once(port, way, rng.choice(questions), rng)
        except Exception as error:  # whatever a client meets is a result
            outcome = f"fault: {type(error).__name__}: {error}"
        with seen.lock:
            if outcome.startswith("fault"):
                seen.faults.append(f"{way}: {outcome}")
                outcome = "fault"
            seen.outcomes[way, outcome] += 1
            if outcome == "answered":
                seen.seconds.append(time.monotonic() - started)
        time.sleep(rng.expovariate(1.0))


def _once(port: int, way: str, question: str, rng: random.Random) -> str:
    """Do one thing and say how it ended."""
    record = {
        "model": rng.choice(["jargon-rag", "jargon-rag-plain"]),
        "messages": [{"role": "user", "content": question}],
    }
    match way:
        case "search":
            return _search(port, question)
        case "nonsense":
            status, _ = _post(port, rng.choice([b"", b"{", b"[]", b'{"model": "jargon-rag"}', b"\xff\xfe" * 99]))
            return "refused as it should be" if status in (400, 404) else f"fault: {status} to nonsense"
        case "hang up":
            connection = HTTPConnection("127.0.0.1", port, timeout=REPLY_SECONDS)
            connection.request("POST", "/v1/chat/completions", json.dumps({**record, "stream": True}), _JSON)
            time.sleep(rng.uniform(0, 1))
            connection.close()
            return "hung up"
        case "streamed":
            status, body = _post(port, json.dumps({**record, "stream": True}).encode())
            if status == 503:
                return "busy"
            events = body.decode().split("\n\n")
            stops = sum('"finish_reason": "stop"' in event for event in events)
            whole = status == 200 and stops == 1 and "data: [DONE]" in events
            return "answered" if whole else f"fault: {status}, {stops} ends: {body[-200:]!r}"
        case _:
            status, body = _post(port, json.dumps(record).encode())
            if status == 503:
                return "busy"
            answer = json.loads(body)
            whole = status == 200 and len(answer["choices"]) == 1 and (answer["citations"] or answer["refused"])
            return "answered" if whole else f"fault: {status}: {body[:200]!r}"


_JSON = {"Content-Type": "application/json"}


def _post(port: int, body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, _JSON)
    try:
        with urllib.request.urlopen(request, timeout=REPLY_SECONDS) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 503 and not error.headers.get("Retry-After"):
                return 500, b"503 without Retry-After"
            return error.code, error.read()


def _search(port: int, question: str) -> str:
    """Search through the page's own API, which names an event first and gives its result after."""
    url = f"http://127.0.0.1:{port}/gradio_api/call/search"
    request = urllib.request.Request(url, json.dumps({"data": [question, 3]}).encode(), _JSON)
    with urllib.request.urlopen(request, timeout=REPLY_SECONDS) as response:
        event = json.loads(response.read())["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=REPLY_SECONDS) as response:
        told = response.read().decode()
    if "queue" in told.lower() and "full" in told.lower():
        return "busy"
    return "found" if "event: complete" in told and '"results"' in told else f"fault: {told[:200]!r}"


def measure_stops(questions: Sequence[str]) -> list[float]:
    """Stop answers at random moments; return the milliseconds until the model rested."""
    rng, bot, times = random.Random(SEED), JargonRAG(), []
    bot.ask(questions[0])
    for question in tqdm(rng.sample(list(questions), STOPS), desc="stops"):
        stop, rested = threading.Event(), list[float]()

        def write(question: str = question, stop: threading.Event = stop, rested: list[float] = rested) -> None:
            for _ in bot.stream(question, stop=stop):
                pass
            rested.append(time.perf_counter())

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(rng.uniform(0, 0.6))
        asked = time.perf_counter()
        stop.set()
        writer.join()
        times.append(1000 * max(0.0, rested[0] - asked))
    return times


def report(seen: Seen, stops: Sequence[float], clients: int, minutes: float) -> list[str]:
    """Return the page's lines."""
    machine: Mapping[str, Any] = describe(threads=cores())
    warm = seen.memory[int(WARM_UP * len(seen.memory)) :]
    tenths = [float(seen.memory[max(0, n * len(seen.memory) // 10 - 1)]) for n in range(1, 11)]
    tenth = max(1, len(warm) // 10)
    first, last = float(np.median(warm[:tenth])), float(np.median(warm[-tenth:]))
    return [
        "# Reliability, measured",
        "",
        (
            f"Made by `python -m benchmarks.traffic --minutes {minutes:g} --clients {clients}`, commit {commit()}, seed {SEED}:"
            f" {machine['processor']}, {machine['cores']} cores. Faults that are injected (kills, full disks, damaged files) are"
        ),
        "tests: `tests/test_faults.py`.",
        "",
        "## Mixed traffic at a real server",
        "",
        (
            f"{clients} clients for {minutes:g} minutes, a second apart on average; `whole` and `streamed` are answers of"
            " `/v1/chat/completions`."
        ),
        "",
        "| what | how it ended | times |",
        "|---|---|---|",
        *(f"| {way} | {outcome} | {count} |" for (way, outcome), count in sorted(seen.outcomes.items())),
        "",
        f'Faults, which is anything but an answer with its sources, a declared "busy" with Retry-After, or a named error: {len(seen.faults)}.',
        *(f"- `{fault}`" for fault in sorted(set(seen.faults))[:20]),
        "",
        f"An answer took {np.median(seen.seconds):.1f} s at the median, {np.quantile(seen.seconds, 0.95):.1f} s at p95, waiting included.",
        "",
        (
            f"Memory of the process: {first:.0f} MiB after the first fifth of the time, {last:.0f} MiB at the end"
            f" ({100 * (last / first - 1):+.1f} %). At the end of each tenth of the time, in MiB: {', '.join(f'{mib:.0f}' for mib in tenths)}."
        ),
        "",
        "## A client who is gone",
        "",
        (
            f"{len(stops)} answers stopped at random moments. The model rested after {np.median(stops):.0f} ms at the median,"
            f" {np.quantile(stops, 0.95):.0f} ms at p95, {max(stops):.0f} ms at most: a piece of the prompt"
            " that is being read is read to its end, else the next token is the last."
        ),
    ]


if __name__ == "__main__":
    main()
