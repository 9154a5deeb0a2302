"""`make ui` and `make ui-stop`: the lab's web pages on this machine's own ports, and gone from there again."""

from __future__ import annotations

import re
import urllib.request

from live_lab import Lab, screen


def test_every_page_is_brought_here_and_taken_away(lab: Lab) -> None:
    served = screen.served_pages(lab.inventory, screen.service_states(lab.context, lab.inventory))
    try:
        opened = lab.make("ui")
        assert opened.returncode == 0, opened.stdout + opened.stderr
        ports = dict(re.findall(r"^  (\S.*?) +http://localhost:(\d+)", opened.stdout, re.MULTILINE))
        assert ports.keys() == {page.name for page in served}
        for port in ports.values():
            with urllib.request.urlopen(f"http://localhost:{port}/", timeout=30 * lab.patience) as page:
                assert "<html" in page.read().decode().lower(), port
        assert lab.make("ui").stdout == opened.stdout
    finally:
        closed = lab.make("ui-stop")
    assert f"closed {len({page.node for page in served})} connections" in closed.stdout
    assert [port for port in ports.values() if not screen.ui.is_free(int(port))] == []
