"""Makes the table of settings in docs/reference.md from the code.

    python -m docs.settings            write the table
    python -m docs.settings --check    say whether the table is what this would write, and change nothing

A setting is documented once, by the string that follows it in its class. The settings of a connection are the fields of
``ConnectOptions`` (``locust_ws_async/client/options.py``); those of a user are the attributes of ``AsyncUser`` and
``AsyncWebSocketUser`` (``locust_ws_async/users.py``) that have such a string. Change the string, then run this.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference.md"
OPTIONS = ROOT / "locust_ws_async" / "client" / "options.py"
USERS = ROOT / "locust_ws_async" / "users.py"

BEGIN, END = "<!-- settings: made by `python -m docs.settings` -->\n", "<!-- end -->"

GROUPS = {
    "Time": "open_timeout on_connected_timeout close_timeout request_timeout recv_timeout ping_interval ping_timeout"
    " arrival",
    "Messages": "max_size max_queue max_queue_bytes overflow read_rate compression",
    "Staying connected": "keepalive reconnect on_connected",
    "Handshake": "headers cookies auth bearer origin user_agent share_cookies share_headers subprotocols"
    " redirect_limit redirect_headers",
    "Network": "verify cert ssl server_hostname proxy unix_socket local_address lookups",
    "Names and recordings": "fold_ids record_last record_to record_unmasked",
}
"""In which part of the table a setting of a connection stands. One that is named nowhere stands under "Others"."""


@dataclass(frozen=True)
class Setting:
    name: str
    default: str
    """The default, as Python writes it."""
    meaning: str
    """The string that follows the setting, in Markdown and on one line; empty if there is none."""

    def row(self) -> str:
        return f"| `{self.name}` | `{self.default}` | {self.meaning} |"


def settings_of(path: Path, class_name: str) -> Iterator[Setting]:
    """The annotated attributes of a class, in the order of the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            continue
        if node.target.id.startswith("_"):
            continue
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = markdown(str(following.value.value))
        yield Setting(node.target.id, written(node.value, constants), meaning)


def written(default: ast.expr, constants: dict[str, ast.expr]) -> str:
    """A default as a reader would write it: ``2**20``, ``"pause"``, ``{}``."""
    if isinstance(default, ast.Call):
        for keyword in default.keywords:
            if keyword.arg == "default_factory":
                return {"dict": "{}", "list": "[]"}[ast.unparse(keyword.value)]
    if isinstance(default, ast.Name) and isinstance(constants.get(default.id), ast.Constant):
        default = constants[default.id]
    if isinstance(default, ast.Constant) and isinstance(default.value, str):
        return f'"{default.value}"'
    return ast.unparse(default).replace(" ** ", "**")


def markdown(docstring: str) -> str:
    """A docstring as the cell of a table: roles and double backticks become code, all of it one line."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", docstring.strip())
    text = text.replace("``", "`").replace("|", "\\|")
    return " ".join(text.split())


def table() -> str:
    """The table of the reference."""
    lines = ["| Setting | Default | Meaning |", "| --- | --- | --- |"]
    users = [*settings_of(USERS, "AsyncUser"), *settings_of(USERS, "AsyncWebSocketUser")]
    left = {setting.name: setting for setting in settings_of(OPTIONS, "ConnectOptions")}
    own = [setting for setting in users if setting.name not in left and setting.meaning]
    parts = {"The user": own}
    for title, names in GROUPS.items():
        parts[title] = [left.pop(name) for name in names.split() if name in left]
    parts["Others"] = list(left.values())
    for title, settings in parts.items():
        if settings:
            lines.append(f"| **{title}** | | |")
            lines.extend(setting.row() for setting in settings)
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The reference with the table as the code has it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/reference.md must have a line {BEGIN.strip()} and behind it a line {END}")
    return before + begin + table() + end + after


def main(arguments: list[str]) -> str | None:
    """Write the table, or check it; returns what went wrong."""
    if unknown := set(arguments) - {"--check"}:
        return f"unknown argument {min(unknown)}: there is only --check"
    if missing := [setting.name for setting in settings_of(OPTIONS, "ConnectOptions") if not setting.meaning]:
        return f"{OPTIONS.relative_to(ROOT)}: no string follows {', '.join(missing)}"
    text = REFERENCE.read_text(encoding="utf-8")
    new = with_table(text)
    if "--check" in arguments:
        return None if new == text else "the table is not what the code says: run python -m docs.settings"
    REFERENCE.write_text(new, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
