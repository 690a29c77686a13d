"""docs/recording.md shows what the command prints."""

from __future__ import annotations

from pathlib import Path

from locust_ws_async.recording import locustfile, parse

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_comes_of_the_recording() -> None:
    page = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    marked, _, rest = page.partition("<!-- from-har: ")[2].partition(" -->\n```python\n")
    assert rest.partition("\n```")[0] + "\n" == locustfile(parse((ROOT / marked).read_bytes()))
