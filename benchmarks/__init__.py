"""Benchmarks: this package beside everything else that people drive WebSockets with.

Not part of the installed package; run from the project's folder: ``python -m benchmarks``.

    __main__      the command line: which scenarios, which competitors, how many rounds
    scenarios     what is measured
    workload      what one user does, the same for every competitor
    competitors/  one short file each
    machine       what it is, its cores, its limits
    hosts         how a competitor's file is run: in Locust, or as a plain asyncio program
    server        the echo server, a process of its own that counts
    measuring     one measurement: start, wait until all are connected, watch a steady window
    report        CSV and Markdown;  plots: PNG;  documents: the figures in README.md and docs/scaling.md

Beside them, each a command of its own: ``instructions`` (instructions per echo, and the regression guard), ``micro``
(primitives of the loop), ``isolation`` (what asyncio's state per greenlet costs) and ``distributed`` (what Locust's
master costs, with the locustfile ``paced_user``). ``blocking_client`` is the recipe that people use now.
"""
