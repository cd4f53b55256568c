"""A report of hostile snapshots runs no script and fetches nothing in a real browser."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.hostile_html import ATTACKS
from fakes.hostile_text import CUT, SAMPLE, name, named, payload
from fakes.saved_snapshots import hostile
from quantchat.document.html import html
from quantchat.report.content import content

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed here")

RAN = "data-ran"
"""The attribute that each attack gives to the page's root, if it runs."""

SCRIPT = f"document.documentElement.setAttribute('{RAN}','yes')"


@dataclass
class Server:
    """Listens on this machine's loopback and writes down what is asked of it."""

    asked: list[str] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    noted = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            noted.asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            """Prints nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        noted.address = f"http://127.0.0.1:{serving.server_port}"
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield noted
        serving.shutdown()


def opened(page: bytes, folder: Path) -> str:
    """The document as the browser has it once it has loaded `page`."""
    file = folder / "page.html"
    file.write_bytes(page)
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--no-first-run", "--no-proxy-server", f"--user-data-dir={folder / 'browser'}",
            "--virtual-time-budget=3000", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, check=True, timeout=180, encoding="utf-8",
    )  # fmt: skip
    return done.stdout


def attacks(server: Server) -> list[str]:
    return [attack.format(script=SCRIPT, server=server.address) for attack in ATTACKS]


def test_no_script_runs_and_nothing_is_fetched(server: Server, tmp_path: Path) -> None:
    told = attacks(server)
    told.append(" ".join(payload(number) for number in SAMPLE).replace(CUT, ""))
    page = html(content([(f"{one}.json", hostile(one)) for one in told]))
    document = opened(page, tmp_path)
    assert f"{RAN}=" not in document.partition("<head")[0]
    assert not server.asked
    assert document.count("<article") == len(told) + 1  # to its end, with the terms
    assert named(document) >= {name(number) for number in SAMPLE}


def test_the_browser_would_have_told(server: Server, tmp_path: Path) -> None:
    # The same attacks, not escaped: what the test above looks for is what happens then.
    staying = [attack for attack in attacks(server) if "refresh" not in attack]
    page = "<html><head></head><body>" + "".join(staying[2:]) + "</body></html>"
    document = opened(page.encode(), tmp_path)
    assert f'{RAN}="yes"' in document.partition("<head")[0]
    assert server.asked
