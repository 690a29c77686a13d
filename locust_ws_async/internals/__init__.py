"""The insides of our dependencies that we touch: one module for each dependency.

Every private name of a dependency is reached through the module here that is called like the dependency.
``tests/test_private_access.py`` forbids it anywhere else. A behaviour of a dependency that nobody promises may be used
elsewhere too, but the module here tries it. Importing such a module checks what it stands on. Where there is a second
way, the module falls back to it and says so. Where there is none, the import fails with a sentence that names the
versions (:mod:`~locust_ws_async.internals.checks`).
"""
