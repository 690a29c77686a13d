"""Reads the section "WebSocket" of a page, as somebody does who looks at it."""

from __future__ import annotations

from typing import Any

from tests.chromium import Page

__all__ = ["Section"]

# What is drawn: the number of pixels of each colour, by chart.
_COLOURS = """
[...document.querySelectorAll('.websocket canvas')].map(canvas => {
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height), colours = {};
    for (let at = 0; at < data.length; at += 4) {
        if (data[at + 3] === 255) {
            const colour = '#' + [...data.slice(at, at + 3)].map(part => part.toString(16).padStart(2, '0')).join('');
            colours[colour] = (colours[colour] ?? 0) + 1;
        }
    }
    return colours;
})
"""

_LEGENDS = """
[...document.querySelectorAll('.websocket .u-legend')].map(legend => Object.fromEntries(
    [...legend.querySelectorAll('.u-series')].map(line =>
        [line.querySelector('.u-label').textContent, line.querySelector('.u-value').textContent])))
"""

_TABLE = """
(titles => Object.fromEntries([...document.querySelectorAll('.websocket-workers tbody tr')].map(row =>
    [row.cells[0].title, Object.fromEntries([...row.cells].map((cell, index) => [titles[index], cell.textContent]))])))(
        [...document.querySelectorAll('.websocket-workers th')].map(title => title.textContent))
"""


class Section:
    """The section "WebSocket" of this page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def shown(self) -> bool:
        """Whether it is there."""
        return bool(await self.page.js("document.querySelector('.websocket') !== null"))

    async def table(self) -> dict[str, dict[str, str]]:
        """The cells of the table by worker, "Total" among them, and by the titles of the columns."""
        table: dict[str, dict[str, str]] = await self.page.js(_TABLE)
        return table

    async def total(self) -> dict[str, Any]:
        """The last row, with numbers where there are some; empty while there is no table."""
        cells = (await self.table()).get("Total", {})
        return {title: int(text) if text.isdigit() else text.replace("\u00a0", " ") for title, text in cells.items()}

    async def legends(self) -> list[dict[str, str]]:
        """What the legend of each chart says, by line: the last values, as long as the mouse is elsewhere."""
        legends: list[dict[str, str]] = await self.page.js(_LEGENDS)
        return legends

    async def colours(self) -> list[dict[str, int]]:
        """What is drawn in each chart: the pixels of each colour."""
        colours: list[dict[str, int]] = await self.page.js(_COLOURS)
        return colours

    async def until(self, **expected: Any) -> None:
        """Wait until the total says so; an underscore stands for a space of the title."""
        wanted = {title.replace("_", " "): value for title, value in expected.items()}

        async def says_so() -> bool:
            return wanted.items() <= (await self.total()).items()

        await self.page.eventually(says_so, wanted)
