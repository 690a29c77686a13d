"""Records what a page does in a real headless Chromium, by the DevTools protocol, as the HAR that its export writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import websockets

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0"
)


def record(page: str, script: str, folder: Path, *, seconds: float) -> dict[str, Any]:
    """
    Open the page, run the script in it, and give the HAR of everything since.

    Args:
        script: JavaScript, the body of an async function.
        seconds: how long to wait, for the browser and for the script.
    """
    return asyncio.run(asyncio.wait_for(_record(page, script, folder), seconds))


async def _record(page: str, script: str, folder: Path) -> dict[str, Any]:
    async with _browser(folder) as address, websockets.connect(address, max_size=None) as socket:
        devtools = _DevTools(socket)
        reading = asyncio.create_task(devtools.read())
        try:
            target = await devtools.call("Target.createTarget", url="about:blank")
            attached = await devtools.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            devtools.session = attached["sessionId"]
            await devtools.call("Page.enable")
            await devtools.call("Page.navigate", url=page)
            await devtools.loaded.wait()
            await devtools.call("Network.enable")
            result = await devtools.call(
                "Runtime.evaluate", expression=f"(async () => {{ {script} }})()", awaitPromise=True
            )
            assert "exceptionDetails" not in result, result
            return await _as_har(devtools)
        finally:
            reading.cancel()


@contextlib.asynccontextmanager
async def _browser(folder: Path) -> AsyncIterator[str]:
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


class _DevTools:
    """A connection to DevTools: calls, and the events of the network in their order."""

    def __init__(self, socket: Any) -> None:
        self.session: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
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


async def _as_har(devtools: _DevTools) -> dict[str, Any]:
    """As Chrome's own export does it, with cookies ("HAR with sensitive data")."""
    entries: dict[str, dict[str, Any]] = {}
    offsets: dict[str, float] = {}  # from the clock of the events to that of the wall

    def entry(event: dict[str, Any]) -> dict[str, Any]:
        empty = {"request": {"headers": {}}, "response": {"headers": {}, "status": 0}}
        return entries.setdefault(event["requestId"], empty)

    for name, event in list(devtools.events):
        match name:
            case "requestWillBeSent":
                request = event["request"]
                entry(event)["request"] |= {"method": request["method"], "url": request["url"]}
                entry(event)["request"]["headers"] |= request["headers"]
                entry(event)["startedDateTime"] = _iso(event["wallTime"])
                if "postData" in request:
                    kind = request["headers"].get("Content-Type", "")
                    entry(event)["request"]["postData"] = {"mimeType": kind, "text": request["postData"]}
            case "responseReceived":
                entry(event)["response"]["status"] = event["response"]["status"]
                with contextlib.suppress(RuntimeError):  # no body
                    body = await devtools.call("Network.getResponseBody", requestId=event["requestId"])
                    encoding = {"encoding": "base64"} if body["base64Encoded"] else {}
                    entry(event)["response"]["content"] = {"text": body["body"], **encoding}
            case "webSocketCreated":
                entry(event)["request"] |= {"method": "GET", "url": event["url"]}
                entry(event).update(_resourceType="websocket", _webSocketMessages=[])
            case "webSocketWillSendHandshakeRequest":
                offsets[event["requestId"]] = event["wallTime"] - event["timestamp"]
                entry(event)["startedDateTime"] = _iso(event["wallTime"])
                entry(event)["request"]["headers"] |= event["request"]["headers"]
            case "webSocketHandshakeResponseReceived":
                entry(event)["response"]["status"] = event["response"]["status"]
                entry(event)["response"]["headers"] |= event["response"]["headers"]
            case "requestWillBeSentExtraInfo":
                entry(event)["request"]["headers"] |= event["headers"]
            case "responseReceivedExtraInfo":
                entry(event)["response"]["headers"] |= event["headers"]
            case "webSocketFrameSent" | "webSocketFrameReceived":
                frame = event["response"]
                message = {
                    "type": "send" if name == "webSocketFrameSent" else "receive",
                    "time": event["timestamp"] + offsets[event["requestId"]],
                    "opcode": frame["opcode"],
                    "data": frame["payloadData"],
                }
                entry(event)["_webSocketMessages"].append(message)
    complete = [value for value in entries.values() if "url" in value["request"]]  # not what had begun before
    for value in complete:
        for side in ("request", "response"):
            headers = value[side]["headers"].items()
            lines = [(key, line) for key, text in headers for line in text.split("\n")]
            value[side]["headers"] = [{"name": key, "value": line} for key, line in lines]
    return {"log": {"version": "1.2", "creator": {"name": "WebInspector"}, "entries": complete}}


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()
