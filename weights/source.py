"""Where a file can be had:

a URL, a file of a Hugging Face repository, or a file inside an installed package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit, urlunsplit

# Weights of a repository, or of a folder in its layout, in the order in which they are looked for.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Revisions with slashes that the Hugging Face hub knows; any other slash starts the file name.
_REVISION = re.compile(r"refs/(?:pr/\d+|convert/[\w.-]+)|[\w.-]+")

# Pages and files of the hub, and what stands in the place of an organisation on pages of other things.
_PAGE = re.compile(
    r"/(?P<organisation>[\w.-]+)/(?P<name>[\w.-]+)/?"
    r"(?:(?:(?<=/)tree/(?P<tree>[^/]+)/?)|(?:(?<=/)(?:blob|resolve|raw)/(?P<revision>[^/]+)/(?P<file>.+)))?"
)
_NOT_MODELS = ("api", "blog", "collections", "datasets", "docs", "models", "organizations", "papers", "spaces", "tasks")


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, so that it always means the same files."""
    return _COMMIT.fullmatch(revision) is not None


def safe_relative(name: str) -> str:
    """The name itself if it stays inside the folder that it is joined to.

    Raises ValueError for absolute names, "..", backslashes, drive letters and control characters.
    """
    path = PurePosixPath(name)
    parts = name.split("/")
    if (
        not name
        or path.is_absolute()
        or any(part in ("", ".", "..") for part in parts)
        or re.search(r'[\\:\x00-\x1f*?"<>|]', name)
    ):
        raise ValueError(f"{name!r} is not a plain relative file name")
    return name


def plain_scheme(text: str) -> str:
    """A URL or reference with its scheme in small letters, as all code here compares it; any other text as it is."""
    scheme, mark, rest = text.partition("://")
    known = scheme.lower() in ("http", "https", "hf", "file")
    return f"{scheme.lower()}{mark}{rest}" if mark and known else text


def public_url(url: str) -> str:
    """A URL fit for messages and records: without password, and without a query, which may be a signature."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if parts.port:
        host = f"{host}:{parts.port}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class Source:
    """One place of a file.

    kind: "url" (location is the URL), "hugging-face" (location is the repository, revision a branch, tag or
    commit, file the path inside it), or "package" (location is a top-level import name, file the path
    inside).
    """

    kind: str
    location: str
    file: str = ""
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Source from `https://host/path`, `hf://org/name@revision/file` or `package://import_name/file`.

        Raises ValueError for anything else, and for a file name that leaves its folder.
        """
        text = plain_scheme(text)
        if text.startswith("hf://"):
            reference = HubReference.parse(text)
            if not reference.file:
                raise ValueError(f"{text!r} names no file")
            return cls("hugging-face", reference.repository, reference.file, reference.revision)
        if text.startswith("package://"):
            package, _, file = text.removeprefix("package://").partition("/")
            if not package.isidentifier():
                raise ValueError(f"{package!r} is not the name of a package")
            return cls("package", package, safe_relative(file))
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{text!r} is not an http or https URL")
        return cls("url", text)

    @property
    def file_name(self) -> str:
        """Last part of the file's path, safe to use as a file name; "file" if the source has none."""
        path = self.file or unquote(urlsplit(self.location).path)
        name = re.sub(r'[\\/:\x00-\x1f*?"<>|]', "_", path.rstrip("/").rpartition("/")[2])
        # Room for the suffixes of temporary files within the usual limit of 255 bytes.
        return name if name not in ("", ".", "..") and len(name.encode()) <= 200 else "file"

    def beside(self, name: str) -> Source:
        """The source of a file that lies in the same folder or repository."""
        if self.kind == "url":
            base = self.location.partition("?")[0].rpartition("/")[0]
            return Source("url", f"{base}/{quote(name)}")
        folder = self.file.rpartition("/")[0]
        return Source(self.kind, self.location, f"{folder}/{name}" if folder else name, self.revision)

    def url(self, endpoint: str) -> str:
        """URL of the file; endpoint: base URL of the Hugging Face hub. Raises ValueError for a package."""
        if self.kind == "url":
            return self.location
        if self.kind == "package":
            raise ValueError("a file inside a package has no URL")
        revision = quote(self.revision, safe="")
        return f"{endpoint}/{self.location}/resolve/{revision}/{quote(self.file)}"

    @property
    def identity(self) -> str:
        """All of the source in one text, a URL with its query and its password: not for eyes or files."""
        return self.location if self.kind == "url" else str(self)

    def __str__(self) -> str:
        if self.kind == "url":
            return public_url(self.location)
        if self.kind == "package":
            return f"package://{self.location}/{self.file}"
        return str(HubReference(self.location, self.revision, self.file))


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository of models on the Hugging Face hub, at a revision, or one file of it."""

    repository: str
    revision: str = "main"
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Reference from `hf://org/name[@revision][/file]` or plain `org/name[@revision]`.

        Raises ValueError if the text is neither.
        """
        body = text.removeprefix("hf://")
        head, at, tail = body.partition("@")
        if at:
            match = _REVISION.match(tail)
            if not match or match.group() in (".", "..") or tail[match.end() : match.end() + 1] not in ("", "/"):
                raise ValueError(f"{text!r} has no revision after @")
            repository, revision, file = head, match.group(), tail[match.end() + 1 :]
        else:
            parts = head.split("/", 2)
            repository, revision = "/".join(parts[:2]), "main"
            file = parts[2] if len(parts) > 2 else ""
        organisation_and_name = _REPOSITORY.fullmatch(repository)
        if not organisation_and_name or "--" in repository or ".." in repository:
            raise ValueError(f"{text!r} is not hf://organisation/name[@revision]")
        if file:
            safe_relative(file)
        if not text.startswith("hf://") and ("/" not in repository or file):
            raise ValueError(f"{text!r} is not organisation/name")
        return cls(repository, revision, file)

    @classmethod
    def from_url(cls, path: str) -> HubReference | None:
        """Reference from the path of one of the hub's own pages or files, as people copy it; None for any other.

        /org/name, /org/name/tree/revision, and /org/name/blob/revision/file or resolve in the place of blob.
        """
        found = _PAGE.fullmatch(path)
        if found is None or found["organisation"] in _NOT_MODELS:
            return None
        repository, revision = (
            f"{found['organisation']}/{found['name']}",
            unquote(found["revision"] or found["tree"] or "main"),
        )
        try:
            file = safe_relative(unquote(found["file"])) if found["file"] else ""
            return cls.parse(f"hf://{repository}@{revision}" + (f"/{file}" if file else ""))
        except ValueError:
            return None

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf://{self.repository}{revision}" + (f"/{self.file}" if self.file else "")
