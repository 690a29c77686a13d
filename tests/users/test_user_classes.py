"""What is refused when a class is made, and what the settings of a class mean."""

from __future__ import annotations

from collections.abc import Callable

from .running import LocustRun

Run = Callable[..., LocustRun]


def test_classes_whose_tasks_would_never_run_are_refused(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        def attempt(what, make):
            try:
                make()
            except TypeError as exc:
                note(what, str(exc))
            else:
                note(what, None)

        def plain_user():
            class PlainUser(User):
                @task
                async def work(self):
                    pass

        def http_user():
            class MyHttpUser(HttpUser):
                async def on_start(self):
                    pass

        class Nested(TaskSet):
            @task
            class Deeper(SequentialTaskSet):
                @task
                async def deep(self):
                    pass

        def nested():
            class Nesting(User):
                tasks = [Nested]

        def abstract_first():
            class Mixin(User):
                abstract = True

                @task
                async def work(self):
                    pass

            class WithAsync(AsyncUser, Mixin):
                pass

            class Plain(Mixin):
                pass

        def runs_by_itself():
            class Awaiting(User):
                def run(self):
                    asyncio.run(self.work())

                @task
                async def work(self):
                    pass

        def hooks():
            class Hooks(User):
                def __init_subclass__(cls, **kwargs):
                    super().__init_subclass__(**kwargs)
                    cls.mark = "kept"

            class Marked(Hooks):
                @task
                def work(self):
                    pass

            assert Marked.mark == "kept"

        def callables():
            import functools

            class Calling(User):
                tasks = [functools.partial(note, "task"), type("Callable", (), {"__init__": note})]

            class CallingAsync(AsyncUser):
                tasks = Calling.tasks

        def generator():
            class Generating(AsyncUser):
                @task
                def work(self):
                    yield

        def async_generator():
            class Generating(AsyncUser):
                @task
                class Deeper(TaskSet):
                    @task
                    async def work(self):
                        yield

        def wait_time():
            async def pause(user):
                return 1

            class Pausing(User):
                wait_time = pause

        def wait_time_of_a_task_set():
            class Pausing(AsyncUser):
                @task
                class Deeper(TaskSet):
                    async def wait_time(self):
                        yield 1

        for make in (
            plain_user,
            http_user,
            nested,
            abstract_first,
            runs_by_itself,
            hooks,
            callables,
            generator,
            async_generator,
            wait_time,
            wait_time_of_a_task_set,
        ):
            attempt(make.__name__, make)

        class Accepted(AsyncUser):
            tasks = [Nested]

            async def on_start(self):
                note("json", self.json()["tasks"], self.fullname())
                raise GreenletExit

        from gevent import GreenletExit
        """
    )
    assert (result.code, result.complaints) == (0, "")
    refused = dict(result.notes[:-1])
    inherit = "inherit from locust_ws_async.AsyncUser or AsyncWebSocketUser"
    for what, holder, user in (
        ("plain_user", "PlainUser.work", "PlainUser"),
        ("http_user", "MyHttpUser.on_start", "MyHttpUser"),
        ("nested", "Deeper.deep", "Nesting"),
        ("abstract_first", "Plain.work", "Plain"),
        ("wait_time", "Pausing.wait_time", "Pausing"),
    ):
        assert f"{holder} is an async def, and {user} cannot await it" in refused[what]
        assert f"let {user} {inherit}" in refused[what]
    assert refused["runs_by_itself"] is refused["hooks"] is refused["callables"] is None
    assert "Generating.work is a generator because of its yield" in refused["generator"]
    assert "Deeper.work is a generator because of its yield" in refused["async_generator"]
    assert "Deeper.wait_time is a generator because of its yield" in refused["wait_time_of_a_task_set"]
    assert result.notes[-1] == ["json", ["Nested"], "locustfile.Accepted"]


def test_every_option_is_a_setting_and_users_share_them(run: Run) -> None:
    result = run(
        """
        import dataclasses
        from locust_ws_async.client import ConnectOptions

        quit_when_done()

        for field in dataclasses.fields(ConnectOptions):
            assert getattr(AsyncWebSocketUser, field.name) == getattr(ConnectOptions(), field.name), field.name

        class Shared(AsyncWebSocketUser):
            fixed_count = 2
            headers = {"a": "b"}
            close_timeout = 1
            options = []

            async def on_start(self):
                self.options.append(self.ws.options)
                assert self.ws.options.close_timeout == 1 and self.ws.options.headers == (("a", "b"),)

            @task
            def work(self):
                raise StopUser

        class Other(Shared):
            options = []

            def __init__(self, environment):
                self.headers = {"own": str(id(self))}
                super().__init__(environment)

            async def on_start(self):
                self.options.append(self.ws.options)
                assert self.ws.options.headers == (("own", str(id(self))),)

        @events.test_stop.add_listener
        def stopped(**_):
            note("shared", *(len(set(map(id, cls.options))) for cls in (Shared, Other)))
        """,
        "-u",
        "4",
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.notes == [["shared", 1, 2]]
