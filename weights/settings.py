"""What the environment says about caches, networks and tokens, read anew at each use and never at import."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from zoonet.ops.errors import ArgumentError
from zoonet.weights.source import plain_scheme

Progress = Callable[[str, int, int | None], None]
"""progress(file name, bytes so far, bytes in all or None): called from the downloading thread, often."""

HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits of a download, in seconds unless said otherwise.

    connect_timeout, read_timeout: until a connection stands, and between two arrivals of data. total_timeout:
    for one file with all retries and sources. retries: attempts after the first that may end without
    progress. backoff: first wait, doubled at each further attempt. longest_wait: longest Retry-After that is
    obeyed. slow_seconds, slow_bytes: a connection that brings fewer bytes in this time counts as dropped.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    total_timeout: float = 24 * 3600.0
    retries: int = 4
    backoff: float = 0.5
    longest_wait: float = 120.0
    slow_seconds: float = 60.0
    slow_bytes: int = 16 * 1024

    @classmethod
    def from_environment(cls) -> Settings:
        """Defaults, with ZOONET_READ_TIMEOUT and ZOONET_TOTAL_TIMEOUT where set.

        Raises ArgumentError if one of them is not a positive number.
        """
        values: dict[str, Any] = {}
        for key in ("read_timeout", "total_timeout"):
            variable = f"ZOONET_{key.upper()}"
            text = os.environ.get(variable)
            if text:
                try:
                    values[key] = float(text)
                except ValueError:
                    values[key] = 0.0
                if not values[key] > 0:
                    raise ArgumentError(f"{variable} is wrong", expected="seconds above zero", received=repr(text))
        return cls(**values)


def _true(variable: str) -> bool:
    return os.environ.get(variable, "").strip().upper() in ("1", "ON", "YES", "TRUE")


def _folder(variable: str) -> Path | None:
    text = os.environ.get(variable, "").strip()
    return Path(text).expanduser() if text else None


def _user_cache() -> Path:
    return _folder("XDG_CACHE_HOME") or Path.home() / ".cache"


def offline() -> bool:
    """Whether the network may not be used at all (ZOONET_OFFLINE)."""
    return _true("ZOONET_OFFLINE")


def hub_offline() -> bool:
    """Whether the Hugging Face hub may not be asked (ZOONET_OFFLINE or HF_HUB_OFFLINE)."""
    return offline() or _true("HF_HUB_OFFLINE")


def cache_folder() -> Path:
    """Our cache: ZOONET_CACHE, or the platform's folder for caches."""
    folder = _folder("ZOONET_CACHE")
    if folder is not None:
        return folder.absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("zoonet", appauthor=False))


def hub_home() -> Path:
    """Home of Hugging Face tools: HF_HOME, or ~/.cache/huggingface."""
    return _folder("HF_HOME") or _user_cache() / "huggingface"


def hub_cache_folder() -> Path:
    """Cache of the Hugging Face hub: HF_HUB_CACHE, its older name, or `hub` under its home."""
    folder = _folder("HF_HUB_CACHE") or _folder("HUGGINGFACE_HUB_CACHE") or hub_home() / "hub"
    return folder.absolute()


def hub_endpoint() -> str:
    """Base URL of the Hugging Face hub, without a slash at the end (HF_ENDPOINT)."""
    return plain_scheme(os.environ.get("HF_ENDPOINT", "").strip()).rstrip("/") or HUB


def torch_folder() -> Path:
    """Where torch.hub keeps checkpoints: TORCH_HOME, or ~/.cache/torch."""
    return (_folder("TORCH_HOME") or _user_cache() / "torch") / "hub" / "checkpoints"


def keras_folder() -> Path:
    """Where Keras keeps weights: KERAS_HOME, or ~/.keras."""
    return (_folder("KERAS_HOME") or Path.home() / ".keras") / "models"


def mirror() -> str:
    """URL or directory (also as file://…) that replaces all sources (ZOONET_MIRROR), or ""."""
    place = plain_scheme(os.environ.get("ZOONET_MIRROR", "").strip())
    if place.startswith("file://"):
        place = unquote(urlsplit(place).path)
    return place.rstrip("/")


def hub_token() -> str:
    """Token for the Hugging Face hub: HF_TOKEN or the file that its login command writes, or ""."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := os.environ.get(variable, "").strip():
            return token
    if _true("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return ""
    try:
        return (_folder("HF_TOKEN_PATH") or hub_home() / "token").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def is_hub(url: str) -> bool:
    """Whether a URL is on the very host, port and scheme of the Hugging Face hub, so that the token may go
    there.
    """
    parts = urlsplit(url)
    return any(
        (parts.scheme, parts.hostname, parts.port) == (base.scheme, base.hostname, base.port)
        for base in (urlsplit(hub_endpoint()), urlsplit(HUB))
    )
