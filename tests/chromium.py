"""A real headless Chromium, driven by the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import websockets

from tests.support import SCALE

__all__ = ["CHROMIUM", "DevTools", "Page", "browser", "page"]

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0"
)


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[str]:
    """A Chromium with an empty profile; gives the address of its DevTools."""
    command = [str(CHROMIUM), *_OPTIONS.split(), f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = folder / "profile" / "DevToolsActivePort"
        while not (port.exists() and len(lines := port.read_text().splitlines()) == 2):
            assert process.poll() is None, "Chromium ended by itself"
            await asyncio.sleep(0.05)
        yield f"ws://127.0.0.1:{lines[0]}{lines[1]}"
    finally:
        process.terminate()
        process.wait()


class DevTools:
    """A connection to DevTools: calls, and the events of one domain in their order."""

    def __init__(self, socket: Any) -> None:
        self.session: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        """Those of the network, without their domain, and what a page has thrown or logged as an error."""
        self.loaded = asyncio.Event()
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = len(self._answers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        request: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self.session is not None:
            request["sessionId"] = self.session
        await self._socket.send(json.dumps(request))
        return await answer

    async def attach(self) -> None:
        """Open a page, which the calls that follow are about."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        await self.call("Page.enable")

    async def go(self, url: str) -> None:
        """Load this page, to its end."""
        self.loaded.clear()
        await self.call("Page.navigate", url=url)
        await self.loaded.wait()

    async def read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                answer = self._answers[message["id"]]
                if "error" in message:
                    answer.set_exception(RuntimeError(message["error"]["message"]))
                else:
                    answer.set_result(message["result"])
            elif message["method"] == "Page.loadEventFired":
                self.loaded.set()
            elif message["method"].startswith("Network."):
                self.events.append((message["method"].removeprefix("Network."), message["params"]))
            elif message["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.events.append((message["method"], message["params"]))


class Page:
    """A page, as somebody who looks at it and clicks."""

    def __init__(self, devtools: DevTools) -> None:
        self.devtools = devtools

    async def go(self, url: str) -> None:
        """Load this page, to its end."""
        await self.devtools.go(url)

    async def js(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        result = await self.devtools.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until the expression is true, and return its value."""
        return await self.eventually(lambda: self.js(expression), expression)

    async def eventually(self, condition: Callable[[], Awaitable[Any]], told: object = None) -> Any:
        """Wait until the condition holds, and return what it gave."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 30 * SCALE
        while not (value := await condition()):
            assert loop.time() < deadline, f"not within {30 * SCALE} s: {told or condition}\n{await self.text()}"
            await self.pause()
        return value

    async def pause(self) -> None:
        """Let the page, and those whom it waits for, go on, before one looks again."""
        await asyncio.sleep(0.1)

    async def click(self, selector: str, text: str) -> None:
        """Click the element that says this, as soon as there is one."""
        say = f"element.textContent.trim().toLowerCase() === {json.dumps(text.lower())}"
        found = f"[...document.querySelectorAll({json.dumps(selector)})].find(element => {say})"
        await self.until(f"{found} !== undefined")
        await self.js(f"{found}.click()")

    async def mouse(self, kind: str, x: float, y: float) -> None:
        """Move the mouse there, or press or release its left button there: DevTools' ``Input.dispatchMouseEvent``."""
        button = {"button": "left", "buttons": int(kind != "mouseReleased"), "clickCount": 1}
        await self.devtools.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    async def text(self) -> str:
        """What the page says."""
        return str(await self.js("document.body.innerText"))

    async def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window, in pixels, and whether the system prefers dark pages."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.devtools.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.devtools.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path: Path) -> None:
        """Write a PNG of the window."""
        shot = await self.devtools.call("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(shot["data"]))

    def errors(self) -> list[str]:
        """What scripts have thrown so far, and what the browser has logged as errors."""
        thrown = [event["exceptionDetails"] for name, event in self.devtools.events if name.endswith("exceptionThrown")]
        logged = [event["entry"] for name, event in self.devtools.events if name.endswith("entryAdded")]
        return [
            *(details.get("exception", {}).get("description", details["text"]) for details in thrown),
            *(f"{entry['text']} {entry.get('url', '')}" for entry in logged if entry["level"] == "error"),
        ]

    def loaded_from(self) -> list[str]:
        """The addresses that were asked for, in order."""
        return [event["request"]["url"] for name, event in self.devtools.events if name == "requestWillBeSent"]


@contextlib.asynccontextmanager
async def page(folder: Path) -> AsyncIterator[Page]:
    """A page of a Chromium of its own."""
    async with browser(folder) as address, websockets.connect(address, max_size=None) as socket:
        devtools = DevTools(socket)
        reading = asyncio.create_task(devtools.read())
        try:
            await devtools.attach()
            for domain in ("Network", "Runtime", "Log"):
                await devtools.call(f"{domain}.enable")
            yield Page(devtools)
        finally:
            reading.cancel()
