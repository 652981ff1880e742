"""Pictures from anything: paths, bytes, arrays, PIL images, folders and lists of them, as upright 8-bit PIL images."""

from __future__ import annotations

import io
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.devices import is_array, to_device
from zoonet.ops.errors import FormatError, InputError, MissingFileError, UnsafeFileError

if TYPE_CHECKING:
    from PIL.Image import Image

#: The formats that are read. Those that run a program to be drawn (EPS by Ghostscript, WMF) are left out on purpose.
#: The first are those that PIL knows without loading all its plugins. JPEG includes MPO.
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM")
MORE_FORMATS = ("AVIF", "DDS", "ICNS", "ICO", "JPEG2000", "PCX", "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM")
SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".ico",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".pbm",
        ".pcx",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".qoi",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
#: A picture with more pixels than this is refused before it is decoded: 3 bytes each must fit in memory.
MAX_PIXELS = 178_956_970


@dataclass(frozen=True)
class Source:
    """One picture to be read: the name to show for it, and a function that gives it as an upright RGB or L image."""

    name: str
    open: Callable[[str], Image]


def find_pictures(source: Any) -> list[Source]:
    """The pictures that a source stands for, in order; none is decoded yet.

    source: a path to a picture, or to a folder (its pictures, sub-folders included, sorted by name), or a pattern such
    as "photos/*.jpg" (sorted by name); bytes of a picture file or an open binary file; a PIL image; an array (H, W),
    (H, W, C) or (C, H, W) with C 1 to 4, or a batch of four axes; or a list of these. Integers are 0 to 255 (uint16: 0
    to 65535), floats 0 to 1.
    Raises MissingFileError for a path that does not exist and InputError for what is not a picture.
    """
    return list(_expand(source, ""))


def is_several(source: Any) -> bool:
    """True where a source stands for a list of pictures (a list, a folder, a batch), whatever its length."""
    if isinstance(source, str | os.PathLike):
        return os.path.isdir(source) or _is_pattern(pathlib.Path(source))
    if is_array(source):
        return bool(source.ndim == 4)
    return isinstance(source, Sequence) and not isinstance(source, bytes | bytearray | memoryview)


def _expand(source: Any, label: str) -> Iterator[Source]:
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise MissingFileError("an empty path names no picture", received=repr(source), fix="name a file or folder")
        yield from _expand_path(pathlib.Path(source))
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        yield Source(label or "bytes", lambda mode: _decode(io.BytesIO(data), label or "the bytes", mode))
    elif hasattr(source, "convert") and hasattr(source, "getexif"):
        yield Source(label or "image", lambda mode: _upright(source, label or "the image", mode))
    elif hasattr(source, "read"):
        yield Source(label or "file", _read_once(source, label or "the open file"))
    elif is_array(source) or hasattr(source, "__array__"):
        yield from _expand_array(source, label)
    elif isinstance(source, Sequence):
        if not source:
            raise InputError("there is no picture to run on", expected="at least one", received="an empty list")
        for position, item in enumerate(source):
            yield from _expand(item, f"{label}[{position}]")
    else:
        raise InputError(
            "the input is not a picture",
            expected="a path, bytes, a PIL image, an array, or a list of these",
            received=type(source).__name__,
        )


def _read_once(file: Any, name: str) -> Callable[[str], Image]:
    """What decodes an open file, also when it is asked again: its bytes are kept from the first time on."""
    kept: list[bytes] = []

    def opened(mode: str) -> Image:
        if not kept:
            try:
                data = file.read()
            except (OSError, ValueError) as error:
                raise FormatError(f"{name} cannot be read", received=str(error)) from None
            if not isinstance(data, bytes):
                raise InputError(f"{name} gives no bytes", received=type(data).__name__, fix="open it as 'rb'")
            kept.append(data)
        return _decode(io.BytesIO(kept[0]), name, mode)

    return opened


def _is_pattern(path: pathlib.Path) -> bool:
    """Whether a path has the characters of a pattern, and is not a file of that name."""
    try:
        return any(c in str(path) for c in "*?[") and not path.exists()
    except (OSError, ValueError):
        return False


def _matching(path: pathlib.Path) -> list[pathlib.Path]:
    """The pictures that a pattern fits, sorted by name. Raises MissingFileError for none."""
    import glob

    found = [pathlib.Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    pictures = [p for p in found if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not pictures:
        raise MissingFileError("no picture fits the pattern", received=str(path), fix="check the path")
    return pictures


def _expand_path(path: pathlib.Path) -> Iterator[Source]:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise MissingFileError("no such picture", received=repr(str(path)), fix=str(error)) from None
    if _is_pattern(path):
        for item in _matching(path):
            yield Source(str(item), lambda mode, item=item: _open_path(item, mode))  # type: ignore[misc]
        return
    if not exists:
        raise MissingFileError("there is no such picture", received=str(path), fix="check the path")
    if not is_folder:
        yield Source(str(path), lambda mode: _open_path(path, mode))
        return
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise InputError("the folder holds no pictures", expected="files such as .jpg or .png", received=str(path))
    for item in found:
        yield Source(str(item), lambda mode, item=item: _open_path(item, mode))  # type: ignore[misc]


def _open_path(path: pathlib.Path, mode: str) -> Image:
    try:
        with path.open("rb") as file:
            return _decode(file, str(path), mode)
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise MissingFileError(
            f"the picture {path} cannot be opened", received=getattr(error, "strerror", None) or str(error)
        ) from None


def _decode(file: Any, name: str, mode: str) -> Image:
    from PIL import Image, UnidentifiedImageError

    too_large = UnsafeFileError(
        f"{name} is too large a picture",
        expected=f"at most {MAX_PIXELS:,} pixels",
        received="more",
        fix="make it smaller first",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of malformed metadata, and of sizes that are checked below
            with _identify(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise too_large
                image.seek(0)
                image.load()
                return _upright(image, name, mode)
    except UnsafeFileError:
        raise
    except (UnidentifiedImageError, FileNotFoundError):
        raise FormatError(
            f"{name} is not a picture that can be read",
            expected="PNG, JPEG, WebP, GIF, BMP, TIFF or a similar format",
            received=_first_bytes(file),
        ) from None
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception as error:  # decoders raise almost anything on hostile bytes
        raise FormatError(
            f"the picture {name} is truncated or corrupt",
            received=f"{type(error).__name__}: {error}",
            fix="obtain the file again",
        ) from None


def _identify(file: Any) -> Image:
    """The opened, not yet decoded image."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        Image.init()
        return Image.open(file, formats=[name for name in MORE_FORMATS if name in Image.OPEN])


def _first_bytes(file: Any) -> str:
    try:
        file.seek(0)
        start = file.read(8)
    except (OSError, ValueError):
        return "bytes of another format"
    return f"a file that starts with {start!r}" if start else "an empty file"


def _upright(image: Image, name: str, mode: str) -> Image:
    """The image turned as its EXIF orientation says, with 8 bits per channel, in mode RGB or L."""
    from PIL import ImageOps

    if image.width == 0 or image.height == 0:
        raise InputError(f"{name} has no pixels", received=f"{image.width}×{image.height}")
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # malformed EXIF data says nothing about the pixels
        image = image.copy()
    if image.mode.startswith(("I", "F")):
        image = _from_deep_pixels(image)
    return _opaque(image, mode)


def _opaque(image: Image, mode: str) -> Image:
    """The image in mode RGB or L, on white paper where it is transparent, or on black where what it shows is light."""
    from PIL import Image as images

    if image.has_transparency_data:
        image = image.convert("RGBA")
        weights = np.asarray(image.getchannel("A"), np.float32)
        if weights.min() < 255:
            light = float((np.asarray(image.convert("L"), np.float32) * weights).sum()) > 127.5 * float(weights.sum())
            paper = images.new("RGBA", image.size, "black" if light else "white")
            image = images.alpha_composite(paper, image)
    return image if image.mode == mode else image.convert(mode)


def _from_deep_pixels(image: Image) -> Image:
    """Grey pixels of 16 or 32 bits, or floats, as 8 bits: PIL would clip them at 255 in place of scaling."""
    from PIL import Image as images

    pixels = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode.startswith("I;16") or pixels.max() > 255:
        pixels = pixels / 257 if pixels.max() <= 65535 else pixels * (255 / pixels.max())
    elif image.mode == "F" and pixels.max() <= 1:
        pixels = pixels * 255
    return images.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _expand_array(source: Any, label: str) -> Iterator[Source]:
    array = to_device(source, "cpu") if is_array(source) else np.asarray(source)
    if array.ndim == 4:
        if not len(array):
            raise InputError("there is no picture to run on", received=f"an array of shape {array.shape}")
        for position, item in enumerate(array):
            yield Source(f"{label}[{position}]", lambda mode, item=item: _from_array(item, mode))  # type: ignore[misc]
    else:
        yield Source(label or "array", lambda mode: _from_array(array, mode))


def _from_array(array: Any, mode: str) -> Image:
    from PIL import Image

    pixels = _channels_last(array)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype.kind in "iu":
        limit = 65535 if pixels.dtype == np.uint16 else 255
        if pixels.min() < 0 or pixels.max() > limit:
            raise _range_error(pixels, f"integers from 0 to {limit}")
        pixels = np.rint(pixels / 257) if limit == 65535 else pixels
    else:
        try:
            if pixels.dtype.kind == "c":
                raise TypeError
            pixels = pixels.astype(np.float64)
        except (TypeError, ValueError):
            raise InputError("the array is not a picture", expected="real numbers", received=array.dtype) from None
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise _range_error(pixels, "floats from 0 to 1")
        pixels = np.rint(pixels * 255)
    pixels = np.ascontiguousarray(pixels.astype(np.uint8))
    return _opaque(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), mode)


def _range_error(pixels: Any, expected: str) -> InputError:
    return InputError(
        "the array is not a picture",
        expected=expected,
        received=f"{pixels.dtype} from {pixels.min():g} to {pixels.max():g}",
        fix="scale it, or call the model, `model(x)`, on an array that is preprocessed already",
    )


def _channels_last(array: Any) -> Any:
    """(H, W), (H, W, C) or (C, H, W) as (H, W, C); where both fit, channels are last."""
    if array.ndim == 2 and array.size:
        return array[:, :, None]
    if array.ndim == 3 and array.size and array.shape[-1] in (1, 2, 3, 4):
        return array
    if array.ndim == 3 and array.size and array.shape[0] in (1, 2, 3, 4):
        return np.moveaxis(array, 0, -1)
    raise InputError(
        "the array is not a picture",
        expected="shape (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels, or a batch (N, …) of these",
        received=f"shape {tuple(array.shape)}",
    )
