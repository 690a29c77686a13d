"""The tab "WebSocket" of Locust's web UI, in a real browser: it is there, and its numbers are those of the server."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.chromium import CHROMIUM, Page, page
from tests.support import SCALE, eventually, unused_port

from .conftest import Server
from .running import LocustProcess
from .section import Section

pytestmark = [pytest.mark.once, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")]

Start = Callable[..., LocustProcess]

LINES = [
    ["Time", "Users", "Open", "Connecting", "Reconnecting"],
    ["Time", "In", "Out"],
    ["Time", "Connects", "Recoveries", "Closes 1000"],
    ["Time", "Queue wait", "Hub lag"],
]
GREEN, BLUE = "#00ca5a", "#0099ff"

SOURCE = """
class Echo(AsyncWebSocketUser):
    wait_time = constant(1000)

    @task
    async def echo(self):
        async with self.ws.connect("/echo") as connection:
            await connection.send("first")
            await connection.recv()
        self.stays = await self.ws.connect("/echo")
        for _ in range(20):
            await self.stays.send("x")
            await self.stays.recv()
"""
WITH_LOGIN = """
from flask import redirect
from flask_login import UserMixin, login_user

class Somebody(UserMixin):
    id = "somebody"

@events.init.add_listener
def others(environment, web_ui, **_):
    web_ui.app.secret_key = "of the test"
    web_ui.login_manager.user_loader(lambda _: Somebody())
    web_ui.app.add_url_rule("/behind/proxy/enter", "enter", lambda: login_user(Somebody()) and redirect("."))
    # As Locust's documentation does it for a tab of one's own, without looking for those of others.
    web_ui.template_args["extended_tabs"] = [{"key": "theirs", "title": "Theirs"}]
    web_ui.template_args["extended_tables"] = [{"key": "theirs", "structure": [{"key": "of", "title": "Of theirs"}]}]
"""


def web_ui(start: Start, source: str, *arguments: str) -> str:
    """Start a Locust with a web UI, which begins by itself; returns the UI's address, without a path."""
    port = str(unused_port())
    options = "--autostart --users 4 --spawn-rate 4 --web-host 127.0.0.1 --web-port"
    start(source, *options.split(), port, *arguments)
    return f"http://127.0.0.1:{port}"


def until_up(address: str) -> None:
    def answers() -> bool:
        try:
            with urllib.request.urlopen(address, timeout=10 * SCALE):
                return True
        except OSError:
            return False

    eventually(answers, seconds=30)


def looking(check: Callable[[Page], object], folder: Path) -> None:
    """Check in a browser, which logs no error meanwhile."""

    async def look() -> None:
        async with page(folder) as seen:
            await seen.look(1280, 800)
            await check(seen)  # type: ignore[misc]
            assert seen.errors() == []

    asyncio.run(look())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_tab_shows_what_the_server_counts(start: Start, server: Server, tmp_path: Path, workers: int) -> None:
    master = unused_port()
    of_master = ["--master", "--expect-workers", str(workers), "--master-bind-port", str(master)]
    address = web_ui(start, SOURCE, *(of_master if workers else ()))
    for _ in range(workers):
        start(SOURCE, "--worker", "--master-port", str(master))
    until_up(address)

    async def check(seen: Page) -> None:
        await seen.go(f"{address}/?tab=websocket")
        section = Section(seen)
        await section.until(Users=4, Open=4, Opened=8, Closes="1000: 4", Messages_in=84, Messages_out=84)
        counts = server.counts_so_far()
        assert (server.open(), counts["opened"], counts["closes"]) == (4, 8, {"1000": 4})
        assert (counts["messages_out"], counts["messages_in"]) == (84, 84)
        table = await section.table()
        assert len(table) == (workers or 1) + 1
        assert sum(int(row["Messages in"]) for worker, row in table.items() if worker != "Total") == 84

        async def lines() -> dict[str, str] | None:
            """What the first legend says, once each chart has its lines."""
            legends = await section.legends()
            return legends[0] if [list(legend) for legend in legends] == LINES else None

        async def all_open() -> bool:
            return {"Users": "4", "Open": "4"}.items() <= (await lines() or {}).items()

        await seen.eventually(all_open)
        connections, messages, *_ = await section.colours()
        assert connections[GREEN] > 50 and messages[BLUE] > 50

        # Stopped, reset, and once more: by the buttons of the page, and seen without loading it again.
        await seen.click("button", "Stop")
        await section.until(Users=0, Open=0, Closes="1000: 8")
        assert server.open() == 0
        await seen.click("button", "Reset")
        await section.until(Opened=0, Closes="", Messages_in=0)
        await seen.until("document.querySelector('.websocket-note').textContent")
        swarm = "fetch('./swarm', {method: 'POST', body: new URLSearchParams({user_count: 2, spawn_rate: 2})})"
        assert await seen.js(f"{swarm}.then(answer => answer.ok)")
        await section.until(Users=2, Open=2, Opened=4, Closes="1000: 2", Messages_in=42)
        await seen.go(f"{address}/stats/report?theme=dark")
        await section.until(Opened=4, Closes="1000: 2", Messages_in=42)
        assert await seen.js("document.querySelector('.websocket').dataset.theme") == "dark"
        assert (await section.colours())[0][GREEN] > 50
        assert {url.removeprefix(address)[0] for url in seen.loaded_from() if not url.startswith("data:")} == {"/"}

    looking(check, tmp_path)


def test_the_tab_behind_a_login_and_a_base_path_and_beside_the_tab_of_another(start: Start, tmp_path: Path) -> None:
    address = web_ui(start, SOURCE + WITH_LOGIN, "--web-login", "--web-base-path", "/behind/proxy") + "/behind/proxy"
    until_up(f"{address}/login")
    for path in ("websocket/stats", "websocket/history"):
        with urllib.request.urlopen(f"{address}/{path}", timeout=10 * SCALE) as answer:
            assert answer.url.startswith(f"{address}/login")
    with urllib.request.urlopen(f"{address}/", timeout=10 * SCALE) as answer:
        assert "websocket/assets" not in answer.read().decode()

    async def check(seen: Page) -> None:
        section = Section(seen)
        await seen.go(f"{address}/enter")
        await seen.until("document.querySelector('[role=tab]') !== null")
        assert not await section.shown()
        await seen.click("[role=tab]", "WebSocket")
        await section.until(Open=4, Messages_in=84)
        await seen.click("[role=tab]", "Theirs")
        await seen.until("document.body.innerText.includes('Of theirs')")
        assert not await section.shown()
        await seen.js("window.history.back()")  # which changes the address, and which Locust does not follow
        assert not await section.shown()
        await seen.click("[role=tab]", "WebSocket")
        await section.until(Open=4, Messages_in=84)
        assert "Of theirs" not in await seen.text()
        await seen.click("[role=tab]", "Charts")
        await seen.until("document.querySelector('canvas') !== null")
        assert not await section.shown()

    looking(check, tmp_path)


def test_it_follows_the_colours_of_the_page_and_a_span_that_is_selected(start: Start, tmp_path: Path) -> None:
    address = web_ui(start, SOURCE)
    until_up(address)

    async def check(seen: Page) -> None:
        section = Section(seen)
        await seen.go(f"{address}/?tab=websocket")
        await section.until(Open=4)
        theme = "document.querySelector('.websocket').dataset.theme"
        assert await seen.js(theme) == "light"
        await seen.js("[...document.querySelectorAll('header button')].at(-1).click()")  # the sun, or the moon
        await seen.until(f"{theme} === 'dark'")

        left, top, width, height = await seen.js(
            "(({x, y, width, height}) => [x, y, width, height])"
            "(document.querySelector('.websocket .u-over').getBoundingClientRect())"
        )

        async def time_at(share: float) -> datetime:
            """What all legends say is the time there."""
            await seen.mouse("mouseMoved", left + share * width, top + height / 2)
            (time,) = {legend["Time"] for legend in await section.legends()}
            return datetime.strptime(time.replace("\u202f", " "), "%I:%M:%S %p")

        async def long_enough() -> bool:
            return await time_at(0.99) - await time_at(0.01) >= timedelta(seconds=6)

        await seen.eventually(long_enough)
        end = await time_at(0.99)
        for kind, share in (("mouseMoved", 0.2), ("mousePressed", 0.2), ("mouseMoved", 0.6), ("mouseReleased", 0.6)):
            await seen.mouse(kind, left + share * width, top + height / 2)
        assert await time_at(0.99) < end
        await seen.js("document.querySelector('.websocket .u-over').dispatchEvent(new MouseEvent('dblclick'))")
        assert await time_at(0.99) >= end

    looking(check, tmp_path)
