"""Locust's task model, with async def tasks."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

from .running import LocustProcess, LocustRun

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]


def test_tasks_of_either_kind_are_chosen_by_weight(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Counting(AsyncUser):
            abstract = True

            async def count(self, name):
                await asyncio.sleep(0)
                self.calls += 1
                note(name)

            def on_start(self):
                self.calls = 0

            def wait_time(self):
                if self.calls == 400:
                    raise StopUser
                return 0

        class Mixed(Counting):
            @task(9)
            async def often(self):
                await self.count("often")

            @task
            def seldom(self):
                self.calls += 1
                note("seldom")

            @task(0)
            async def never(self):
                note("never")

        async def common(user):
            await user.count("common")

        async def rare(user):
            await user.count("rare")

        class ByDictionary(Counting):
            tasks = {common: 9, rare: 1}

        class ByList(AsyncUser):
            @task
            class Weighted(TaskSet):
                async def once(self):
                    note("once")
                    raise StopUser

                tasks = [(once, 2)]
        """,
        "-u",
        "3",
    )
    assert result.complaints == ""
    assert result.code == 0
    counts = Counter(name for (name,) in result.notes)
    assert counts.keys() == {"often", "seldom", "common", "rare", "once"}
    assert counts["often"] + counts["seldom"] == counts["common"] + counts["rare"] == 400
    for nine_tenths in (counts["often"], counts["common"]):
        assert 330 <= nine_tenths <= 385  # mean 360, standard deviation 6
    assert counts["once"] == 1


def test_tags_choose_async_tasks(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Tagged(AsyncUser):
            def on_start(self):
                self.left = 100

            def wait_time(self):
                self.left -= 1
                if not self.left:
                    raise StopUser
                return 0

            @tag("in")
            @task
            async def chosen(self):
                note("chosen")

            @tag("in", "out")
            @task
            async def excluded(self):
                note("excluded")

            @task
            async def untagged(self):
                note("untagged")

            @tag("in")
            @task
            class Nested(TaskSet):
                @task
                async def inherits(self):
                    note("inherits")
                    self.interrupt()

                @tag("out")
                @task
                async def excluded(self):
                    note("excluded")
                    self.interrupt()
        """,
        "--tags",
        "in",
        "--exclude-tags",
        "out",
    )
    assert (result.code, result.complaints) == (0, "")
    assert {name for (name,) in result.notes} == {"chosen", "inherits"}


def test_nested_task_sets_are_locusts_own(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Sequence(SequentialTaskSet):
            async def on_start(self):
                await asyncio.sleep(0)
                note("sequence starts", self.parent is self.user)

            async def on_stop(self):
                await asyncio.sleep(0)
                note("sequence stops")

            @task
            async def first(self):
                note("first", asyncio.current_task() is not None, gevent.getcurrent() is self.user.greenlet)

            @task(2)
            async def twice(self):
                note("twice")

            @task
            def plain(self):
                note("plain", gevent.getcurrent() is self.user.greenlet)

            @task
            class Chain(MarkovTaskSet):
                @transition("then")
                async def begin(self):
                    note("begin")

                @transition("end")
                def then(self):
                    note("then")

                @transition("begin")
                async def end(self):
                    note("end", self.parent.parent is self.user)
                    self.interrupt()

            @task
            class Deep(TaskSet):
                def on_start(self):
                    note("deep starts")

                @task
                async def leave(self):
                    self.interrupt(reschedule=False)

                def on_stop(self):
                    note("deep stops")

            @task
            async def last(self):
                raise StopUser

        class Nesting(AsyncUser):
            tasks = [Sequence]

            async def on_stop(self):
                note("user stops")
        """
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.notes == [
        ["sequence starts", True],
        ["first", True, True],
        ["twice"],
        ["twice"],
        ["plain", True],
        ["begin"],
        ["then"],
        ["end", True],
        ["deep starts"],
        ["deep stops"],
        ["sequence stops"],
        ["user stops"],
    ]


def test_rescheduling_and_waiting(run: Run) -> None:
    """RescheduleTask waits, RescheduleTaskImmediately does not; each task set may have a wait_time of its own."""
    result = run(
        """
        quit_when_done()

        class Steps(SequentialTaskSet):
            def wait_time(self):
                note("wait")
                return 0.01

            @task
            async def returns(self):
                note("returns")

            @task
            async def reschedules(self):
                note("reschedules")
                raise RescheduleTask

            @task
            async def reschedules_immediately(self):
                note("immediately")
                raise RescheduleTaskImmediately

            @task
            async def adds(self):
                self.schedule_task(self.added)

            async def added(self):
                note("added")
                raise StopUser

        class Rescheduling(AsyncUser):
            tasks = [Steps]
            wait_time = None  # Locust asks the user only when the task set has none
        """
    )
    assert (result.code, result.complaints) == (0, "")
    assert [note for (note,) in result.notes] == [
        "returns",
        "wait",
        "reschedules",
        "wait",
        "immediately",
        "wait",
        "added",
    ]


def test_nested_task_sets_that_reschedule_and_interrupt(run: Run) -> None:
    """RescheduleTask stays in the task set that raises it; interrupt() leaves it, with the outer one's wait or not."""
    result = run(
        """
        quit_when_done()

        class Noting(SequentialTaskSet):
            async def on_start(self):
                note(type(self).__name__, "starts")

            async def on_stop(self):
                await asyncio.sleep(0)
                note(type(self).__name__, "stops")

            def wait_time(self):
                note(type(self).__name__, "waits")
                return 0.01

        class Outer(Noting):
            @task
            class Rescheduling(Noting):
                @task
                async def reschedules(self):
                    raise RescheduleTask

                @task
                async def reschedules_at_once(self):
                    async with asyncio.TaskGroup():
                        raise RescheduleTaskImmediately

                @task
                async def leaves(self):
                    await asyncio.sleep(0)
                    self.interrupt()

            @task
            class LeavingWithAWait(Noting):
                @task
                async def leaves(self):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self.leave())
                        await asyncio.sleep(1000)

                async def leave(self):
                    self.interrupt(reschedule=False)

            @task
            class LeavingAtTheStart(Noting):
                async def on_start(self):
                    await super().on_start()
                    self.interrupt()

                @task
                async def work(self):
                    note("not reached")

            @task
            class Failing(Noting):
                async def on_start(self):
                    raise ValueError("no start")

                @task
                async def work(self):
                    note("not reached")

            @task
            async def ends(self):
                note("ends")
                raise StopUser

        class Nesting(AsyncUser):
            tasks = [Outer]
        """
    )
    assert result.code == 1
    assert result.exceptions == {"no start": 1}
    assert result.notes == [
        ["Outer", "starts"],
        ["Rescheduling", "starts"],
        ["Rescheduling", "waits"],
        ["Rescheduling", "stops"],
        ["LeavingWithAWait", "starts"],
        ["LeavingWithAWait", "stops"],
        ["Outer", "waits"],
        ["LeavingAtTheStart", "starts"],
        ["Outer", "waits"],
        ["ends"],
        ["Outer", "stops"],
    ]


def test_pacing_counts_the_time_of_async_tasks(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Pacing(AsyncUser):
            abstract = True
            starts = ()

            @task
            async def work(self):
                self.starts += (time.perf_counter(),)
                await asyncio.sleep(0.15)
                if len(self.starts) == 5:
                    note(type(self).__name__, self.starts)
                    raise StopUser

        class Paced(Pacing):
            wait_time = constant_pacing(0.2)

        class Throughput(Pacing):
            wait_time = constant_throughput(5)

        class Constant(Pacing):
            wait_time = constant(0.2)

        class Between(Pacing):
            wait_time = between(0.1, 0.2)
        """,
        "-u",
        "4",
    )
    assert (result.code, result.complaints) == (0, "")
    starts = dict(result.notes)
    gaps = {name: [b - a for a, b in itertools.pairwise(times)] for name, times in starts.items()}
    # The last gap: Locust's pacing measures from the user's creation and settles after the first task.
    assert all(gap > 0.19 for gap in gaps["Paced"][1:]), gaps
    assert all(gap > 0.19 for gap in gaps["Throughput"][1:]), gaps
    assert all(gap > 0.34 for gap in gaps["Constant"]), gaps
    assert all(gap > 0.24 for gap in gaps["Between"]), gaps
    # What pacing saves is the time of the task.
    assert starts["Paced"][-1] - starts["Paced"][0] < starts["Constant"][-1] - starts["Constant"][0]


def test_exceptions_of_tasks_are_counted_and_the_user_goes_on(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Failing(AsyncUser):
            wait_time = constant(0.01)

            @task
            class Steps(SequentialTaskSet):
                @task(2)
                async def fails(self):
                    await asyncio.sleep(0)
                    raise ValueError("async")

                @task
                def fails_too(self):
                    raise ValueError("plain")

                @task
                async def ends(self):
                    raise StopTest  # in Locust it stops this user

                async def on_stop(self):
                    raise ValueError("task set stops")

            async def on_stop(self):
                note("user stops")
        """
    )
    assert result.code == 1
    assert result.exceptions == {"async": 2, "plain": 1, "task set stops": 1}
    assert result.notes == [["user stops"]]
    assert result.complaints.count("ERROR/locust.user.task: async") == 2
    assert result.complaints.count("ERROR/root: Uncaught exception in on_stop") == 1


def test_exceptions_end_the_user_where_locust_does_not_catch_them(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        @events.init.add_listener
        def init(environment, **_):
            environment.catch_exceptions = False

        class Failing(AsyncUser):
            @task
            async def fails(self):
                note("fails")
                raise ValueError("async")
        """
    )
    assert result.code == 1
    assert result.notes == [["fails"]]
    assert result.exceptions == {"async": 1}


def test_fixed_counts_and_load_shapes(start: Start) -> None:
    locust = start(
        """
        class Fixed(AsyncUser):
            fixed_count = 1

            @task
            async def work(self):
                await asyncio.sleep(0.01)

            async def on_start(self):
                note(type(self).__name__, "starts")

            async def on_stop(self):
                note(type(self).__name__, "stops")

        class Weighted(Fixed):
            fixed_count = 0

        class UpAndDown(LoadTestShape):
            stages = iter([(3, 100), (1, 100), (2, 100)])

            def tick(self):
                return next(self.stages, None)
        """,
        "--headless",
    )
    result = locust.finish()
    assert (result.code, result.complaints) == (0, "")
    fixed, weighted = result.noted("Fixed"), result.noted("Weighted")
    assert sorted(fixed + weighted) == ["starts"] * 4 + ["stops"] * 4
    assert fixed[0] == "starts" and weighted[:2] == ["starts", "starts"]


def test_a_task_may_keep_its_name_for_plugins(run: Run) -> None:
    """A task set that overrides execute_task sees the task's name, tags and weight."""
    result = run(
        """
        quit_when_done()

        class Logging(TaskSet):
            def execute_task(self, task):
                note(task.__name__, sorted(getattr(task, "locust_tag_set", ())))
                super().execute_task(task)

        class Nested(Logging):
            @task
            async def inner(self):
                raise StopUser

        class Root(Logging):
            tasks = [Nested]

        class Watched(AsyncUser):
            @tag("outer")
            @task(2)
            async def outer(self):
                note("outer runs")

            tasks = [Root]

            def on_start(self):
                self._taskset_instance.schedule_task(type(self).outer)
        """
    )
    assert (result.code, result.complaints) == (0, "")
    assert ["Nested", []] in result.notes and ["inner", []] in result.notes
