"""What `uswap ls` and `uswap clean` have in common: the named pools of this user."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uswap._errors import UswapError
from uswap._group_look import Look, look
from uswap._rendezvous import pool_folders


@dataclass(frozen=True)
class Found:
    """A named pool: what it looks like, or why that cannot be said.

    Attributes:
        folder: its folder.
        seen: None: it is stale, or ...
        problem: ... why it could not be looked at; "" otherwise.
    """

    folder: Path
    seen: Look | None
    problem: str = ""

    @property
    def stale(self) -> bool:
        """No living process is in it."""
        return self.seen is None and not self.problem

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        common = {
            "name": self.folder.name,
            "folder": str(self.folder),
            "stale": self.stale,
            "problem": self.problem,
        }
        if self.seen is None:
            return common
        return {
            **common,
            "group": self.seen.group.as_dict(),
            "members": [asdict(member) for member in self.seen.members],
            "regions": [
                {
                    "name": region.name,
                    "id": region.id,
                    "size": region.size,
                    "resident": region.resident,
                    "swapped": region.swapped,
                    "locked": region.locked,
                    "faults": region.faults,
                    "poisoned_pages": region.poisoned_pages,
                    "users": region.users,
                    "creator_pid": region.creator_pid,
                }
                for region in self.seen.regions
            ],
        }


def find_pools() -> list[Found]:
    """All of them, by name. Raises SystemCallError: the runtime folder is not to be trusted."""
    found = []
    for folder in pool_folders():
        try:
            found.append(Found(folder, look(folder)))
        except UswapError as error:
            found.append(Found(folder, None, str(error)))
    return found
