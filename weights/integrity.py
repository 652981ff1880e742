"""Sizes and hashes: what a file must have, and what it has."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from zoonet.ops.errors import IntegrityError

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Digests:
    """Size in bytes and hexadecimal hashes of a file's contents.

    git: SHA-1 of the file as a git blob, or "".
    """

    size: int
    sha256: str
    md5: str = ""
    git: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is published of a file. Any one of several hashes is accepted, since some files were replaced in
    place.

    sha256: full hashes, or published prefixes of at least 8 digits. md5: full hashes. git: SHA-1 of the file
    as a git blob (what the Hugging Face hub names small files by). size: bytes. All may be empty. Raises
    ValueError for a malformed hash.
    """

    sha256: tuple[str, ...] = ()
    md5: tuple[str, ...] = ()
    git: str = ""
    size: int | None = None

    def __post_init__(self) -> None:
        for text in self.sha256:
            if not re.fullmatch(r"[0-9a-f]{8,64}", text):
                raise ValueError(f"{text!r} is not a SHA-256 or a prefix of one")
        for text, digits in [(text, 32) for text in self.md5] + [(text, 40) for text in (self.git,) if text]:
            if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", text):
                raise ValueError(f"{text!r} is not a hash of {digits} digits")

    @property
    def full_sha256(self) -> str:
        """The only full SHA-256, which then names the contents, or ""."""
        return self.sha256[0] if len(self.sha256) == 1 and len(self.sha256[0]) == 64 else ""

    @property
    def strength(self) -> str:
        """The best check there is: "sha256", "git-sha1", "md5", "sha256-prefix", "size" or "none"."""
        if any(len(text) == 64 for text in self.sha256):
            return "sha256"
        if self.git:
            return "git-sha1"
        if self.md5:
            return "md5"
        if self.sha256:
            return "sha256-prefix"
        return "none" if self.size is None else "size"

    @property
    def has_hash(self) -> bool:
        """Whether contents can be told right from wrong."""
        return bool(self.sha256 or self.md5 or self.git)

    def problem(self, found: Digests) -> tuple[str, str] | None:
        """None if the digests are as expected, else (what was expected, what was received)."""
        if self.size is not None and found.size != self.size:
            return f"{self.size} bytes", f"{found.size} bytes"
        if self.sha256:
            if any(found.sha256.startswith(text) for text in self.sha256):
                return None
            return "sha256 " + " or ".join(self.sha256), f"sha256 {found.sha256}"
        if self.md5 and found.md5 not in self.md5:
            return "md5 " + " or ".join(self.md5), f"md5 {found.md5 or 'not computed'}"
        if self.git and found.git != self.git:
            return f"git blob {self.git}", f"git blob {found.git}"
        return None

    def check(self, found: Digests, what: str, fix: str) -> None:
        """Raise IntegrityError with both values if the digests are not as expected."""
        problem = self.problem(found)
        if problem:
            raise IntegrityError(f"{what} is not the published file", expected=problem[0], received=problem[1], fix=fix)


class Hasher:
    """Hashes contents as they arrive: SHA-256 always, the others only where a file is known by them, for
    speed.

    git_size: size of the file in bytes if it is also to be hashed as a git blob, which starts with its size.
    """

    def __init__(self, *, md5: bool = False, git_size: int | None = None) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._git = None
        if git_size is not None:
            self._git = hashlib.sha1(b"blob %d\x00" % git_size, usedforsecurity=False)
        self._all = [item for item in (self._sha256, self._md5, self._git) if item is not None]
        self.size = 0

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        for item in self._all:
            item.update(data)
        self.size += len(data)

    def digests(self) -> Digests:
        """Digests of all bytes so far; "" for a hash that was not asked for."""
        md5 = self._md5.hexdigest() if self._md5 is not None else ""
        git = self._git.hexdigest() if self._git is not None else ""
        return Digests(self.size, self._sha256.hexdigest(), md5, git)


def hash_file(path: Path, *, md5: bool = False, git: bool = False) -> Digests:
    """Digests of a file, read in pieces of 1 MiB. Raises OSError if it cannot be read."""
    hasher = Hasher(md5=md5, git_size=path.stat().st_size if git else None)
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            hasher.update(data)
    return hasher.digests()


def known_digests(path: Path, *, md5: bool = False) -> Digests:
    """Digests of a file in somebody else's folder, hashed once a process as long as it does not change."""
    status = path.stat()
    return _known(path, md5, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=256)
def _known(path: Path, md5: bool, size: int, modified: int, inode: int) -> Digests:
    return hash_file(path, md5=md5)
