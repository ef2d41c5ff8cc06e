"""The Sequences of all Spaces, and the packages that agents fetch."""

import asyncio
import logging
import uuid
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from sth_broker.instances import now_ms
from sth_broker.store.interface import Packages, Records
from sth_broker.uploads import Upload
from sth_protocol.errors import BadFrame, BadPackage, NotFound
from sth_protocol.model import Json, from_map, to_map

logger = logging.getLogger(__name__)

# The original says "STH" where a Sequence is kept by no machine in particular.
LOCATION = "STH"
MAX_NAME = 214
_SHOWN = ("name", "version", "description", "author", "keywords", "args", "repository", "engines")


@dataclass(frozen=True, slots=True)
class Sequence:
    """One version of an uploaded package. `package`: what the API shows of its package.json;
    `size`: bytes of the archive."""

    id: str
    space: str
    name: str
    sha256: str
    size: int
    language: str
    main: str
    created_ms: int
    package: Json = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its key among the records."""
        return f"sequence/{self.space}/{self.id}"

    def public_json(self) -> Json:
        """As the API shows it, without its Instances."""
        config: Json = {
            "type": "process",
            "engines": {},
            "version": "",
            **self.package,
            "id": self.id,
            "name": self.name,
            "entrypointPath": self.main,
            "sequenceDir": self.id,
            "language": "py" if self.language == "python" else "js",
            "packageSize": self.size,
        }
        return {
            "id": self.id,
            "name": self.name,
            "config": config,
            "location": LOCATION,
            "sha256": self.sha256,
        }


def describe(upload: Upload, *, space: str, name: str = "") -> Sequence:
    """A new Sequence of a package. `name`: instead of the package's own. BadPackage."""
    package = upload.package
    main = package.get("main")
    if not isinstance(main, str) or not main:
        raise BadPackage(
            "package.json names no program", hint='add "main": "main.py" or "main": "index.js"'
        )
    own = package.get("name")
    identity = str(uuid.uuid4())
    return Sequence(
        id=identity,
        space=space,
        name=(name or (own if isinstance(own, str) else "") or identity)[:MAX_NAME],
        sha256=upload.sha256,
        size=upload.size,
        language=upload.language,
        main=main,
        created_ms=now_ms(),
        package={key: package[key] for key in _SHOWN if key in package},
    )


class SequenceRegistry:
    """Records by Space and id, found also by name: the newest of that name."""

    def __init__(self, *, records: Records, packages: Packages) -> None:
        self._records = records
        self._packages = packages
        self._spaces: defaultdict[str, dict[str, Sequence]] = defaultdict(dict)
        # A package must not go while a Sequence of the same content comes.
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Read all records; one that cannot be read is left alone and logged."""
        for record in await self._records.list("sequence/"):
            try:
                sequence = from_map(Sequence, record.value)
            except BadFrame as error:
                logger.error("record %s cannot be read: %s", record.key, error)
                continue
            self._spaces[sequence.space][sequence.id] = sequence

    def list(self, space: str) -> list[Sequence]:
        """Oldest first."""
        return sorted(self._spaces.get(space, {}).values(), key=lambda each: each.created_ms)

    def ids(self, space: str) -> frozenset[str]:
        return frozenset(self._spaces.get(space, {}))

    def get(self, space: str, id_or_name: str) -> Sequence:
        """NotFound if it is not there, or not in this Space."""
        sequences = self._spaces.get(space, {})
        found = sequences.get(id_or_name) or max(
            (each for each in sequences.values() if each.name == id_or_name),
            key=lambda each: each.created_ms,
            default=None,
        )
        if found is None:
            raise NotFound(f"Sequence {id_or_name[:80]} not found", hint="`sth seq ls` shows them")
        return found

    def has_package(self, space: str, sha256: str) -> bool:
        """Whether a Sequence of this Space is made of that package."""
        return any(each.sha256 == sha256 for each in self._spaces.get(space, {}).values())

    async def add(self, sequence: Sequence, file: Path) -> None:
        """Take over a package's file and register its Sequence; durable when it returns."""
        async with self._lock:
            await self._packages.put_file(file, sequence.sha256)
            await self._records.put(sequence.key, to_map(sequence))
            self._spaces[sequence.space][sequence.id] = sequence

    async def update(self, before: Sequence, content: Sequence, file: Path) -> Sequence:
        """Give an existing Sequence new content under its own id."""
        after = replace(content, id=before.id, name=before.name, created_ms=before.created_ms)
        await self.add(after, file)
        await self._collect(before.sha256)
        return after

    async def remove(self, sequence: Sequence) -> None:
        """Delete a Sequence, and its package if nothing else is made of it."""
        async with self._lock:
            await self._records.delete(sequence.key)
            self._spaces[sequence.space].pop(sequence.id, None)
        await self._collect(sequence.sha256)

    async def _collect(self, sha256: str) -> None:
        async with self._lock:
            if not any(self.has_package(space, sha256) for space in list(self._spaces)):
                await self._packages.delete(sha256)
