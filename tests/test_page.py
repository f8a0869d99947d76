"""The web chat in a real browser with the real models, and its endpoints with real clients."""

from __future__ import annotations

import http.client
import shutil
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from gradio_client import Client
from playwright.sync_api import Page, expect, sync_playwright

from jargon_rag.errors import InputError, WeightsError
from jargon_rag.rag import JargonRAG
from jargon_rag.ui.page import EXAMPLES, Loader, launch

ANSWER_MS = 120_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def url(rag: JargonRAG) -> Iterator[str]:
    port = free_port()
    page = launch(lambda _: rag, port=port, say=lambda _: None, wait=False)
    yield f"http://127.0.0.1:{port}/"
    page.close()


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    chromium = shutil.which("chromium")
    assert chromium, "The browser tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


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


def ask_in(page: Page, url: str, question: str) -> None:
    page.goto(url)
    expect(page.locator(".state.ready")).to_be_visible(timeout=ANSWER_MS)
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")


def test_a_question_in_the_browser_gets_a_cited_dialogue_with_numbered_sources(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "What is overfitting?")
    answer = browser_page.locator("#chat .bot.message").last
    expect(answer).to_contain_text("Rick:", timeout=ANSWER_MS)
    expect(answer.locator("a[href='#source-1']").first).to_have_text("[1]", timeout=ANSWER_MS)
    source = browser_page.locator("#source-1")
    expect(source).to_contain_text("[1] Overfitting", timeout=ANSWER_MS)
    quoted = source.locator("mark").first.inner_text()
    assert quoted
    assert quoted in answer.inner_text().replace("\n", " ")


def test_a_question_outside_the_glossary_is_refused_with_the_nearest_terms(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "What is the best pizza in town?")
    expect(browser_page.locator("#sources")).to_contain_text("Nearest terms", timeout=ANSWER_MS)
    expect(browser_page.locator("#chat .bot.message").last).not_to_contain_text("[1]")


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
    expect(browser_page.locator("#chat .bot.message").last).to_contain_text("Rick:", timeout=ANSWER_MS)
    assert browser_page.evaluate("window.hacked") is None
    assert browser_page.locator("#chat a[href^='javascript']").count() == 0


def test_the_page_asks_nothing_of_other_hosts(browser_page: Page, url: str) -> None:
    asked: list[str] = []
    browser_page.on("request", lambda request: asked.append(request.url))
    ask_in(browser_page, url, "What is an epoch?")
    expect(browser_page.locator("#source-1")).to_be_visible(timeout=ANSWER_MS)
    assert asked
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []


def test_a_follow_up_is_understood_from_the_conversation(browser_page: Page, url: str) -> None:
    ask_in(browser_page, url, "What is dropout?")
    expect(browser_page.locator("#source-1")).to_contain_text("Dropout", timeout=ANSWER_MS)
    expect(browser_page.locator("#chat .bot.message")).to_have_count(1)
    box = browser_page.get_by_label("Question")
    expect(box).to_be_enabled()
    box.fill("And when is it off?")
    browser_page.keyboard.press("Enter")
    expect(browser_page.locator("#chat .bot.message").nth(1)).to_contain_text("Rick:", timeout=ANSWER_MS)
    expect(browser_page.locator("#source-1")).to_contain_text("Dropout", timeout=ANSWER_MS)


def test_examples_ask_when_clicked_and_retry_answers_again(browser_page: Page, url: str) -> None:
    browser_page.goto(url)
    expect(browser_page.locator(".state.ready")).to_be_visible(timeout=ANSWER_MS)
    browser_page.get_by_text(EXAMPLES[1], exact=True).click()
    expect(browser_page.locator("#source-1")).to_contain_text("Dropout", timeout=ANSWER_MS)
    browser_page.get_by_label("Retry").last.click()
    expect(browser_page.locator("#chat .bot.message")).to_have_count(1)
    expect(browser_page.locator("#chat .bot.message").last).to_contain_text("[1]", timeout=ANSWER_MS)


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


def test_the_page_and_its_endpoints_work_below_a_path_of_a_proxy(browser_page: Page, url_below_a_path: str) -> None:
    strayed: list[str] = []
    browser_page.on(
        "request",
        lambda request: None if request.url.startswith((url_below_a_path, "data:")) else strayed.append(request.url),
    )
    ask_in(browser_page, url_below_a_path, "What is an epoch?")
    expect(browser_page.locator("#source-1")).to_contain_text("Epoch", timeout=ANSWER_MS)
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
