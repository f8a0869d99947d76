"""The web chat in a real browser with the real models, and its endpoints with real clients."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from gradio_client import Client
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.errors import InputError, WeightsError
from jargon_rag.rag import JargonRAG
from jargon_rag.types import AnswerForm, Message, TextPiece
from jargon_rag.ui.loader import Loader
from jargon_rag.ui.page import EXAMPLES, launch
from tests.conftest import Gated, free_port

ANSWER_MS = 120_000
GRADIO_S_OWN = frozenset(
    {"aria-prohibited-attr"}
)  # its empty plot: rules that Gradio's own parts break, and ours cannot mend


@pytest.fixture(scope="module")
def url(rag: JargonRAG) -> Iterator[str]:
    port = free_port()
    page = launch(lambda _: rag, port=port, say=lambda _: None, wait=False)
    yield f"http://127.0.0.1:{port}/"
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "The browser tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser_page(browser: Browser, url: str) -> Page:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url.rstrip("/"))
    return context.new_page()


@pytest.fixture
def url_below_a_path(rag: JargonRAG) -> Iterator[str]:
    """The page behind a proxy that shows it at /jargon/, as `location /jargon/ { proxy_pass http://…/; }` does in nginx."""
    port = free_port()

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith("/jargon/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", port)
            upstream.request(self.command, self.path.removeprefix("/jargon"), body, dict(self.headers))
            response = upstream.getresponse()
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in {"transfer-encoding", "connection"}:
                    self.send_header(name, value)
            self.end_headers()
            while piece := response.read1(65_536):  # as it comes: an answer is a stream of events
                self.wfile.write(piece)
            upstream.close()

        def do_POST(self) -> None:
            self.do_GET()

    page = launch(lambda _: rag, port=port, root_path="/jargon", say=lambda _: None, wait=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}/jargon/"
        proxy.shutdown()
    page.close()


def opened(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator(".state.ready")).to_be_visible(timeout=ANSWER_MS)


def ask_in(page: Page, url: str, question: str) -> None:
    opened(page, url)
    send(page, question)


def send(page: Page, question: str) -> None:
    box = page.get_by_label("Question")
    expect(box).to_be_enabled(timeout=ANSWER_MS)
    box.fill(question)
    page.keyboard.press("Enter")


def last_answer(page: Page) -> Locator:
    """The newest answer, once it is complete: the next question may be asked."""
    answer = page.locator("#chat .bot.message").last
    expect(answer.locator(".dialogue")).to_be_visible(timeout=ANSWER_MS)
    expect(page.get_by_label("Question")).to_be_enabled(timeout=ANSWER_MS)
    return answer


def test_a_question_gets_a_cited_dialogue_whose_markers_open_the_source(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "What is overfitting?")
    answer = last_answer(browser_page)
    assert answer.locator(".line").first.inner_text().startswith("Morty")
    chip = answer.locator(".line.rick a.chip").first
    source = answer.locator("details.source").first
    expect(source.locator("summary")).to_contain_text("Overfitting")
    expect(source.locator(".entry")).not_to_be_visible()
    chip.click()
    expect(source.locator("mark").first).to_be_visible()
    assert source.locator("mark").first.inner_text() in answer.locator(".line.rick").inner_text().replace("\n", " ")
    expect(source.locator("summary")).to_be_focused()


def test_each_claim_shows_how_it_was_checked(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "Why does dropout help?")
    answer = last_answer(browser_page)
    answer.locator("details.checks summary").click()
    rows = answer.locator("details.checks li")
    assert rows.count() == answer.locator("a.chip").count()
    expect(rows.first).to_contain_text("[1]")


def test_why_this_answer_shows_what_was_found_and_where_the_time_went(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "Why does dropout help?")
    last_answer(browser_page)
    reasons = browser_page.locator("#why")
    expect(reasons.locator("tbody tr").first).to_contain_text("Dropout")
    expect(reasons).to_contain_text("write")
    reasons.get_by_text("What the model was shown").click()
    expect(reasons.locator(".prompt p")).to_contain_text("Question: Why does dropout help?")


def test_a_question_outside_the_glossary_is_refused_with_the_nearest_terms_to_click(
    browser_page: Page, url: str
) -> None:
    ask_in(browser_page, url, "What is the best pizza in town?")
    answer = browser_page.locator("#chat .bot.message").last
    expect(answer).to_contain_text("nearest", timeout=ANSWER_MS)
    expect(answer.locator("a.chip")).to_have_count(0)
    expect(browser_page.get_by_label("Question")).to_be_enabled(timeout=ANSWER_MS)
    browser_page.locator("#chat button.option").first.click()
    expect(browser_page.locator("#chat .bot.message")).to_have_count(2, timeout=ANSWER_MS)


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>window.hacked = 1</script> overfitting",
        "<img src=x onerror='window.hacked = 1'> dropout",
        "${window.hacked = 1} {{ 7 * 7 }} softmax",
        "[click](javascript:window.hacked=1) attention",
    ],
)
def test_markup_in_a_question_stays_inert(browser_page: Page, url: str, hostile: str) -> None:
    ask_in(browser_page, url, hostile)
    last_answer(browser_page)
    assert browser_page.evaluate("window.hacked") is None
    assert browser_page.locator("#chat a[href^='javascript']").count() == 0


def test_markup_in_a_glossary_stays_inert(
    browser: Browser, embedder: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    file = tmp_path / "hostile.md"
    file.write_text(
        "## Trap <img src=x onerror='window.hacked=1'>\n\nA trap is ${window.hacked=1} {{ 7*7 }} a lure &lt;script&gt;window.hacked=1&lt;/script&gt;"
        " with [a link](javascript:window.hacked=1) and ![a picture](http://203.0.113.1/x.png).\n",
        "utf-8",
    )
    bot = JargonRAG(corpus=file, embedder=embedder, cache_dir=tmp_path / "cache", model=Silent())
    port = free_port()
    page = launch(lambda _: bot, port=port, say=lambda _: None, wait=False)
    try:
        tab = browser.new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        ask_in(tab, f"http://127.0.0.1:{port}/", "What is a trap?")
        answer = last_answer(tab)
        answer.locator("details.source summary").click()
        expect(answer.locator(".entry")).to_contain_text("{{ 7*7 }}")
        tab.get_by_role("tab", name="Map").click()
        expect(tab.locator("#map .js-plotly-plot")).to_be_visible(timeout=ANSWER_MS)
        tab.get_by_role("tab", name="Glossary").click()
        tab.locator("#terms input").first.check()
        expect(tab.locator("#reading")).to_contain_text("{{ 7*7 }}")
        assert tab.evaluate("window.hacked") is None
        assert not [address for address in asked if "203.0.113.1" in address]
        tab.close()
    finally:
        page.close()


class Silent:
    """A language model that writes nothing: the glossary's own words are shown."""

    id = "silent"

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        yield from ()


def test_the_page_asks_nothing_of_other_hosts(browser_page: Page, url: str) -> None:
    asked: list[str] = []
    browser_page.on("request", lambda request: asked.append(request.url))
    ask_in(browser_page, url, "What is an epoch?")
    last_answer(browser_page)
    browser_page.get_by_role("tab", name="Map").click()
    expect(browser_page.locator("#map .js-plotly-plot")).to_be_visible(timeout=ANSWER_MS)
    assert asked
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []


def test_a_follow_up_is_understood_from_the_conversation(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "What is dropout?")
    expect(last_answer(browser_page).locator("details.source").first).to_contain_text("Dropout")
    send(browser_page, "And when is it off?")
    expect(browser_page.locator("#chat .bot.message")).to_have_count(2, timeout=ANSWER_MS)
    expect(last_answer(browser_page).locator("details.source").first).to_contain_text("Dropout")
    expect(browser_page.locator("#why")).to_contain_text("Understood as")


def test_examples_ask_when_clicked_and_retry_answers_again(browser_page: Page, url: str) -> None:
    opened(browser_page, url)
    browser_page.get_by_text(EXAMPLES[1], exact=True).click()
    last_answer(browser_page)
    browser_page.get_by_label("Retry").last.click()
    expect(browser_page.locator("#chat .bot.message")).to_have_count(1)
    last_answer(browser_page)


def test_undo_gives_the_question_back_and_edit_asks_it_anew(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "What is an epoch?")
    last_answer(browser_page)
    browser_page.get_by_label("Undo").last.click()
    expect(browser_page.locator("#chat .bot.message")).to_have_count(0)
    expect(browser_page.get_by_label("Question")).to_have_value("What is an epoch?")
    send(browser_page, "What is an epoch?")
    last_answer(browser_page)
    browser_page.get_by_label("Edit").last.click()
    browser_page.locator("#chat textarea").fill("What is dropout?")
    browser_page.get_by_label("Submit").click()
    expect(browser_page.locator("#chat details.source").first).to_contain_text("Dropout", timeout=ANSWER_MS)
    expect(browser_page.locator("#chat .bot.message")).to_have_count(1)


def test_the_style_toggle_tells_the_same_facts_without_the_persona_and_back(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "What is overfitting?")
    answer = last_answer(browser_page)
    chips = answer.locator("a.chip").count()
    browser_page.get_by_label("Plain").check()
    expect(answer.locator(".line.plain")).to_be_visible()
    expect(answer.locator(".line.morty")).to_have_count(0)
    assert answer.locator("a.chip").count() == chips
    browser_page.get_by_label("Rick & Morty").check()
    expect(answer.locator(".line.rick")).to_be_visible()
    assert answer.locator("a.chip").count() == chips


def test_stop_ends_the_answer_and_the_next_question_is_answered(browser: Browser, gated: tuple[str, Gated]) -> None:
    url, model = gated
    tab = browser.new_page()
    opened(tab, url)
    model.gate.clear()
    send(tab, "What is overfitting?")
    tab.locator("#question .stop-button").click(timeout=ANSWER_MS)
    expect(tab.locator("#chat .bot.message").last).to_contain_text("Stopped.", timeout=ANSWER_MS)
    assert model.closed.is_set()
    model.gate.set()
    send(tab, "What is an epoch?")
    expect(last_answer(tab).locator("details.source").first).to_contain_text("Epoch")
    tab.close()


def test_a_closed_tab_stops_the_model(browser: Browser, gated: tuple[str, Gated]) -> None:
    url, model = gated
    tab = browser.new_page()
    opened(tab, url)
    model.gate.clear()
    model.started.clear()
    send(tab, "What is overfitting?")
    assert model.started.wait(ANSWER_MS / 1000)
    tab.close()
    assert model.closed.wait(ANSWER_MS / 1000)


def test_a_page_whose_server_is_killed_says_so_and_goes_on_when_it_is_back(browser: Browser) -> None:
    port = free_port()
    serve = [sys.executable, "-m", "jargon_rag", "serve", "--port", str(port)]
    tab = browser.new_page()
    with subprocess.Popen(serve) as server:
        try:
            wait_for(port)
            ask_in(tab, f"http://127.0.0.1:{port}/", "What is overfitting?")
            last_answer(tab)
        finally:
            server.kill()
    expect(tab.get_by_role("alert").get_by_text("The server is gone")).to_be_visible(timeout=ANSWER_MS)
    with subprocess.Popen(serve) as server:
        try:
            expect(tab.locator("#lost")).to_have_count(0, timeout=ANSWER_MS)
            expect(tab.locator(".state.ready")).to_be_visible(timeout=ANSWER_MS)
            send(tab, "What is an epoch?")
            expect(last_answer(tab).locator("details.source").first).to_contain_text("Epoch")
        finally:
            tab.close()
            server.kill()


def wait_for(port: int) -> None:
    """Wait until something listens."""
    for _ in range(ANSWER_MS // 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on {port}")


def test_a_link_asks_when_it_is_opened_and_can_be_copied(browser_page: Page, url: str) -> None:
    browser_page.goto(f"{url}?q=What%20is%20dropout%3F")
    expect(last_answer(browser_page).locator("details.source").first).to_contain_text("Dropout")
    browser_page.get_by_role("button", name="Copy link").click()
    assert browser_page.evaluate("navigator.clipboard.readText()") == f"{url}?q=What%20is%20dropout%3F"
    browser_page.get_by_role("button", name="Copy as Markdown").click()
    copied = browser_page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("> What is dropout")
    assert "[^1]:" in copied


def test_the_glossary_is_found_as_one_types_and_read_whole(browser_page: Page, url: str) -> None:
    opened(browser_page, url)
    browser_page.get_by_role("tab", name="Glossary").click()
    expect(browser_page.locator("#terms input").nth(100)).to_be_attached(timeout=ANSWER_MS)
    browser_page.get_by_label("Search the terms").fill("nucleus")
    expect(browser_page.locator("#terms label").first).to_contain_text("Top-p", timeout=ANSWER_MS)
    browser_page.locator("#terms label").first.click()
    expect(browser_page.locator("#reading h2")).to_have_text("Temperature / Top-p")
    browser_page.get_by_role("button", name="Ask about this").click()
    expect(last_answer(browser_page).locator("details.source").first).to_contain_text("Temperature / Top-p")


def test_a_dot_of_the_map_asks(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "Why does dropout help?")
    last_answer(browser_page)
    browser_page.get_by_role("tab", name="Map").click()
    expect(browser_page.locator("#map .js-plotly-plot")).to_be_visible(timeout=ANSWER_MS)
    expect(browser_page.locator("#map")).to_contain_text("your question")
    browser_page.wait_for_function("document.querySelector('#map .js-plotly-plot').dataset.heard === 'yes'")
    browser_page.evaluate(  # what Plotly says when a dot is clicked; dots lie too close together to aim at one
        "() => { const map = document.querySelector('#map .js-plotly-plot');"
        " map.emit('plotly_click', { points: [{ customdata: map.data[0].customdata[0] }] }); }"
    )
    expect(browser_page.locator("#chat .bot.message")).to_have_count(2, timeout=ANSWER_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(browser: Browser, url: str, scheme: Any) -> None:
    tab = browser.new_page(viewport={"width": 360, "height": 720}, color_scheme=scheme)
    ask_in(tab, url, "What is overfitting?")
    last_answer(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 364  # two pixels are rounding
    for name in ("Map", "Glossary"):
        tab.get_by_role("tab", name=name).click()
        tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 364  # two pixels are rounding
    tab.close()


def test_the_keyboard_alone_asks_and_opens_a_source(browser_page: Page, url: str) -> None:
    opened(browser_page, url)
    expect(browser_page.get_by_label("Question")).to_be_focused()
    browser_page.keyboard.type("What is overfitting?")
    browser_page.keyboard.press("Enter")
    answer = last_answer(browser_page)
    answer.locator("a.chip").first.focus()
    browser_page.keyboard.press("Enter")
    expect(answer.locator("details.source .entry").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_of_ours(browser: Browser, url: str, scheme: Any) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    ask_in(tab, url, "What is overfitting?")
    last_answer(tab).locator("details").first.locator("summary").click()
    found: set[str] = set()
    for name in ("Chat", "Map", "Glossary"):
        tab.get_by_role("tab", name=name).click()
        tab.wait_for_timeout(1500)
        violations = Axe().run(tab).response["violations"]
        found |= {
            f"{violation['id']}: {node['html'][:160]}"
            for violation in violations
            if violation["impact"] in ("serious", "critical") and violation["id"] not in GRADIO_S_OWN
            for node in violation["nodes"]
        }
    tab.close()
    assert found == set()


def test_thumbs_are_kept_only_where_the_host_names_a_file(
    browser: Browser, browser_page: Page, rag: JargonRAG, url: str, tmp_path: Path
) -> None:
    ask_in(browser_page, url, "What is an epoch?")
    last_answer(browser_page)
    expect(browser_page.get_by_label("Like", exact=True)).to_have_count(0)
    port, file = free_port(), tmp_path / "kept" / "thumbs.jsonl"
    page = launch(lambda _: rag, port=port, feedback=file, say=lambda _: None, wait=False)
    try:
        tab = browser.new_page()
        ask_in(tab, f"http://127.0.0.1:{port}/", "What is an epoch?")
        last_answer(tab)
        tab.get_by_label("Like", exact=True).first.click()
        tab.get_by_label("A word on your thumb").fill("funny")
        tab.keyboard.press("Enter")
        expect(tab.get_by_label("A word on your thumb")).to_have_count(0)
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        assert [row["liked"] for row in rows] == [True, True]
        assert rows[1]["word"] == "funny"
        assert rows[0]["question"] == "What is an epoch?"
        tab.close()
    finally:
        page.close()
    with pytest.raises(InputError, match="--feedback"):
        launch(lambda _: rag, port=free_port(), feedback=tmp_path, say=lambda _: None, wait=False)


def test_two_people_ask_at_once_and_each_gets_their_own_answer(browser: Browser, url: str) -> None:
    tabs = [browser.new_context().new_page() for _ in range(2)]
    for tab in tabs:
        opened(tab, url)
    for tab, question in zip(tabs, ("What is dropout?", "What is an epoch?"), strict=True):
        send(tab, question)
    for tab, term in zip(tabs, ("Dropout", "Epoch"), strict=True):
        expect(last_answer(tab).locator("details.source").first).to_contain_text(term)
        tab.close()


def test_the_ask_endpoint_returns_the_object_of_the_command_line(url: str) -> None:
    client = Client(url, verbose=False)
    record = client.predict("What is overfitting?", api_name="/ask")
    assert record["citations"][0]["term"] == "Overfitting"
    assert {"question", "refused", "answer", "sentences", "citations", "code", "suggestions", "timings"} <= set(record)
    plain = client.predict("What is overfitting?", [{"role": "user", "content": "hi"}], "plain", api_name="/ask")
    assert plain["sentences"][0]["speaker"] is None


def test_the_search_endpoint_ranks_entries(url: str) -> None:
    record = Client(url, verbose=False).predict("nucleus sampling", 3, api_name="/search")
    assert [row["rank"] for row in record["results"]] == [1, 2, 3]
    assert record["results"][0]["term"] == "Temperature / Top-p"


def test_the_page_and_its_endpoints_work_below_a_path_of_a_proxy(browser: Browser, url_below_a_path: str) -> None:
    strayed: list[str] = []
    tab = browser.new_page()  # a used one still asks for its old page
    tab.on(
        "request",
        lambda request: None if request.url.startswith((url_below_a_path, "data:")) else strayed.append(request.url),
    )
    ask_in(tab, url_below_a_path, "What is an epoch?")
    expect(tab.locator("#chat details.source").first).to_contain_text("Epoch", timeout=ANSWER_MS)
    tab.close()
    assert strayed == []
    record = Client(url_below_a_path, verbose=False).predict("What is overfitting?", api_name="/ask")
    assert record["citations"][0]["term"] == "Overfitting"


@pytest.mark.parametrize("question", ["", "x" * 200_000])
def test_the_ask_endpoint_explains_a_question_it_cannot_use(url: str, question: str) -> None:
    with pytest.raises(Exception, match="question"):
        Client(url, verbose=False).predict(question, api_name="/ask")


def test_the_page_is_up_before_the_models_are(rag: JargonRAG) -> None:
    release = threading.Event()

    def load_slowly(say: Callable[[str], None]) -> JargonRAG:
        say("Reading weights")
        release.wait(60)
        return rag

    port = free_port()
    page = launch(load_slowly, port=port, say=lambda _: None, wait=False)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
            assert response.status == 200
        waiting = Client(f"http://127.0.0.1:{port}/", verbose=False).submit("What is overfitting?", api_name="/ask")
        assert not waiting.done()
        release.set()
        assert waiting.result(timeout=60)["citations"]
    finally:
        release.set()
        page.close()


def test_a_load_that_fails_is_told_and_not_waited_for() -> None:
    def load(_: Callable[[str], None]) -> JargonRAG:
        raise WeightsError("No weights. Fetch them with: jargon-rag pull")

    loader = Loader(load)
    with pytest.raises(Exception, match="jargon"):
        loader.get()
    assert loader.done
    assert loader.failed
    assert "jargon-rag pull" in loader.note


def test_a_port_in_use_is_named(rag: JargonRAG) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=str(port)):
            launch(lambda _: rag, port=port, say=lambda _: None, wait=False)
