"""Detections: what a detector says about one picture."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from zoonet.ops.errors import ArgumentError, FileError
from zoonet.zoo.results import printable

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]
#: What Pascal VOC (and darknet's lists of COCO's classes) and COCO call the same things.
VOC_TO_COCO = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


@dataclass(frozen=True)
class Detection:
    """One object: its box (x1, y1, x2, y2) in pixels of the picture, its score from 0 to 1, its class and its name."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} {self.score:.1%} at " + ", ".join(f"{n:.0f}" for n in self.box)


class Detections:
    """The objects that were found in one picture, best first.

    source: the name of the picture. size: its (width, height), upright. boxes: float32 (n, 4), corners (x1, y1, x2, y2)
    in its pixels. scores: float32 (n,), from 0 to 1. labels: int64 (n,), the class of each box, an index into names.
    names: the names of all classes, so that `[found.names[i] for i in found.labels]` names the boxes; iterating gives
    a `Detection` each. keypoints: float32 (n, K, 2), or None for networks without. picture: gives the picture again.
    """

    def __init__(
        self,
        source: str,
        size: tuple[int, int],
        boxes: Array,
        scores: Array,
        labels: Array,
        names: Sequence[str],
        picture: Callable[[], Image] | None = None,
        keypoints: Array | None = None,
    ) -> None:
        self.source = source
        self.size = size
        self.boxes = boxes
        self.scores = scores
        self.labels = labels
        self.names = tuple(names)
        self.keypoints = keypoints
        self._picture = picture

    def __len__(self) -> int:
        return len(self.scores)

    def __bool__(self) -> bool:
        return True  # a picture without objects is a result, not nothing

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice) -> list[Detection]: ...
    def __getitem__(self, index: int | slice) -> Detection | list[Detection]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        label = int(self.labels[index])
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Detection((x1, y1, x2, y2), float(self.scores[index]), label, self.names[label])

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    # -- pictures ------------------------------------------------------------------------------------------------

    @property
    def picture(self) -> Image:
        """The picture as the network saw it, upright and in RGB. Raises ArgumentError where it is not known."""
        if self._picture is None:
            raise ArgumentError("these detections do not know their picture", fix="give it: plot(picture)")
        return self._picture()

    def plot(
        self, picture: Any = None, *, scores: bool = True, width: int | None = None, font_size: int | None = None
    ) -> Image:
        """The picture with its boxes, names and scores, as a PIL image.

        picture: another one to draw on, of the same size. scores: write them. width, font_size: in pixels, by the
        size of the picture where None.
        """
        from zoonet.zoo.detection.drawing import class_color, draw_boxes
        from zoonet.zoo.pictures import find_pictures

        image = self.picture if picture is None else find_pictures(picture)[0].open("RGB")
        texts = [f"{d.name} {d.score:.2f}" if scores else d.name for d in self]
        return draw_boxes(
            image,
            self.boxes,
            [printable(text) for text in texts],
            [class_color(int(label)) for label in self.labels],
            width=width,
            font_size=font_size,
            points=self.keypoints,
        )

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write `plot(**options)` to a picture file, by its suffix; returns the path. Raises FileError."""
        return save_picture(self.plot(**options), path)

    def crop(self) -> list[Image]:
        """The part of the picture in each box, as PIL images of at least one pixel."""
        image = self.picture
        result = []
        for x1, y1, x2, y2 in self.boxes.tolist():
            left, top = min(int(x1), image.width - 1), min(int(y1), image.height - 1)
            result.append(image.crop((left, top, max(left + 1, round(x2)), max(top + 1, round(y2)))))
        return result

    # -- data ----------------------------------------------------------------------------------------------------

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Plain data: {"source", "width", "height", "detections": [{"label", "score", "index", "box"}, …]}.

        top: has no meaning here.
        """
        detections = [
            {"label": d.name, "score": round(d.score, 6), "index": d.label, "box": [round(n, 2) for n in d.box]}
            for d in self
        ]
        if self.keypoints is not None:
            for entry, points in zip(detections, self.keypoints, strict=True):
                entry["keypoints"] = np.round(points.astype(np.float64), 2).tolist()
        return {"source": self.source, "width": self.size[0], "height": self.size[1], "detections": detections}

    def to_json(self, top: int | None = None) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_coco(self, image_id: int | str | None = None, category_ids: Sequence[int] | None = None) -> list[Any]:
        """COCO's results format: a dict each of image_id, category_id, bbox [x, y, width, height], score.

        image_id: the digits of the file name where None and it has no other characters, as in COCO, else the name.
        category_ids: of each class; COCO's own for its 80 classes, else the index, where None.
        """
        ids = coco_ids(self.names) if category_ids is None else list(category_ids)
        if len(ids) != len(self.names):
            raise ArgumentError("category_ids do not fit", expected=f"{len(self.names)} of them", received=len(ids))
        if image_id is None:
            stem = Path(self.source).stem
            image_id = int(stem) if stem.isascii() and stem.isdigit() else stem
        return [
            {
                "image_id": image_id,
                "category_id": int(ids[label]),
                "bbox": [round(n, 3) for n in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 6),
            }
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
            )
        ]

    def text(self, top: int | None = None) -> str:
        """A line per object: score, name, box; best first. top: has no meaning here."""
        lines = [f"{d.score:7.2%}  {printable(d.name):<14}  " + " ".join(f"{n:7.1f}" for n in d.box) for d in self] or [
            "nothing found"
        ]
        return "\n".join([f"{printable(self.source)}  {self.size[0]}×{self.size[1]}", *lines])

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        import base64
        import io

        rows = "".join(
            f"<tr><td>{html.escape(d.name)}</td><td style='text-align:right'>{d.score:.2%}</td><td>"
            + ", ".join(f"{n:.0f}" for n in d.box)
            + "</td></tr>"
            for d in self
        )
        shown = ""
        if self._picture is not None:
            stream = io.BytesIO()
            image = self.plot()
            image.thumbnail((640, 640))
            image.save(stream, "PNG")
            shown = f"<img src='data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}'>"
        return f"{shown}<table><caption>{html.escape(self.source)}</caption>{rows}</table>"


def coco_ids(names: Sequence[str]) -> list[int]:
    """COCO's category numbers (1 to 90, with gaps) for its 80 classes by name; the index for other classes."""
    from zoonet.weights import label_names

    own = [VOC_TO_COCO.get(name, name) for name in names]
    if tuple(own) != tuple(label_names("coco-80")):
        return list(range(len(names)))
    numbers = {name: number for number, name in enumerate(label_names("coco-91"))}
    return [numbers[name] for name in own]


def save_picture(image: Image, path: str | os.PathLike[str]) -> Path:
    """Write a picture by the suffix of its path, atomically. Raises FileError for an unknown suffix or a bad folder."""
    from PIL import Image as images

    from zoonet.formats.files import atomic_path

    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ArgumentError("save takes a path", expected="such as 'out.png'", received=repr(path))
    target = Path(os.fsdecode(path))
    images.init()
    kind = images.EXTENSION.get(target.suffix.lower())
    if kind is None or kind not in images.SAVE:
        raise FileError(
            "a picture cannot be written there", expected="a name such as out.png or out.jpg", received=str(target)
        )
    try:
        with atomic_path(target) as temporary, temporary.open("wb") as stream:
            image.save(stream, kind)
    except (OSError, ValueError, KeyError) as error:
        raise FileError(f"the picture {target} cannot be written", received=str(error)) from None
    return target
