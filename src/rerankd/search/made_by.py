"""Which embedder made the vectors of an index, as the index records it. Needs the standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rerankd.disk import replacement
from rerankd.errors import InvalidRequest

FOLDER, FILE = "vectors", "made-by.json"
"""Inside the folder of an index."""


@dataclass(frozen=True, slots=True)
class MadeBy:
    """An embedder, and what it has embedded.

    Attributes:
        embedder: its name or folder.
        digest: what its vectors depend on.
        dimensions: of a vector.
        generation: counts how often the files of vectors were written from the beginning.
        covers: the state of the index all of whose parts have vectors; empty for none.
    """

    embedder: str
    digest: str
    dimensions: int
    generation: int = 1
    covers: str = ""

    def covering(self, state: str) -> MadeBy:
        """The same after all parts of this state have vectors."""
        return replace(self, covers=state)


def made_by(index: Path) -> MadeBy | None:
    """The embedder of an index; None: it has no vectors.

    Raises:
        InvalidRequest: the record is damaged.
    """
    path = index / FOLDER / FILE
    try:
        found = json.loads(path.read_text("utf-8"))
        return MadeBy(**{one.name: found[one.name] for one in fields(MadeBy)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidRequest(f"{path} cannot be read ({error}): build the index again with --rebuild.") from None


def record(index: Path, made: MadeBy) -> None:
    """Writes the record, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    folder = index / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with replacement(folder / FILE) as unfinished:
        unfinished.write_text(json.dumps(asdict(made)), "utf-8")
