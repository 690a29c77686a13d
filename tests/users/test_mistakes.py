"""The author's mistakes: each is told once, where he looks, and none leaves the build green."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..support import unused_port
from .running import LocustProcess, LocustRun, locustfile

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]


def test_a_forgotten_await_is_told_once_with_its_line_and_listed(run: Run, engine: str) -> None:
    result = run(
        f"""
        quit_when_done()

        class Forgetful(AsyncWebSocketUser):
            engine = {engine!r}

            @task
            async def work(self):
                self.connection = await self.ws.connect("/echo")
                for _ in range(3):
                    self.ws.connect("/forgotten")
                    self.connection.request("a")
                    self.connection.expect(lambda message: True)
                    self.connection.ping()
                    self.connection.send("b")
                    self.connection.recv()
                    kept = self.connection.request("c")  # freed later: the line is that of the call
                    asyncio.sleep(0)
                await asyncio.sleep(0)
                raise StopUser
        """,
        python=(),
    )
    assert result.code == 1
    for what in ("self.ws.connect(", 'request("a")', "expect(", "ping()", "send(", "recv()", "sleep(0)\n"):
        assert result.stderr.count(what) == 1, what
    assert result.stderr.count('kept = self.connection.request("c")') == 1
    assert result.stderr.count("RuntimeWarning") == 8
    assert result.exceptions == {
        f"coroutine '{name}' was never awaited: write `await` before it": count
        for name, count in {
            "WebSocketClient.connect": 1,
            "WebSocketConnection.request": 2,
            "WebSocketConnection.expect": 1,
            "WebSocketConnection.ping": 1,
            "WebSocketConnection.send": 1,
            "WebSocketConnection.recv": 1,
            "sleep": 1,
        }.items()
    }
    assert result.counts == {"WS CONNECT /echo": 1, "WS SESSION /echo": 1}


def test_what_is_no_result_yet_says_so(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Confused(AsyncWebSocketUser):
            def attempt(self, what, function):
                try:
                    function()
                except Exception as exc:
                    note(what, type(exc).__name__, str(exc))

            def plain_with(self):
                with self.ws.connect("/"):
                    pass

            @task
            async def work(self):
                self.attempt("attribute", lambda: self.ws.connect("/").recv)
                self.attempt("send", lambda: self.ws.connect("/").send("text"))
                self.attempt("with", self.plain_with)
                self.attempt("ws", lambda: setattr(self, "ws", 1))
                self.attempt("get", lambda: self.client.get("/login"))
                async with self.ws.connect("/echo") as connection:
                    self.attempt("json", lambda: connection.request("x").json())
                    self.attempt("item", lambda: connection.request("x")["id"])
                    self.attempt("match", lambda: connection.request("x", match="id"))
                    self.attempt("expect", lambda: connection.expect("id"))
                    self.attempt("on", lambda: connection.on("id", print))
                    self.attempt("push", lambda: connection.measure_push("id", sent_at="at"))
                    self.attempt("handler", lambda: connection.on(lambda message: True, "print"))
                raise StopUser

        class NoClient(AsyncUser):
            @task
            async def work(self):
                Confused.attempt(self, "client", lambda: self.client)
                Confused.attempt(self, "no ws", lambda: self.ws)
                raise StopUser

        try:
            class Shadowing(AsyncWebSocketUser):
                ws = "/path"
        except TypeError as exc:
            note("shadow", "TypeError", str(exc))
        """,
        "-u",
        "2",
    )
    assert (result.code, result.complaints) == (0, "")  # told once: no warning of "never awaited" follows
    told = {what: (kind, text) for what, kind, text in result.notes}
    for what, kind, text in (
        ("attribute", "AttributeError", "which was not awaited: `connection = await self.ws.connect(...)`"),
        ("send", "TypeError", "which was not awaited: `connection = await self.ws.connect(...)`"),
        ("with", "TypeError", "WebSocketClient.connect() is entered by `async with`, not by `with`"),
        ("ws", "AttributeError", "Keep a connection under another name"),
        ("shadow", "TypeError", "Keep a connection under another name"),
        ("get", "AttributeError", "inherit from HttpUser or FastHttpUser too"),
        ("client", "AttributeError", "inherit from HttpUser or FastHttpUser too"),
        ("no ws", "AttributeError", "inherit from AsyncWebSocketUser"),
        ("json", "AttributeError", "`message = await connection...`"),
        ("item", "TypeError", "`message = await connection...`"),
        ("match", "TypeError", "request: the match must be a function of the message that returns a bool, not 'id'"),
        ("expect", "TypeError", "expect: the match must be a function"),
        ("on", "TypeError", "on: the match must be a function"),
        ("push", "TypeError", "measure_push: the match must be a function"),
        ("handler", "TypeError", "on: the handler must be a function of the message"),
    ):
        assert told[what][0] == kind and text in told[what][1], (what, told[what])


def test_what_fails_in_the_background_is_listed_without_our_frames(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Failing(AsyncWebSocketUser):
            reported = {"WS CONNECT"}

            async def on_start(self):
                self.connection = await self.ws.connect("/subscribe?rate=50")

            @task
            async def work(self):
                self.reader = asyncio.create_task(self.read())  # kept: asyncio alone would never tell
                asyncio.get_running_loop().call_soon(self.callback)
                handled = asyncio.Event()
                def handler(message):
                    pushes.cancel()
                    handled.set()
                    raise ValueError("handler")
                pushes = self.connection.on(lambda message: True, handler, name=None)
                await self.connection.send('{"subscribe": "prices"}')
                await handled.wait()
                await asyncio.gather(asyncio.create_task(self.read()), return_exceptions=True)  # taken: not told
                await asyncio.to_thread(self.fails)

            def wait_time(self):
                raise StopUser

            def callback(self):
                raise ValueError("callback")

            async def read(self):
                raise ValueError("reader")

            def fails(self):
                raise ValueError("task")

        @events.user_error.add_listener
        def user_error(tb, **_):
            import traceback
            note("frames", *(frame.filename for frame in traceback.extract_tb(tb)))
        """
    )
    assert result.code == 1
    assert result.exceptions == {"reader": 1, "callback": 1, "handler": 1, "task": 1}
    ours = str(Path(__file__).parents[2] / "locust_ws_async")
    assert len(result.noted("frames")) == 4
    assert ours not in str(result.notes) and ours not in result.stderr
    assert "WS PUSH" not in str(result.rows)


def test_an_error_that_is_a_row_is_not_listed_again_and_one_that_is_none_is(run: Run, engine: str) -> None:
    result = run(
        f"""
        quit_when_done()

        class Base(AsyncWebSocketUser):
            abstract = True
            engine = {engine!r}

            async def on_start(self):
                self.connection = await self.ws.connect("/close/1011", name=type(self).__name__)
                await self.connection.wait_closed()

            @task
            async def work(self):
                self.reader = asyncio.create_task(self.connection.recv())
                await self.connection.send("x")

            def wait_time(self):
                raise StopUser

            async def on_stop(self):
                await self.connection.send("bye")

        class Rows(Base):
            pass

        class NoRows(Base):
            reported = {{"WS CONNECT"}}
        """,
        "-u",
        "2",
    )
    assert result.code == 1
    closed = "connection closed by the server: 1011 internal error"
    assert result.failures["WS SEND Rows"] == {f"ConnectionClosedError('{closed}')": 2}
    assert result.exceptions == {closed: 3}  # of NoRows: its reader, its task, its on_stop
    assert result.complaints.count("Traceback") == 1  # of the reader that has no row


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("engine = 'fast'", "unknown engine 'fast'"),
        ("ping_interval = '5'", "ping_interval must be a number of seconds or None, not '5'"),
        ("reported = 'WS CONNECT'", "reported must be a set of row types"),
        ("reported = {'WS CONECT'}", "reported: unknown row type 'WS CONECT'"),
        ("connect_backoff = 3", "connect_backoff must be a Backoff(...) or None, not 3"),
        ("cancel_timeout = 0", "cancel_timeout must be a number of seconds greater than 0, not 0"),
        ("host = 'ftp://h'", "cannot connect to ftp://"),
    ],
)
def test_a_wrong_setting_ends_the_run_at_its_start(tmp_path: Path, setting: str, text: str) -> None:
    source = f"""
        class Wrong(AsyncWebSocketUser):
            {setting}

            @task
            async def work(self):
                pass
        """
    result = LocustProcess(tmp_path, "-f", locustfile(tmp_path, source), "--headless", "--only-summary").finish()
    assert result.code == 2
    assert result.complaints.count(f"ERROR/locust_ws_async.class_checks: Wrong: {text}") == 1, result.stderr


@pytest.mark.parametrize("mode", [["--web-port", "0"], ["--headless", "--processes", "2"]], ids=["web", "processes"])
def test_a_missing_engine_ends_each_kind_of_run(start: Start, mode: list[str]) -> None:
    source = """
        import os, sys
        os.register_at_fork(after_in_child=lambda: time.sleep(1))  # the master is ready long before its children
        sys.modules["picows"] = None

        class Wrong(AsyncWebSocketUser):
            engine = "picows"

            @task
            async def work(self):
                pass
        """
    port = str(unused_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    result = start(source, *mode, *ports).finish()
    assert result.code == 2
    assert "needs the package picows: pip install picows" in result.complaints


def test_an_attribute_that_looks_like_a_setting_is_told(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Near(AsyncWebSocketUser):
            ping_intervall = 5
            extra_headers = {}
            token = "x"  # looks like none
            room = 3

            def on_connectd(self, connection):
                pass

            @task
            def ping_timeouts(self):
                raise StopUser
        """
    )
    assert result.code == 0
    for name, meant in (
        ("ping_intervall", "ping_interval"),
        ("extra_headers", "headers"),
        ("on_connectd", "on_connected"),
    ):
        assert f"Near.{name} is no setting: is {meant} meant?" in result.complaints
    assert result.complaints.count("is no setting") == 3


def test_settings_of_the_instance_count_from_the_next_connect_on(run: Run, engine: str) -> None:
    result = run(
        f"""
        from locust_ws_async.client import Backoff

        quit_when_done()

        async def seen(connection):
            return (await connection.recv_json())

        class LoggedIn(AsyncWebSocketUser):
            engine = {engine!r}
            headers = {{"X-Kind": "class"}}

            async def on_start(self):
                self.bearer = "token"
                self.headers = {{"X-Kind": "own"}}

            async def get(self, **options):
                async with self.ws.connect("/headers", **options) as connection:
                    headers = await connection.recv_json()
                    return [headers.get("authorization"), headers.get("x-kind")]

            @task
            async def work(self):
                note("own", *await self.get())
                self.headers["X-Kind"] = "changed in place"
                note("changed", *await self.get())
                note("override", *await self.get(bearer="other"))
                self.open_timeout = "soon"
                try:
                    self.ws.connect("/headers")
                except TypeError as exc:
                    note("wrong", str(exc))
                self.open_timeout, self.engine = 5, "other"
                try:
                    self.ws.connect("/headers")
                except ValueError as exc:
                    note("fixed", str(exc))
                raise StopUser

        class Fresh(AsyncWebSocketUser):
            engine = {engine!r}
            reconnect = Backoff(initial=0.01)
            tokens = 0

            async def bearer(self):
                await asyncio.sleep(0)
                self.tokens += 1
                return f"token {{self.tokens}}"

            def headers(self):
                return {{"X-Kind": "function"}}

            async def path(self):
                return f"/drop?after=1&url={{self.tokens}}"

            @task
            async def work(self):
                connection = await self.ws.connect(self.path)
                for _ in range(3):
                    await connection.send("x")
                    await connection.recv()
                    handshake = connection.handshake_request
                    note("fresh", handshake.headers["Authorization"], handshake.headers["X-Kind"], handshake.path)
                    before = connection.stats.reconnects
                    while connection.stats.reconnects == before:
                        await asyncio.sleep(0.01)
                raise StopUser
        """,
        "-u",
        "2",
    )
    assert result.noted("own") == [["Bearer token", "own"]], result.stderr
    assert result.noted("changed") == [["Bearer token", "changed in place"]]
    assert result.noted("override") == [["Bearer other", "changed in place"]]
    assert result.noted("wrong") == ["open_timeout must be a number of seconds or None, not 'soon'"]
    assert "engine is read when the user is created" in result.noted("fixed")[0]
    assert result.noted("fresh") == [
        [f"Bearer token {count + 1}", "function", f"/drop?after=1&url={count}"] for count in range(3)
    ]
    assert (result.counts["WS CONNECT /drop"], result.counts["WS RECONNECT /drop"]) == (1, 3)


def test_a_function_of_a_setting_that_fails_is_a_failed_row(run: Run) -> None:
    result = run(
        """
        from locust_ws_async.exceptions import ConnectError

        quit_when_done()

        class Failing(AsyncWebSocketUser):
            connect_backoff = None
            done = False

            def on_request(self, request_type, name, response_time, exception, **_):
                note("row", request_type, name, response_time, repr(exception), repr(exception.__cause__))

            async def bearer(self):
                return 3

            def url(self):
                raise LookupError("no room")

            def on_start(self):
                self.environment.events.request.add_listener(self.on_request)

            @task
            async def work(self):
                if self.done:
                    raise StopUser
                self.done = True
                for connect in (
                    lambda: self.ws.connect("/echo"),
                    lambda: self.ws.connect("/echo", bearer=None, headers=lambda: 1 / 0),
                    lambda: self.ws.connect("/echo", bearer=None, cookies=lambda: asyncio.sleep(0, {"a": 3})),
                    lambda: self.ws.connect(lambda: 3, bearer=None, name="room"),
                    lambda: self.ws.connect(self.url, bearer=None),
                ):
                    try:
                        await connect()
                    except ConnectError as exc:
                        note("raised", repr(exc))
                await self.ws.connect("/echo", bearer=None, headers=lambda: 1 / 0)

        """
    )
    failed = "the function that gives"
    rows = result.noted("row")
    no_path = "TypeError('the function that is given to connect must return a path or a URL, not int')"
    no_text = "TypeError('bearer must be a str or None, not int')"
    no_mapping = "TypeError('cookies must be a mapping of str to str; found (str, int)')"
    assert [row[1] for row in rows] == ["/echo", "/echo", "/echo", "room", "url()", "/echo"], result.stderr
    assert {(row[0], row[2]) for row in rows} == {("WS CONNECT", None)}
    assert [row[4] for row in rows][:5] == [
        no_text,
        "ZeroDivisionError('division by zero')",
        no_mapping,
        no_path,
        "LookupError('no room')",
    ]
    settings = ["bearer", "headers", "cookies", "the URL", "the URL"]
    texts = [f"{failed} {setting} failed: {row[4]}" for setting, row in zip(settings, rows, strict=False)]
    assert result.noted("raised") == [row[3] for row in rows][:5]
    assert [text in row[3] for text, row in zip(texts, rows, strict=False)] == [True] * 5, rows
    assert result.exceptions == {}
    # The log has each once, with the author's lines and no others.
    assert result.stderr.count("headers failed: ZeroDivisionError") == 1
    assert "bearer=None, headers=lambda: 1 / 0)" in result.stderr
    assert 'raise LookupError("no room")' in result.stderr
    assert "locust_ws_async/client" not in result.stderr


def test_a_function_of_a_setting_that_fails_in_a_reconnect_is_a_failed_row(run: Run, engine: str) -> None:
    result = run(
        f"""
        from locust_ws_async.client import Backoff

        quit_when_done()

        class Again(AsyncWebSocketUser):
            engine = {engine!r}
            reconnect = Backoff(initial=0.01, maximum=0.02)
            tokens = 0

            async def bearer(self):
                self.tokens += 1
                if self.tokens in (2, 3):
                    raise KeyError("no token")
                return "token"

            @task
            async def work(self):
                connection = await self.ws.connect("/drop?after=1")
                await connection.request("x")
                while not connection.stats.reconnects:
                    await asyncio.sleep(0.01)
                raise StopUser
        """
    )
    text = """SettingFailed("the function that gives bearer failed: KeyError('no token')")"""
    lost = {"ConnectionClosedError('connection lost without a close frame (1006)')": 1}
    assert result.failures == {"WS RECONNECT /drop": {text: 2}, "WS SESSION /drop": lost}, result.stderr
    assert (result.counts["WS CONNECT /drop"], result.counts["WS RECONNECT /drop"]) == (1, 1)
    assert result.counts["WS RECOVERY /drop"] == 1
    assert result.exceptions == {}
    assert result.stderr.count("KeyError: 'no token'") == 1
    assert "locust_ws_async" not in result.stderr.split("KeyError('no token')", 1)[1].split("KeyError: 'no token'")[0]


def test_an_on_connected_that_fails_in_a_reconnect_is_listed_once_and_ends_no_task(run: Run, engine: str) -> None:
    result = run(
        f"""
        from locust_ws_async.client import Backoff

        quit_when_done()

        class Again(AsyncWebSocketUser):
            engine = {engine!r}
            reconnect = Backoff(initial=0.01, maximum=0.02)
            wait_time = constant(0.01)
            attempts = 0

            async def on_connected(self, connection):
                self.attempts += 1
                if self.attempts in (2, 3):
                    raise KeyError("no room")

            async def on_start(self):
                self.connection = await self.ws.connect("/drop?after=1")
                await self.connection.request("x")

            @task
            async def work(self):
                while self.attempts == 2:  # the attempt fails while a task runs, or while the user waits for the next
                    await asyncio.sleep(0.01)
                if self.connection.stats.reconnects:
                    raise StopUser
        """
    )
    assert result.exceptions == {"'no room'": 2}, result.stderr
    (entry,) = result.tracebacks
    assert 'raise KeyError("no room")' in entry
    assert "locust_ws_async" not in entry


def test_connections_and_names_that_pile_up_are_told_once(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Piling(AsyncWebSocketUser):
            @task
            async def work(self):
                for _ in range(22):
                    await self.ws.connect("/echo", name="kept")
                for _ in range(20):
                    async with self.ws.connect("/echo", name="closed"):
                        pass
                async with self.ws.connect("/echo") as connection:
                    for number in range(201):
                        await connection.request("x", name=f"order {number}")
                raise StopUser
        """,
        "-u",
        "2",
    )
    assert result.code == 0
    assert result.complaints.count("kept: one user holds 20 connections of this name") == 1
    assert result.complaints.count("More than 200 names of rows") == 1
    assert len(result.complaints.splitlines()) == 2


def test_on_stop_on_dead_connections_prints_no_traceback(run: Run, engine: str) -> None:
    result = run(
        f"""
        quit_when_done()

        class Leaving(AsyncWebSocketUser):
            engine = {engine!r}

            async def on_start(self):
                self.connection = await self.ws.connect("/drop")
                await self.connection.wait_closed()

            @task
            class Steps(TaskSet):
                @task
                async def work(self):
                    raise StopUser

                async def on_stop(self):
                    await self.user.connection.send("task set")

            async def on_stop(self):
                await self.connection.request("user")
        """,
        "-u",
        "5",
    )
    assert (result.code, result.complaints, result.exceptions) == (1, "", {})
    lost = "ConnectionClosedError('connection lost without a close frame (1006)')"
    assert result.failures["WS SEND /drop"] == result.failures["WS REQUEST /drop"] == {lost: 5}


def test_rows_of_the_authors_own(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Reporting(AsyncUser):
            @task
            async def work(self):
                self.report("fast", 12.5, length=3)
                self.report("slow", None, request_type="JOB")
                self.report("bad", 1, exception=ValueError("wrong"))
                for name, milliseconds, options in (
                    (None, 1, {}), ("x", "1", {}), ("x", float("nan"), {}), ("x", 1, {"exception": "text"})
                ):
                    try:
                        self.report(name, milliseconds, **options)
                    except (TypeError, ValueError) as exc:
                        note(str(exc))
                raise StopUser
        """
    )
    assert result.counts == {"ASYNC fast": 1, "JOB slow": 1, "ASYNC bad": 0}
    assert (result.rows["ASYNC fast"].average, result.rows["ASYNC fast"].size) == (12.5, 3)
    assert result.failures == {"ASYNC bad": {"ValueError('wrong')": 1}}
    assert [text.split(" must")[0] for [text] in result.notes] == [
        "report: name",
        "report: milliseconds",
        "report: milliseconds",
        "report: exception",
    ]
