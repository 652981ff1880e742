"""The .cfg of the networks whose weights people hold, written from the papers' structure.

Redmon & Farhadi 2016 (YOLOv2) and 2018 (YOLOv3), Bochkovskiy et al. 2020 (YOLOv4), Wang et al. 2021 (YOLOv4-tiny).
`$classes` and `$filters` stand for what depends on the number of classes; see `filled`.
"""

from __future__ import annotations

import re

_V3_ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
_TINY_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
_V4_ANCHORS = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"
_V2_ANCHORS = "0.57273,0.677385, 1.87446,2.06253, 3.33843,5.47434, 7.88282,3.52778, 9.77052,9.16828"


def filled(cfg: str, classes: int) -> str:
    """The text for a number of classes: `$classes`, and `$filters*n` for n anchors."""
    cfg = re.sub(r"\$filters\*(\d+)", lambda found: str(int(found[1]) * (classes + 5)), cfg)
    return cfg.replace("$classes", str(classes))


def _section(kind: str, **options: object) -> str:
    return "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in options.items())])


def _net(size: int) -> str:
    return _section("net", width=size, height=size, channels=3)


def _conv(filters: object, size: int = 1, stride: int = 1, activation: str = "leaky") -> str:
    norm = {"batch_normalize": 1}
    return _section("convolutional", **norm, filters=filters, size=size, stride=stride, pad=1, activation=activation)


def _max(size: int = 2, stride: int = 2) -> str:
    return _section("maxpool", size=size, stride=stride)


def _route(*layers: int, **options: int) -> str:
    return _section("route", layers=",".join(map(str, layers)), **options)


def _up(filters: int, *sources: int) -> list[str]:
    """Back to before a head, half the channels, twice the size, and an earlier layer beside it."""
    return [_route(-4), _conv(filters), _section("upsample", stride=2), _route(-1, *sources)]


def _pairs(filters: int, count: int) -> list[str]:
    """1×1 and 3×3 convolutions in turn."""
    return [_conv(filters << (i % 2), 1 + 2 * (i % 2)) for i in range(count)]


def _yolo(mask: str, anchors: str, scale: float = 1.0) -> list[str]:
    last = _section("convolutional", size=1, stride=1, pad=1, filters="$filters*3", activation="linear")
    number = anchors.count(",") // 2 + 1
    return [last, _section("yolo", mask=mask, anchors=anchors, classes="$classes", num=number, scale_x_y=scale)]


def _region() -> list[str]:
    last = _section("convolutional", size=1, stride=1, pad=1, filters="$filters*5", activation="linear")
    return [last, _section("region", anchors=_V2_ANCHORS, classes="$classes", coords=4, num=5, softmax=1)]


def _pyramid_pool() -> list[str]:
    """Maxima over 13×13, 9×9 and 5×5 beside the input."""
    return [_max(5, 1), _route(-2), _max(9, 1), _route(-4), _max(13, 1), _route(-1, -3, -5, -6)]


def _darknet53() -> list[str]:
    parts = [_conv(32, 3)]
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        parts.append(_conv(filters, 3, 2))
        for _ in range(blocks):
            parts += [_conv(filters // 2), _conv(filters, 3), _section("shortcut", **{"from": -3})]
    return parts


def _yolov3(pool: bool) -> list[str]:
    first = [*_pairs(512, 3), *_pyramid_pool(), _conv(512), _conv(1024, 3), _conv(512)] if pool else _pairs(512, 5)
    return [
        _net(608 if pool else 416),
        *_darknet53(),
        *first,
        _conv(1024, 3),
        *_yolo("6,7,8", _V3_ANCHORS),
        *_up(256, 61),
        *_pairs(256, 6),
        *_yolo("3,4,5", _V3_ANCHORS),
        *_up(128, 36),
        *_pairs(128, 6),
        *_yolo("0,1,2", _V3_ANCHORS),
    ]


def _yolov3_tiny() -> list[str]:
    parts = [_net(416)]
    for filters in (16, 32, 64, 128, 256):
        parts += [_conv(filters, 3), _max()]
    parts += [_conv(512, 3), _max(2, 1), _conv(1024, 3), _conv(256), _conv(512, 3)]
    parts += [*_yolo("3,4,5", _TINY_ANCHORS), *_up(128, 8), _conv(256, 3)]
    return parts + _yolo("0,1,2", _TINY_ANCHORS)


def _yolov2() -> list[str]:
    parts = [_net(416), _conv(32, 3), _max(), _conv(64, 3), _max()]
    for filters, count in ((128, 3), (256, 3), (512, 5), (1024, 5)):
        parts += [_conv(filters // 2) if i % 2 else _conv(filters, 3) for i in range(count)]
        if filters < 1024:
            parts.append(_max())
    parts += [_conv(1024, 3), _conv(1024, 3), _route(-9), _conv(64), _section("reorg", stride=2), _route(-1, -4)]
    return [*parts, _conv(1024, 3), *_region()]


def _yolov2_tiny() -> list[str]:
    parts = [_net(416)]
    for filters in (16, 32, 64, 128, 256):
        parts += [_conv(filters, 3), _max()]
    return [*parts, _conv(512, 3), _max(2, 1), _conv(1024, 3), _conv(512, 3), *_region()]


def _csp_stage(filters: int, inner: int, outer: int, blocks: int) -> list[str]:
    """A stage of CSPDarknet53: half of the channels goes past the residual blocks."""

    def conv(count: int, size: int = 1, stride: int = 1) -> str:
        return _conv(count, size, stride, "mish")

    parts = [conv(filters, 3, 2), conv(outer), _route(-2), conv(outer)]
    for _ in range(blocks):
        parts += [conv(inner), conv(outer, 3), _section("shortcut", **{"from": -3})]
    return [*parts, conv(outer), _route(-1, -(3 * blocks + 4)), conv(filters)]


def _down(filters: int, source: int) -> list[str]:
    """Back to before a head, half the size, and an earlier layer beside it."""
    return [_route(-4), _conv(filters, 3, 2), _route(-1, source)]


def _yolov4() -> list[str]:
    parts = [_net(608), _conv(32, 3, activation="mish")]
    for filters, inner, outer, blocks in (
        (64, 32, 64, 1),
        (128, 64, 64, 2),
        (256, 128, 128, 8),
        (512, 256, 256, 8),
        (1024, 512, 512, 4),
    ):
        parts += _csp_stage(filters, inner, outer, blocks)
    parts += [*_pairs(512, 3), *_pyramid_pool(), *_pairs(512, 3)]
    for filters, source in ((256, 85), (128, 54)):
        parts += [_conv(filters), _section("upsample", stride=2), _route(source), _conv(filters), _route(-1, -3)]
        parts += _pairs(filters, 5)
    parts += [_conv(256, 3), *_yolo("0,1,2", _V4_ANCHORS, 1.2)]
    parts += [*_down(256, -16), *_pairs(256, 6), *_yolo("3,4,5", _V4_ANCHORS, 1.1)]
    return [*parts, *_down(512, -37), *_pairs(512, 6), *_yolo("6,7,8", _V4_ANCHORS, 1.05)]


def _yolov4_tiny() -> list[str]:
    parts = [_net(416), _conv(32, 3, 2), _conv(64, 3, 2)]
    for filters in (64, 128, 256):
        parts += [_conv(filters, 3), _route(-1, groups=2, group_id=1), _conv(filters // 2, 3), _conv(filters // 2, 3)]
        parts += [_route(-1, -2), _conv(filters), _route(-6, -1), _max()]
    parts += [_conv(512, 3), _conv(256), _conv(512, 3), *_yolo("3,4,5", _TINY_ANCHORS, 1.05)]
    return [*parts, *_up(128, 23), _conv(256, 3), *_yolo("1,2,3", _TINY_ANCHORS, 1.05)]


def _plain() -> list[str]:
    """The least that is a detector; "darknet" stands for any .cfg of one's own."""
    last = _section("convolutional", size=1, stride=1, pad=1, filters="$filters*1", activation="linear")
    return [_net(32), last, _section("yolo", anchors="8,8", classes="$classes", num=1)]


#: Texts by the name of the architecture.
CONFIGURATIONS: dict[str, str] = {
    name: "\n\n".join(parts) + "\n"
    for name, parts in {
        "yolov2": _yolov2(),
        "yolov2-tiny": _yolov2_tiny(),
        "yolov3": _yolov3(pool=False),
        "yolov3-tiny": _yolov3_tiny(),
        "yolov3-spp": _yolov3(pool=True),
        "yolov4": _yolov4(),
        "yolov4-tiny": _yolov4_tiny(),
        "darknet": _plain(),
    }.items()
}
