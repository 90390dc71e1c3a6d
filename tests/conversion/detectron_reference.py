"""Detectron's detectors at test, from its blobs, in numpy and float64: what converted weights are held against.

Written after detectron/modeling and detectron/core/test.py, without a line of ours: Faster, Mask and Keypoint R-CNN
with the body C4 or FPN, fixed scales or group norm, ResNet or ResNeXt. Arrays are (N, C, H, W), as there.
"""

import dataclasses
import math

import numpy as np

PIXEL_MEANS = np.array([102.9801, 115.9465, 122.7717])
"""Of blue, green and red."""
CLIP = math.log(1000 / 16)


@dataclasses.dataclass
class Found:
    """What a network makes of one image."""

    features: dict
    """level -> (C, h, w), what heads read."""
    rpn: dict
    """level -> objectness logits (A, h, w)."""
    rois: np.ndarray
    """(R, 4) on the network's image."""
    scores: np.ndarray
    """(R, classes) logits, background first."""
    deltas: np.ndarray
    """(R, 4 * classes)."""
    boxes: np.ndarray
    """(D, 4) of the image as it was; by descending score."""
    box_scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None
    """(D, M, M) logits of each box's class."""
    heat_maps: np.ndarray | None
    """(D, K, M, M)."""


def run(blobs, image, scale, original_size, *, stride_in_1x1, sampling_ratio, groups=1):
    """
    Args:
        blobs: name -> array.
        image: (H, W, 3) red, green, blue, 0 to 255, as the network is to see it, with sides in multiples of 32.
        scale: its pixels over those of the image as it was, of `original_size`.
        groups: of the 3x3 convolutions.
    """
    net = _Network({name: value.astype(np.float64) for name, value in blobs.items()}, stride_in_1x1, groups)
    x = (image[..., ::-1].astype(np.float64) - PIXEL_MEANS).transpose(2, 0, 1)[None]
    levels = net.levels(x)
    size = image.shape[:2]
    logits, rois = {}, []
    for level, features in levels.items():
        logits[level], *proposed = net.propose(features, level, size)
        rois.append(proposed)
    boxes, scores = (np.concatenate(part) for part in zip(*rois, strict=True))
    boxes = boxes[np.argsort(-scores, kind="stable")[:1000]]

    def pool(rois, size):
        return net.pool(levels, rois, size, sampling_ratio)

    vectors = net.box_vectors(pool)(boxes)
    class_logits = vectors @ net["cls_score_w"].T + net["cls_score_b"]
    deltas = vectors @ net["bbox_pred_w"].T + net["bbox_pred_b"]
    found = _detections(boxes / scale, class_logits, deltas, original_size)
    masks = net.masks(pool, found[0] * scale, found[2]) if "conv5_mask_w" in blobs else None
    heat = net.heat_maps(pool, found[0] * scale) if "kps_score_lowres_w" in blobs else None
    features = {level: f[0] for level, f in levels.items()}
    return Found(features, logits, boxes, class_logits, deltas, *found, masks, heat)


def _detections(rois, logits, deltas, size):
    exp = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exp / exp.sum(1, keepdims=True)
    kept = []
    for label in range(1, probabilities.shape[1]):
        boxes = clip(decode(rois, deltas[:, 4 * label : 4 * label + 4], (10, 10, 5, 5)), size)
        score = probabilities[:, label]
        rows = np.flatnonzero(score > 0.05)
        rows = rows[nms(boxes[rows], score[rows], 0.5)]
        kept += [(score[row], label, boxes[row]) for row in rows]
    kept = sorted(kept, key=lambda found: -found[0])[:100]
    return (
        np.array([box for _, _, box in kept]).reshape(-1, 4),
        np.array([score for score, _, _ in kept]),
        np.array([label for _, label, _ in kept], int),
    )


class _Network:
    def __init__(self, blobs, stride_in_1x1, groups):
        self.blobs, self.stride_in_1x1, self.groups = blobs, stride_in_1x1, groups
        self.pyramid = any(name.startswith("fpn_") for name in blobs)

    def __getitem__(self, name):
        return self.blobs[name]

    def conv(self, x, name, stride=1, pad=0, groups=1):
        bias = None if f"{name}_gn_s" in self.blobs or f"{name}_bn_s" in self.blobs else self.blobs.get(f"{name}_b")
        return self.norm(conv(x, self[f"{name}_w"], bias, stride, pad, groups), name)

    def norm(self, x, name):
        if f"{name}_gn_s" in self.blobs:
            return group_norm(x, self[f"{name}_gn_s"], self[f"{name}_gn_b"])
        if f"{name}_bn_s" in self.blobs:
            return x * self[f"{name}_bn_s"][:, None, None] + self[f"{name}_bn_b"][:, None, None]
        return x

    def levels(self, x):
        stem = "conv1" if "conv1_gn_s" in self.blobs else "res_conv1"
        x = relu(self.norm(conv(x, self["conv1_w"], None, 2, 3), stem))
        x = max_pool(x)
        outputs = {}
        for stage in (2, 3, 4, 5) if self.pyramid else (2, 3, 4):
            x = self.stage(x, f"res{stage}", 1 if stage == 2 else 2)
            outputs[stage] = x
        if not self.pyramid:
            return {4: x}
        last = {stage: self.count(f"res{stage}") - 1 for stage in outputs}
        inner = self.conv(outputs[5], f"fpn_inner_res5_{last[5]}_sum")
        levels = {5: self.conv(inner, f"fpn_res5_{last[5]}_sum", pad=1)}
        for stage in (4, 3, 2):
            top = inner.repeat(2, axis=2).repeat(2, axis=3)
            inner = top + self.conv(outputs[stage], f"fpn_inner_res{stage}_{last[stage]}_sum_lateral")
            levels[stage] = self.conv(inner, f"fpn_res{stage}_{last[stage]}_sum", pad=1)
        levels[6] = levels[5][:, :, ::2, ::2]
        return dict(sorted(levels.items()))

    def count(self, stage):
        return sum(f"{stage}_{block}_branch2a_w" in self.blobs for block in range(40))

    def stage(self, x, name, stride):
        for block in range(self.count(name)):
            step = stride if block == 0 else 1
            first, second = (step, 1) if self.stride_in_1x1 else (1, step)
            y = relu(self.conv(x, f"{name}_{block}_branch2a", first))
            y = relu(self.conv(y, f"{name}_{block}_branch2b", second, 1, self.groups))
            y = self.conv(y, f"{name}_{block}_branch2c")
            x = relu(y + (self.conv(x, f"{name}_{block}_branch1", step) if block == 0 else x))
        return x

    # -- proposals --

    def propose(self, features, level, size):
        ending = "_fpn2" if self.pyramid else ""
        x = relu(self.conv(features, f"conv_rpn{ending}", pad=1))
        logits = self.conv(x, f"rpn_cls_logits{ending}")[0]
        deltas = self.conv(x, f"rpn_bbox_pred{ending}")[0]
        stride = 2**level
        sizes = (32 * 2 ** (level - 2),) if self.pyramid else (32, 64, 128, 256, 512)
        anchors = all_anchors(stride, sizes, *logits.shape[1:])
        scores = logits.transpose(1, 2, 0).reshape(-1)
        deltas = deltas.reshape(-1, 4, *deltas.shape[1:]).transpose(2, 3, 0, 1).reshape(-1, 4)
        order = np.argsort(-scores, kind="stable")[: 1000 if self.pyramid else 6000]
        boxes = clip(decode(anchors[order], deltas[order], (1, 1, 1, 1)), size)
        scores = scores[order]
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        inside = (boxes[:, :2] + sides / 2 < np.array(size[::-1])).all(1)
        boxes, scores = boxes[inside], scores[inside]
        kept = nms(boxes, scores, 0.7)[:1000]
        return logits, boxes[kept], scores[kept]

    # -- heads --

    def pool(self, levels, rois, size, ratio):
        if not self.pyramid:
            return roi_align(levels[4][0], rois, 1 / 16, size, ratio)
        areas = (rois[:, 2] - rois[:, 0] + 1) * (rois[:, 3] - rois[:, 1] + 1)
        chosen = np.clip(np.floor(4 + np.log2(np.sqrt(areas) / 224 + 1e-6)), 2, 5).astype(int)
        out = np.zeros((len(rois), levels[2].shape[1], size, size))
        for level in range(2, 6):
            rows = np.flatnonzero(chosen == level)
            out[rows] = roi_align(levels[level][0], rois[rows], 1 / 2**level, size, ratio)
        return out

    def box_vectors(self, pool):
        if "head_conv1_w" in self.blobs:
            return lambda rois: self.fc(self.stack(pool(rois, 7), "head_conv"), "fc6")
        if "fc7_w" in self.blobs:
            return lambda rois: self.fc(self.fc(pool(rois, 7), "fc6"), "fc7")
        return lambda rois: self.stage(pool(rois, 14), "res5", 2).mean((2, 3))

    def fc(self, x, name):
        return relu(x.reshape(len(x), -1) @ self[f"{name}_w"].T + self[f"{name}_b"])

    def stack(self, x, name):
        row = 1
        while f"{name}{row}_w" in self.blobs:
            x = relu(self.conv(x, f"{name}{row}", pad=1))
            row += 1
        return x

    def masks(self, pool, rois, classes):
        if self.pyramid:
            name = "_mask_fcn" if "_mask_fcn1_w" in self.blobs else "_[mask]_fcn"
            x = self.stack(pool(rois, 14), name)
        else:
            x = self.stage(pool(rois, 14), "res5", 2)
        x = relu(transposed_conv(x, self["conv5_mask_w"], self["conv5_mask_b"], 2, 0))
        logits = self.conv(x, "mask_fcn_logits")
        return logits[np.arange(len(rois)), classes]

    def heat_maps(self, pool, rois):
        x = self.stack(pool(rois, 14), "conv_fcn")
        x = transposed_conv(x, self["kps_score_lowres_w"], self["kps_score_lowres_b"], 2, 1)
        return transposed_conv(x, bilinear_kernel(x.shape[1]), 0, 2, 1)


def relu(x):
    return np.maximum(x, 0)


def conv(x, kernel, bias, stride=1, pad=0, groups=1):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    outputs, inputs, height, width = kernel.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(2, 3))[:, :, ::stride, ::stride]
    parts = [
        np.tensordot(
            windows[:, g * inputs : (g + 1) * inputs],
            kernel[g * outputs // groups : (g + 1) * outputs // groups],
            ((1, 4, 5), (1, 2, 3)),
        )
        for g in range(groups)
    ]
    y = np.concatenate(parts, -1).transpose(0, 3, 1, 2)
    return y if bias is None else y + bias[:, None, None]


def transposed_conv(x, kernel, bias, stride, pad):
    """Each input pixel writes its multiple of the kernel (inputs, outputs, h, w); `pad` is cut off."""
    number, _, height, width = x.shape
    rows, columns = kernel.shape[2:]
    y = np.zeros((number, kernel.shape[1], (height - 1) * stride + rows, (width - 1) * stride + columns))
    for i in range(rows):
        for j in range(columns):
            part = np.einsum("nchw,co->nohw", x, kernel[:, :, i, j])
            y[:, :, i : i + height * stride : stride, j : j + width * stride : stride] += part
    y = y[:, :, pad : y.shape[2] - pad, pad : y.shape[3] - pad]
    return y + (bias[:, None, None] if np.ndim(bias) else bias)


def bilinear_kernel(channels):
    """Of Detectron's BilinearInterpolation by two."""
    line = 1 - np.abs(np.arange(4) - 1.5) / 2
    kernel = np.zeros((channels, channels, 4, 4))
    kernel[range(channels), range(channels)] = np.outer(line, line)
    return kernel


def group_norm(x, scale, shift, groups=32):
    number, channels = x.shape[:2]
    groups = min(groups, channels)
    y = x.reshape(number, groups, -1)
    y = (y - y.mean(2, keepdims=True)) / np.sqrt(y.var(2, keepdims=True) + 1e-5)
    return y.reshape(x.shape) * scale[:, None, None] + shift[:, None, None]


def max_pool(x):
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((4, 5))


def all_anchors(stride, sizes, height, width):
    """(h * w * A, 4): ratios 0.5, 1, 2, and all sizes of each."""
    base = []
    centre = (stride - 1) / 2
    for ratio in (0.5, 1, 2):
        w = np.round(np.sqrt(stride * stride / ratio))
        h = np.round(w * ratio)
        for size in sizes:
            sides = np.array([w, h]) * size / stride
            base.append(np.concatenate([centre - (sides - 1) / 2, centre + (sides - 1) / 2]))
    y, x = np.mgrid[:height, :width] * stride
    shifts = np.stack([x, y, x, y], -1)
    return (shifts[:, :, None] + np.array(base)).reshape(-1, 4)


def decode(boxes, deltas, weights):
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    centres = boxes[:, :2] + sides / 2
    moved = centres + deltas[:, :2] / np.array(weights[:2]) * sides
    grown = np.exp(np.minimum(deltas[:, 2:] / np.array(weights[2:]), CLIP)) * sides
    return np.concatenate([moved - grown / 2, moved + grown / 2 - 1], 1)


def clip(boxes, size):
    limits = np.array([size[1], size[0]] * 2) - 1
    return np.clip(boxes, 0, limits)


def nms(boxes, scores, threshold):
    """Rows that stay, by descending score."""
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        corner = np.maximum(boxes[first, :2], boxes[order, :2])
        sides = np.maximum(np.minimum(boxes[first, 2:], boxes[order, 2:]) - corner + 1, 0)
        shared = sides.prod(1)
        order = order[shared / (areas[first] + areas[order] - shared) < threshold]
    return np.array(kept, int)


def roi_align(features, rois, scale, size, ratio):
    """(R, C, size, size): means of samples; no shift by half a pixel, and no roi less than a cell."""
    out = np.zeros((len(rois), features.shape[0], size, size))
    for row, (x1, y1, x2, y2) in enumerate(rois * scale):
        height, width = max(y2 - y1, 1), max(x2 - x1, 1)
        rows, columns = (ratio or math.ceil(side / size) for side in (height, width))
        y = y1 + (np.arange(size * rows) + 0.5) * height / (size * rows)
        x = x1 + (np.arange(size * columns) + 0.5) * width / (size * columns)
        sampled = _lines(y, features.shape[1]) @ features @ _lines(x, features.shape[2]).T
        out[row] = sampled.reshape(len(features), size, rows, size, columns).mean((2, 4))
    return out


def _lines(positions, length):
    """(N, length) weights of bilinear samples; nothing further than a cell outside."""
    weights = np.zeros((len(positions), length))
    inside = (positions >= -1) & (positions <= length)
    at = np.clip(positions, 0, length - 1)
    low = np.minimum(np.floor(at).astype(int), length - 1)
    high = np.minimum(low + 1, length - 1)
    rows = np.arange(len(positions))
    np.add.at(weights, (rows, low), (1 - (at - low)) * inside)
    np.add.at(weights, (rows, high), (at - low) * inside)
    return weights
