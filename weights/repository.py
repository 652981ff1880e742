"""A whole repository of the Hugging Face hub: its weights, whole or in shards, and what belongs to them."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from zoonet.ops.errors import AccessDeniedError, DownloadError, FormatError, NotAvailableError
from zoonet.weights import hub
from zoonet.weights.bring import Job, bring_one, forbid_offline, known_missing, note_missing
from zoonet.weights.integrity import Expected
from zoonet.weights.settings import hub_offline
from zoonet.weights.settings import mirror as mirror_setting
from zoonet.weights.source import WEIGHTS, HubReference, Source, safe_relative

# What a network and its pre- and post-processing may need beside the weights.
COMPANIONS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
INDEX_SUFFIX = ".index.json"
# An index names a few thousand shards at most.
LARGEST_INDEX = 64 << 20


def weights_in(folder: Path) -> tuple[str, ...]:
    """Names of the weights files in a folder, an index before its shards; () if none, or a shard is missing.

    Raises FormatError for an index that is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            shards = read_index(folder / name) if name.endswith(INDEX_SUFFIX) else ()
            return (name, *shards) if all((folder / shard).is_file() for shard in shards) else ()
    return ()


def read_index(path: Path) -> tuple[str, ...]:
    """Shard names of a safetensors or PyTorch index, sorted.

    Raises FormatError if it is not an index, or a name leaves the folder; MissingFileError is not raised
    here.
    """
    try:
        if path.stat().st_size > LARGEST_INDEX:
            raise ValueError(f"{path.stat().st_size} bytes")
        names = set(json.loads(path.read_bytes())["weight_map"].values())
        return tuple(sorted(safe_relative(name) for name in names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path} is not an index of weights",
            expected="JSON with weight_map: name to file",
            received=error,
        ) from None


def cached_repository(reference: HubReference, *, complete: bool) -> Path | None:
    """Folder of a cached repository with its weights.

    complete: with all that its model needs, as far as can be told without asking.
    """
    for repository in hub.repositories(reference.repository):
        commit = repository.commit(reference.revision)
        folder = repository.snapshot(commit) if commit else None
        if folder is None or not folder.is_dir():
            continue
        try:
            weights = weights_in(folder)
        except FormatError:
            continue
        if weights and (not complete or _suffices(folder, reference)):
            return folder
    return None


def _suffices(folder: Path, reference: HubReference) -> bool:
    """Whether a cached folder has what its model needs beside the weights.

    Other tools leave no note of each file that a repository lacks, and bring those alone that they need. So it is
    complete if somebody brought all of it, or if the files are there that a model of its kind needs.
    """

    def there(name: str) -> bool:
        return (folder / name).is_file()

    def known(name: str) -> bool:
        return there(name) or known_missing(Source("hugging-face", reference.repository, name, reference.revision))

    # Every repository has a .gitattributes, and nobody asks for that file alone.
    if there(".gitattributes") or all(map(known, COMPANIONS)):
        return True
    config = _config(folder / "config.json")
    if "pretrained_cfg" in config:  # timm's, with all of the preprocessing
        return True
    if any(map(there, _TOKENIZERS)) or (there("vocab.json") and there("merges.txt")):
        heads = config.get("architectures")
        # A network without a head gives embeddings, and how they are pooled stands in the files of modules.json.
        has_head = isinstance(heads, list) and bool(heads) and not str(heads[0]).endswith("Model")
        return has_head or (bool(config) and known("modules.json"))
    return bool(config) and known("preprocessor_config.json")


_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt")


def _config(path: Path) -> dict[str, Any]:
    """A small JSON object, or an empty one where there is none."""
    try:
        value = json.loads(path.read_bytes()) if path.stat().st_size <= LARGEST_INDEX else None
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def fetch_repository(reference: HubReference, job: Job) -> Path:
    """Folder with a repository's config.json, weights and tokenizer files."""
    stay = hub_offline() and not mirror_setting()
    folder = cached_repository(reference, complete=not stay)
    if folder is not None:
        return folder
    probe = Source("hugging-face", reference.repository, "config.json", reference.revision)
    forbid_offline(probe)
    if mirror_setting():
        return _mirrored_repository(reference, job)
    try:
        commit, files = hub.list_files(reference.repository, reference.revision, job.settings, job.deadline)
    except (NotAvailableError, AccessDeniedError):
        raise
    except DownloadError as error:
        folder = cached_repository(reference, complete=False)
        if folder is None:
            raise
        warnings.warn(
            f"the Hugging Face hub cannot be reached ({error.received}): {reference} is used as far as it is cached",
            stacklevel=4,
        )
        return folder
    repository = hub.repositories(reference.repository)[0]

    def bring(name: str) -> Path:
        return bring_one((Source("hugging-face", reference.repository, name, commit),), Expected(), job)

    for name in COMPANIONS:
        if name in files:
            bring(name)
        else:
            repository.note_missing(commit, name)
    first = next((name for name in WEIGHTS if name in files), "")
    if not first:
        raise NotAvailableError(
            f"{reference} has no weights that can be read",
            expected=" or ".join(WEIGHTS),
            received=", ".join(files)[:500],
        )
    path = bring(first)
    for shard in read_index(path) if first.endswith(INDEX_SUFFIX) else ():
        bring(shard)
    repository.note_commit(reference.revision, commit)
    return repository.snapshot(commit)


def _mirrored_repository(reference: HubReference, job: Job) -> Path:
    """The same from a mirror, which has no list of files: each name is tried."""

    def bring(name: str) -> Path:
        source = Source("hugging-face", reference.repository, name, reference.revision)
        return bring_one((source,), Expected(), job)

    for name in COMPANIONS:
        source = Source("hugging-face", reference.repository, name, reference.revision)
        if known_missing(source):
            continue
        try:
            bring(name)
        except NotAvailableError:
            note_missing(source)
    for name in WEIGHTS:
        try:
            path = bring(name)
        except NotAvailableError:
            continue
        for shard in read_index(path) if name.endswith(INDEX_SUFFIX) else ():
            bring(shard)
        return Path(os.path.abspath(path)).parent
    raise NotAvailableError(f"the mirror has no weights of {reference}", fix="add it with `zoonet mirror export`")
