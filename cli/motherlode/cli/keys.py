"""`motherlode keys`: make keys for callers of a server."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from cyclopts import App, Parameter

from motherlode.cli.output import print_json, print_line

__all__ = ["app", "new"]

app = App(name="keys", help="Make keys for callers of a server.", help_format="plaintext")


@app.command(help_format="markdown")
def new(
    name: str,
    /,
    *,
    role: Literal["read", "admin"] = "read",
    expires: date | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Make a key, and show it this once, with the entry for the server's keys file.

    The first line is for the caller, the rest for the file that the setting `keys_file` names. The
    file holds a hash alone: nobody can get a key out of it, and a lost one is replaced.

    Args:
        name: Whose key it is; it stands in the server's log.
        role: What it is good for: `read` asks models, `admin` changes what is served, too.
        expires: First day, in UTC, on which it is refused, such as 2027-01-31.
        json: Print one JSON document.
    """
    from motherlode.server.keys import entry_of, new_key  # noqa: PLC0415
    from motherlode.server.roles import Role  # noqa: PLC0415

    key = new_key()
    entry = entry_of(key, name, Role(role), expires)
    if json:
        print_json({"key": key, "entry": entry})
        return
    print_line(key)
    print_line()
    print_line(entry)
