"""Records what a page does in a real headless Chromium, by the DevTools protocol, as the HAR that its export writes."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import websockets

from tests.chromium import CHROMIUM, DevTools, browser

__all__ = ["CHROMIUM", "record"]


def record(page: str, script: str, folder: Path, *, seconds: float) -> dict[str, Any]:
    """
    Open the page, run the script in it, and give the HAR of everything since.

    Args:
        script: JavaScript, the body of an async function.
        seconds: how long to wait, for the browser and for the script.
    """
    return asyncio.run(asyncio.wait_for(_record(page, script, folder), seconds))


async def _record(page: str, script: str, folder: Path) -> dict[str, Any]:
    async with browser(folder) as address, websockets.connect(address, max_size=None) as socket:
        devtools = DevTools(socket)
        reading = asyncio.create_task(devtools.read())
        try:
            await devtools.attach()
            await devtools.go(page)
            await devtools.call("Network.enable")
            result = await devtools.call(
                "Runtime.evaluate", expression=f"(async () => {{ {script} }})()", awaitPromise=True
            )
            assert "exceptionDetails" not in result, result
            return await _as_har(devtools)
        finally:
            reading.cancel()


async def _as_har(devtools: DevTools) -> dict[str, Any]:
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
