"""ImageDecoder: the picture that an encoded file holds."""

from __future__ import annotations

import io
import warnings

import numpy as np

from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.memory import MEMORY
from zoonet.ops.sets.onnx.common import concrete
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array

_FORMATS = ("BMP", "JPEG", "JPEG2000", "TIFF", "PNG", "WEBP", "PPM")


@onnx_operator("ImageDecoder", since=20)
def image_decoder(encoded_stream: Array, /, pixel_format: str = "RGB") -> Array:
    """The pixels (height, width, channels) of an encoded picture in uint8; an empty array where it is none.

    Formats: BMP, JPEG, JPEG 2000, TIFF, PNG, WebP, PNM.
    """
    from PIL import Image

    modes = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}
    if pixel_format not in modes:
        raise ArgumentError("ImageDecoder: unknown pixel_format", expected=", ".join(modes), received=pixel_format)
    data = concrete(encoded_stream, "an encoded picture")
    if data.dtype != np.uint8:
        raise DTypeError("ImageDecoder takes bytes", expected="uint8", received=data.dtype.name)
    channels = 1 if pixel_format == "Grayscale" else 3
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large pictures: their size is checked here
            picture = Image.open(io.BytesIO(data.tobytes()), formats=_FORMATS)
            width, height = picture.size
            if width * height * 4 > MEMORY // 8:
                raise ShapeError("the picture is larger than memory allows", received=f"{width} x {height}")
            pixels = np.asarray(picture.convert(modes[pixel_format]))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return np.zeros((0, 0, channels), np.uint8)
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    return np.ascontiguousarray(pixels[..., ::-1] if pixel_format == "BGR" else pixels)
