"""Configuration, command line, and the server with its files and headers."""

from __future__ import annotations

import asyncio
import re
import zipfile
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from crypto_dashboard.cli import main
from crypto_dashboard.config import ConfigError, load_config
from crypto_dashboard.server import find_uplot, make_app, uplot_files
from fake_lab import FakeDatabase, FakePrometheus, config

STATIC = resources.files("crypto_dashboard") / "static"
SMALL = '[server]\nuplot = "{uplot}"\n[postgres]\nhost = "postgres-1"\npassword_file = "/etc/password"\n'


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    """A WebJar as uPlot's is laid out."""
    path = tmp_path / "uplot-1.6.30.jar"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("uPlot.iife.min.js", "uPlot.min.css", "uPlot.esm.js"):
            archive.writestr(f"META-INF/resources/webjars/uplot/1.6.30/dist/{name}", f"/* {name} */")
    return path


def test_small_configuration(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.toml"
    path.write_text(SMALL.format(uplot=tmp_path))
    found = load_config(path)
    assert (found.server.port, found.postgres.user, found.prometheus.url) == (8050, "lab_reader", "")
    assert found.engine("flink").prices == "crypto_prices_flink"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("[server]\nport = 8050\n[postgres]\nhost='x'\npassword_file='y'", "server.uplot: is missing; add it"),
        (SMALL + "[prometheus]\nurl = 'ftp://x'", "prometheus.url: must be a URL that starts with http://"),
        (SMALL + "speed = 1", "postgres.speed: there is no such key"),
        ("symbols = ['BTC-USD', 'BTC-USD']\n" + SMALL, "each symbol may be named once"),
        (SMALL + "[engines.spark]\nprices = 'a; DROP b'\ncandles = 'c'", "engines.spark.prices: String should match"),
        (SMALL + "[engines.spark]\nprices = 'a'\ncandles = 'c'\nnodes = ['x\"']", "engines.spark.nodes.0: String"),
        ("[server", "is not valid TOML"),
    ],
)  # fmt: skip
def test_wrong_configuration_is_refused_in_words(
    tmp_path: Path, change: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dashboard.toml"
    path.write_text(change.replace("{uplot}", str(tmp_path)))
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_config(path)
    assert main(["check", "--config", str(path)]) == 2
    assert words in capsys.readouterr().err


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dashboard.toml"
    path.write_text(SMALL.format(uplot=tmp_path))
    assert main(["check", "--config", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: valid; port 8050, Prometheus none\n"
    # The folder has no jar: that is no matter of the file's, but of a start.
    assert main(["serve", "--config", str(path)]) == 2
    assert "has no uplot-*.jar" in capsys.readouterr().err


def test_uplot_is_found(jar: Path, tmp_path: Path) -> None:
    assert find_uplot(jar) == find_uplot(tmp_path) == jar
    assert uplot_files(jar) == {"/uplot.js": b"/* uPlot.iife.min.js */", "/uplot.css": b"/* uPlot.min.css */"}
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        find_uplot(tmp_path / "missing")
    jar.write_bytes(b"no zip")
    with pytest.raises(ConfigError, match=r"is no WebJar of uPlot"):
        uplot_files(jar)


def test_server(jar: Path) -> None:
    async def body() -> None:
        database = FakeDatabase()
        app = make_app(config(jar), database, FakePrometheus())
        async with TestClient(TestServer(app)) as client:
            for path, kind in (("/", "text/html"), ("/dashboard.css", "text/css"), ("/dashboard.js", "text/javascript"),
                               ("/uplot.js", "text/javascript"), ("/uplot.css", "text/css")):  # fmt: skip
                answer = await client.get(path)
                assert (answer.status, answer.content_type) == (200, kind)
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert 'data-symbols="BTC-USD ETH-USD' in await (await client.get("/")).text()
            assert await (await client.get("/healthz")).json() == {"ok": True}
            assert database.asked["rows"] == 0
            answer = await client.get("/api/state")
            assert answer.headers["Cache-Control"] == "no-store"
            assert (await answer.json())["headline"]["state"] == "ok"
            assert (await client.post("/api/state")).status == 405
            assert (await client.get("/etc/passwd")).status == 404

    asyncio.run(body())


class Page(HTMLParser):
    """What the page loads, and whose names its parts have."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.labelled: list[str] = []
        self.styles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag in {"link", "script", "img", "iframe"}:
            self.links.append(found.get("href") or found.get("src") or "")
        self.ids += [found["id"]] if "id" in found else []
        self.labelled += [found["aria-labelledby"]] if "aria-labelledby" in found else []
        self.styles += "style" in found or tag == "style"


def test_page_loads_nothing_from_elsewhere_and_has_names() -> None:
    page = Page()
    page.feed((STATIC / "index.html").read_text())
    assert [link for link in page.links if not link.startswith(("/", "data:"))] == []
    # The policy of the server would refuse them.
    assert page.styles == 0
    assert sorted(set(page.ids)) == sorted(page.ids)
    assert set(page.labelled) - set(page.ids) == set()
    for name in ("dashboard.js", "dashboard.css"):
        assert not re.search(r"https?://", (STATIC / name).read_text()), name


def luminance(colour: str) -> float:
    """Return the relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_at_least_aa(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (STATIC / "dashboard.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", blocks[scheme]))
    pairs = [(ink, paper) for ink in ("ink", "soft", "good", "bad", "warn", "spark", "flink")
             for paper in ("paper", "card")]  # fmt: skip
    pairs += [("ink", "bad-tint"), ("bad", "bad-tint"), ("ink", "warn-tint"), ("warn", "warn-tint")]
    for ink, paper in pairs:
        low, high = sorted((luminance(colours[ink]), luminance(colours[paper])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{ink} on {paper}"
