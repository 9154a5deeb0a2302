"""Configuration, command line, and the pages over a fake cluster."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from crypto_kafka_ui.cli import main
from crypto_kafka_ui.collector import RETRY_S, BusyError, Collector
from crypto_kafka_ui.config import ConfigError, LimitsConfig, load_config
from crypto_kafka_ui.readings import Cluster, SourceError
from crypto_kafka_ui.server import make_app
from fake_kafka import CLUSTER, HOSTILE, TOPIC, FakeKafka, config

Client = TestClient[web.Request, web.Application]

CSS = resources.files("crypto_kafka_ui") / "static" / "kafka_ui.css"
SMALL = '[kafka]\nbootstrap_servers = ["kafka-1:9092"]\n'
PAGES = ("/", f"/topics/{TOPIC}", f"/topics/{TOPIC}/0/499", "/groups/crypto-prices-flink", "/groups/idle",
         "/groups/team%2Freaders%20%26%20co", "/topics/missing", "/groups/missing", f"/topics/{TOPIC}?at=x",
         f"/topics/{TOPIC}/0/9999", f"/topics/{TOPIC}/0/3")  # fmt: skip


def with_client(
    body: Callable[[Client, FakeKafka], Awaitable[None]], source: FakeKafka | None = None, **limits: float
) -> FakeKafka:
    """Run a test with a client of a server over a fake cluster."""
    source = source or FakeKafka()

    async def run() -> None:
        async with TestClient(TestServer(make_app(config(**limits), source))) as client:
            await body(client, source)

    asyncio.run(run())
    return source


def test_small_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kafka_ui.toml"
    path.write_text(SMALL)
    assert load_config(path).server.port == 8000
    assert main(["check", "--config", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: valid; port 8000, Kafka kafka-1:9092\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nport = 1\n", "kafka: is missing; add it"),
        (SMALL + "speed = 1", "kafka.speed: there is no such key"),
        ('[kafka]\nbootstrap_servers = ["kafka-1"]', "kafka.bootstrap_servers.0: String should match"),
        ("[kafka]\nbootstrap_servers = []", "kafka.bootstrap_servers: List should have at least 1 item"),
        (SMALL + "[server]\nport = 70000", "server.port: Input should be less"),
        (SMALL + "[limits]\nmax_messages = 100000", "limits.max_messages: Input should be less"),
        ("[kafka", "is not valid TOML"),
    ],
)
def test_wrong_configuration_is_refused_in_words(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kafka_ui.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_config(path)
    assert main(["serve", "--config", str(path)]) == 2
    assert words in capsys.readouterr().err


def test_cluster_page() -> None:
    async def body(client: Client, _source: FakeKafka) -> None:
        text = await (await client.get("/")).text()
        assert 'data-topic="crypto_prices"' in text
        assert '<span class="state down">' in text
        assert '<a href="/groups/team%2Freaders%20%26%20co">team/readers &amp; co</a>' in text
        assert "1 of Kafka's own" in text
        assert re.search(r'data-group="crypto-prices-flink".*?data-field="lag">60<', text, re.DOTALL)

    with_client(body)


def test_topic_page_shows_partitions_groups_settings_and_messages() -> None:
    async def body(client: Client, source: FakeKafka) -> None:
        text = await (await client.get(f"/topics/{TOPIC}?count=3")).text()
        assert text.count("data-partition=") == 3
        assert 'data-field="end">500<' in text
        assert "retention.ms=604800000" in text
        assert 'data-group="crypto-prices-flink"' in text
        assert source.wanted == [{0: (497, 500), 1: (0, 0)}]
        # The newest first.
        assert text.index("0/499") < text.index("0/498")
        # What a message says stays text (offset 497 is a multiple of 7).
        assert "<script" not in text
        assert "&lt;script&gt;" in text

    with_client(body)


def test_neighbours_of_a_page_of_messages() -> None:
    async def body(client: Client, _source: FakeKafka) -> None:
        text = await (await client.get(f"/topics/{TOPIC}?partition=0&at=offset&offset=104&count=10")).text()
        # Four are left before: no more are asked for.
        assert "?count=4&amp;at=offset&amp;partition=0&amp;offset=100#messages" in text
        assert "?count=10&amp;at=offset&amp;partition=0&amp;offset=114#messages" in text
        text = await (await client.get(f"/topics/{TOPIC}?partition=0&at=oldest")).text()
        assert "the ones before" not in text
        text = await (await client.get(f"/topics/{TOPIC}?partition=0")).text()
        assert "the ones after" not in text
        assert "the ones before" in text

    with_client(body)


def test_message_page() -> None:
    async def body(client: Client, source: FakeKafka) -> None:
        text = await (await client.get(f"/topics/{TOPIC}/0/499")).text()
        assert "0/499" in text
        assert "2026-11-26 01:04:25.677" in text
        assert f"/topics/{TOPIC}/0/498" in text
        assert f"/topics/{TOPIC}/0/500" not in text
        assert source.wanted == [{0: (499, 500)}]
        assert HOSTILE not in await (await client.get(f"/topics/{TOPIC}/0/490")).text()
        for gone in ("0/99", "0/500", "2/0", "1/0"):
            assert (await client.get(f"/topics/{TOPIC}/{gone}")).status == 404
        assert (await client.get(f"/topics/{TOPIC}/7/0")).status == 400
        # Only what is there is asked for.
        assert len(source.wanted) == 2

    with_client(body)


def test_time_is_asked_of_the_brokers() -> None:
    async def body(client: Client, source: FakeKafka) -> None:
        answer = await client.get(f"/topics/{TOPIC}?at=time&time=2026-11-26T01:04:25.478")
        assert answer.status == 200
        assert source.wanted == [{0: (300, 350), 1: (0, 0)}]

    with_client(body)


def test_api_says_the_same() -> None:
    async def body(client: Client, _source: FakeKafka) -> None:
        cluster = (await (await client.get("/api/cluster")).json())["cluster"]
        assert [topic["name"] for topic in cluster["topics"]] == [topic.name for topic in CLUSTER.topics]
        group = (await (await client.get("/api/groups/crypto-prices-flink")).json())["group"]
        assert (group["lag"], [part["lag"] for part in group["partitions"]]) == (60, [60, None, None])
        found = await (await client.get(f"/api/topics/{TOPIC}?count=2")).json()
        assert [message["offset"] for message in found["messages"]] == [499, 498]
        assert "cluster" not in found
        answer = await client.get("/api/topics/missing")
        assert (answer.status, await answer.json()) == (404, {"error": "There is no topic missing."})

    with_client(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_nothing_but_looking(method: str) -> None:
    async def body(client: Client, source: FakeKafka) -> None:
        for path in (*PAGES, "/api/cluster", f"/api/topics/{TOPIC}", "/nowhere"):
            answer = await client.request(method, path)
            assert answer.status == 405, path
            assert answer.headers["Allow"] == "GET,HEAD"
        assert source.asked.total() == 0

    with_client(body)


def test_headers_let_nothing_run() -> None:
    async def body(client: Client, _source: FakeKafka) -> None:
        for path in (*PAGES, "/kafka_ui.css", "/healthz", "/nowhere"):
            policy = (await client.get(path)).headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'self'"), path
            assert "script-src" not in policy

    with_client(body)


def test_healthz_asks_nobody() -> None:
    async def body(client: Client, source: FakeKafka) -> None:
        assert await (await client.get("/healthz")).json() == {"ok": True}
        assert source.asked.total() == 0

    assert with_client(body).asked["close"] == 1


def test_kafka_that_is_away_is_said_and_left_alone() -> None:
    async def body(client: Client, source: FakeKafka) -> None:
        source.away = "KafkaTimeoutError: <nobody>"
        for _ in range(3):
            answer = await client.get("/")
            assert answer.status == 503
            assert "KafkaTimeoutError: &lt;nobody&gt;" in await answer.text()
        assert source.asked["cluster"] == 1
        assert (await client.get("/api/cluster")).status == 503

    with_client(body)


def test_note_of_a_reading_is_shown() -> None:
    async def body(client: Client, source: FakeKafka) -> None:
        source.note = "Not all were read: Kafka was asked for 5 s."
        assert source.note in await (await client.get(f"/topics/{TOPIC}")).text()

    with_client(body)


def test_refreshing_is_switched_by_a_link() -> None:
    async def body(client: Client, _source: FakeKafka) -> None:
        text = await (await client.get(f"/topics/{TOPIC}?count=2")).text()
        assert "http-equiv" not in text
        assert f'href="/topics/{TOPIC}?count=2&amp;refresh=on"' in text
        text = await (await client.get(f"/topics/{TOPIC}?count=2&refresh=on")).text()
        assert '<meta http-equiv="refresh" content="5">' in text
        assert f'href="/topics/{TOPIC}?count=2"' in text

    with_client(body)


def test_one_answer_for_all_within_a_moment() -> None:
    now_s = 100.0

    async def body() -> None:
        nonlocal now_s
        source = FakeKafka()
        collector = Collector(source, LimitsConfig(refresh_s=2), lambda: now_s)
        assert await asyncio.gather(*(collector.cluster() for _ in range(5))) == [CLUSTER] * 5
        assert source.asked["cluster"] == 1
        now_s += 2.1
        source.away = "gone"
        with pytest.raises(SourceError, match="gone"):
            await collector.cluster()
        source.away = ""
        # The failed answer stands for a moment, and what was known before does not.
        with pytest.raises(SourceError, match="gone"):
            await collector.cluster()
        now_s += RETRY_S
        assert await collector.cluster() == CLUSTER
        await collector.close()

    asyncio.run(body())


def test_those_who_are_too_many_are_sent_away() -> None:
    async def body() -> None:
        gate = threading.Event()
        collector = Collector(FakeKafka(), LimitsConfig(waiting=2))

        def slow(_source: object) -> str:
            gate.wait(20)
            return "answered"

        waiting = [asyncio.create_task(collector.ask(slow)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="2 questions wait"):
            await collector.ask(slow)
        gate.set()
        assert await asyncio.gather(*waiting) == ["answered"] * 2
        assert await collector.ask(slow) == "answered"
        await collector.close()

    asyncio.run(body())


def test_busy_is_an_answer_too() -> None:
    class Slow(FakeKafka):
        def cluster(self) -> Cluster:
            gate.wait(20)
            return super().cluster()

    gate = threading.Event()

    async def body(client: Client, _source: FakeKafka) -> None:
        first = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0.2)
        # The second waits for the first one's answer, and asks nothing of its own.
        second = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0.2)
        gate.set()
        assert [(await answer).status for answer in (first, second)] == [200, 200]

    assert with_client(body, Slow(), waiting=1).asked["cluster"] == 1


class Page(HTMLParser):
    """What a page loads, what it labels, and the ids of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.fields = self.labels = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag in {"link", "script", "img", "iframe"}:
            self.loads.append(found.get("href") or found.get("src") or "")
        self.ids += [found["id"]] if "id" in found else []
        self.inline += [name for name in found if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag in {"script", "style"} else []
        self.fields += tag in {"input", "select"}
        self.labels += tag == "label"


def test_pages_load_nothing_from_elsewhere_and_have_names() -> None:
    async def body(client: Client, _source: FakeKafka) -> None:
        for path in PAGES:
            answer = await client.get(path)
            assert answer.content_type == "text/html", path
            text = await answer.text()
            page = Page()
            page.feed(text)
            assert page.loads == ["/kafka_ui.css", "data:,"], path
            # The server's policy would refuse them.
            assert page.inline == [], path
            assert sorted(set(page.ids)) == sorted(page.ids), path
            assert page.fields == page.labels, path
            assert "<title>" in text

    with_client(body)


def luminance(colour: str) -> float:
    """Return the relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_at_least_aa(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", blocks[scheme]))
    pairs = [(ink, paper) for ink in ("ink", "soft", "good", "bad", "warn", "link") for paper in ("paper", "card")]
    for ink, paper in [*pairs, ("ink", "bad-tint")]:
        low, high = sorted((luminance(colours[ink]), luminance(colours[paper])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{ink} on {paper}"
