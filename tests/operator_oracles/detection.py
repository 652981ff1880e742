"""Oracles of detection: the papers' definitions written pair by pair in torch; ONNX Runtime for roi_align.

tests/ops/test_detection.py compares with torchvision and with ONNX Runtime at sizes that definitions are too slow for.
"""

import math

import numpy as np
import onnxruntime
import torch
from onnx import helper

from operator_oracles import array_oracle, torch_oracle


def run_onnx(operator, inputs, dtype, **attributes):
    """The output, of this dtype, of one ONNX operator run by ONNX Runtime."""
    names = [f"x{i}" for i in range(len(inputs))]
    types = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), None)
        for n, a in zip(names, inputs, strict=True)
    ]
    node = helper.make_node(operator, names, ["y"], **attributes)
    result = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)
    graph = helper.make_graph([node], operator, types, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


# -- boxes -------------------------------------------------------------------------------------------------------


@torch_oracle("stop_gradient")
def stop_gradient(x):
    return x.detach()


def corners(box, fmt="xyxy"):
    a, b, c, d = box.unbind(-1)
    if fmt == "xywh":
        return a, b, a + c, b + d
    if fmt == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d


@torch_oracle("box_convert")
def box_convert(boxes, in_fmt, out_fmt):
    x1, y1, x2, y2 = corners(boxes, in_fmt)
    if out_fmt == "xyxy":
        return torch.stack([x1, y1, x2, y2], -1)
    place = (x1, y1) if out_fmt == "xywh" else ((x1 + x2) / 2, (y1 + y2) / 2)
    return torch.stack([*place, x2 - x1, y2 - y1], -1)


@torch_oracle("box_area")
def box_area(boxes, fmt):
    x1, y1, x2, y2 = corners(boxes, fmt)
    return (x2 - x1) * (y2 - y1)


@torch_oracle("clip_boxes_to_image")
def clip_boxes_to_image(boxes, size):
    height, width = size
    low = torch.zeros(4, dtype=boxes.dtype)
    return boxes.clamp(low, torch.tensor([width, height, width, height], dtype=boxes.dtype))


@torch_oracle("remove_small_boxes")
def remove_small_boxes(boxes, min_size):
    sides = boxes[:, 2:] - boxes[:, :2]
    return torch.tensor([i for i, pair in enumerate(sides.tolist()) if min(pair) >= min_size])


def measures(first, second, eps=0.0):
    """IoU, uncovered part, relative squared distance of centers and aspect term of two boxes, as scalars."""
    x1, y1, x2, y2 = first
    u1, v1, u2, v2 = second
    overlap = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).relu() * (
        torch.minimum(y2, v2) - torch.maximum(y1, v1)
    ).relu()
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - overlap
    iou = overlap / (union + eps)
    width, height = torch.maximum(x2, u2) - torch.minimum(x1, u1), torch.maximum(y2, v2) - torch.minimum(y1, v1)
    uncovered = (width * height - union) / (width * height + eps)
    centers = ((x1 + x2 - u1 - u2) / 2) ** 2 + ((y1 + y2 - v1 - v2) / 2) ** 2
    difference = torch.atan((x2 - x1) / (y2 - y1)) - torch.atan((u2 - u1) / (v2 - v1))
    return iou, uncovered, centers, width**2 + height**2, 4 / math.pi**2 * difference**2


def measure(kind, first, second, eps, loss):
    iou, uncovered, centers, diagonal, v = measures(first, second, eps if loss else 0.0)
    if kind == "generalized":
        return iou - uncovered
    if kind == "distance":
        return iou - centers / (diagonal + eps)
    if kind == "complete":
        return iou - centers / (diagonal + eps) - (v / (1 - iou + v + eps)).detach() * v
    return iou


def all_pairs(kind, boxes1, boxes2, eps=0.0, fmt="xyxy"):
    if not boxes1.is_floating_point():
        boxes1, boxes2 = boxes1.float(), boxes2.float()
    first = [c[..., :, None] for c in corners(boxes1, fmt)]
    return measure(kind, first, [c[..., None, :] for c in corners(boxes2, fmt)], eps, False)


@torch_oracle("box_iou")
def box_iou(boxes1, boxes2, fmt):
    return all_pairs("plain", boxes1, boxes2, fmt=fmt)


@torch_oracle("generalized_box_iou")
def generalized_box_iou(boxes1, boxes2):
    return all_pairs("generalized", boxes1, boxes2)


@torch_oracle("distance_box_iou")
def distance_box_iou(boxes1, boxes2, eps):
    return all_pairs("distance", boxes1, boxes2, eps)


@torch_oracle("complete_box_iou", differences=False)  # a weight in it is a constant to gradients
def complete_box_iou(boxes1, boxes2, eps):
    return all_pairs("complete", boxes1, boxes2, eps)


def loss(kind, boxes1, boxes2, reduction, eps):
    losses = 1 - measure(kind, corners(boxes1), corners(boxes2), eps, True)
    return {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]


@torch_oracle("generalized_box_iou_loss")
def generalized_box_iou_loss(boxes1, boxes2, reduction, eps):
    return loss("generalized", boxes1, boxes2, reduction, eps)


@torch_oracle("distance_box_iou_loss")
def distance_box_iou_loss(boxes1, boxes2, reduction, eps):
    return loss("distance", boxes1, boxes2, reduction, eps)


@torch_oracle("complete_box_iou_loss", differences=False)  # a weight in it is a constant to gradients
def complete_box_iou_loss(boxes1, boxes2, reduction, eps):
    return loss("complete", boxes1, boxes2, reduction, eps)


# -- suppression -------------------------------------------------------------------------------------------------


def iou_of(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


@array_oracle("batched_nms")
def batched_nms(boxes, scores, groups, threshold):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(groups[i] != groups[j] or iou_of(boxes[i].tolist(), boxes[j].tolist()) <= threshold for j in kept):
            kept.append(i)
    return np.array(kept, np.int64)


@array_oracle("nms")
def nms(boxes, scores, threshold):
    return batched_nms(boxes, scores, np.zeros(len(scores)), threshold)


@array_oracle("soft_nms")
def soft_nms(boxes, scores, sigma, iou_threshold, score_threshold, method):
    left = {i: float(score) for i, score in enumerate(scores) if score > score_threshold}
    chosen = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        chosen.append((best, left.pop(best)))
        for i in left:
            iou = iou_of(boxes[i].tolist(), boxes[best].tolist())
            if method == "gaussian":
                left[i] *= math.exp(-(iou**2) / sigma)
            elif iou > iou_threshold:
                left[i] *= 1 - iou
        left = {i: score for i, score in left.items() if score > score_threshold}
    return np.array([i for i, _ in chosen], np.int64), np.array([s for _, s in chosen], scores.dtype)


# -- regions -----------------------------------------------------------------------------------------------------


@torch_oracle("batch_boxes")
def batch_boxes(boxes):
    rows = [torch.nn.functional.pad(b, (1, 0), value=n) for n, b in enumerate(boxes)]
    return torch.cat(rows).to(max((r.dtype for r in rows), key=lambda d: (d.is_floating_point, d.itemsize)))


@array_oracle("roi_align", by="ONNX Runtime", tolerance=500.0)  # ONNX Runtime has the scale in float32
def roi_align(x, boxes, size, scale, sampling_ratio, aligned):
    height, width = (size, size) if isinstance(size, int) else size
    if x.dtype.itemsize == 2:
        x = x.astype(np.float32)
    return run_onnx(
        "RoiAlign",
        [x, boxes[:, 1:].astype(x.dtype), boxes[:, 0].astype(np.int64)],
        x.dtype,
        output_height=height,
        output_width=width,
        spatial_scale=scale,
        sampling_ratio=max(sampling_ratio, 0),
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )


def maxima(x, boxes, size, scale):
    """For each region, channel and part its cells' flat positions in x and values."""
    height, width = (size, size) if isinstance(size, int) else size
    positions = torch.arange(x.numel()).reshape(x.shape)
    values = torch.zeros(len(boxes), x.shape[1], height, width, dtype=x.dtype)
    places = torch.full(values.shape, -1)
    for k, (image, *corner) in enumerate(boxes.tolist()):
        x1, y1, x2, y2 = (math.floor(abs(c * scale) + 0.5) * (1 if c >= 0 else -1) for c in corner)
        for i in range(height):
            tall, wide = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
            rows = [r for r in range(y1 + i * tall // height, y1 - (-(i + 1) * tall // height)) if 0 <= r < x.shape[2]]
            for j in range(width):
                left, right = x1 + j * wide // width, x1 - (-(j + 1) * wide // width)
                columns = [c for c in range(left, right) if 0 <= c < x.shape[3]]
                for channel in range(x.shape[1] if rows and columns else 0):
                    part = x[image, channel][rows][:, columns].reshape(-1)
                    best = int(part.argmax())
                    values[k, channel, i, j] = part[best]
                    places[k, channel, i, j] = positions[image, channel][rows][:, columns].reshape(-1)[best]
    return values, places


@torch_oracle("roi_pool")
def roi_pool(x, boxes, size, scale):
    return maxima(x, boxes, size, scale)[0]


@torch_oracle("roi_pool_indices")
def roi_pool_indices(x, boxes, size, scale):
    return maxima(x, boxes, size, scale)[1]
