"""Weights of Detectron's detectors with few channels, drawn by a rule of random numbers, under its names."""

import numpy as np

COUNTS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class Drawing:
    """Blobs, one layer after the other.

    Args:
        seed: of the numbers.
        norm: "bn" or "gn", of residual blocks.
    """

    def __init__(self, seed, norm):
        self.rng = np.random.default_rng(seed)
        self.norm = norm
        self.blobs = {}

    def put(self, name, value):
        self.blobs[name] = np.asarray(value, np.float32)

    def layer(self, name, *shape, gain=1.0, bias=True, outputs_first=True):
        fan_in = np.prod(shape[1:]) if outputs_first else shape[0]
        self.put(f"{name}_w", gain * np.sqrt(2 / fan_in) * self.rng.standard_normal(shape))
        if bias:
            self.put(f"{name}_b", 0.1 * self.rng.standard_normal(shape[0 if outputs_first else 1]))

    def affine(self, name, channels, scale=1.0):
        self.put(f"{name}_s", scale * self.rng.uniform(0.5, 1.5, channels))
        self.put(f"{name}_b", 0.1 * self.rng.standard_normal(channels))

    def normed(self, name, *shape, norm=None, scale=1.0):
        norm = norm or self.norm
        self.layer(name, *shape, bias=False)
        if norm == "bn":
            self.put(f"{name}_b", np.zeros(shape[0]))  # Detectron writes it and does not read it
        self.affine(f"{name}_{norm}", shape[0], scale)

    def stage(self, name, count, inputs, inner, outputs, groups):
        for block in range(count):
            into = inputs if block == 0 else outputs
            if block == 0:
                self.normed(f"{name}_0_branch1", outputs, into, 1, 1)
            self.normed(f"{name}_{block}_branch2a", inner, into, 1, 1)
            self.normed(f"{name}_{block}_branch2b", inner, inner // groups, 3, 3)
            self.normed(f"{name}_{block}_branch2c", outputs, inner, 1, 1, scale=0.3)

    def backbone(self, depth, stages, *, width=8, groups=1, group_width=0):
        self.layer("conv1", width, 3, 7, 7, bias=False, gain=1 / 60)  # for values up to 255
        self.affine("res_conv1_bn" if self.norm == "bn" else "conv1_gn", width)
        inputs = width
        for index in range(stages):
            inner, outputs = groups * (group_width or width) * 2**index, 4 * width * 2**index
            self.stage(f"res{index + 2}", COUNTS[depth][index], inputs, inner, outputs, groups)
            inputs = outputs
        self.layer("pred", 10, inputs)


def draw(kind, seed=0):
    """The blobs of one of `KINDS`."""
    return KINDS[kind](seed)


def _pyramid(seed, *, depth=50, norm="bn", groups=1, group_width=0):
    drawing = Drawing(seed, norm)
    drawing.backbone(depth, 4, groups=groups, group_width=group_width)
    for index, count in enumerate(COUNTS[depth]):
        name = f"res{index + 2}_{count - 1}_sum"
        lateral = f"fpn_inner_{name}{'' if index == 3 else '_lateral'}"
        for blob, shape in ((lateral, (4 * 8 * 2**index, 1, 1)), (f"fpn_{name}", (16, 3, 3))):
            if norm == "gn":
                drawing.normed(blob, 16, *shape)
            else:
                drawing.layer(blob, 16, *shape, gain=0.05 if blob == lateral else 1.0)
    drawing.layer("conv_rpn_fpn2", 16, 16, 3, 3)
    drawing.layer("rpn_cls_logits_fpn2", 3, 16, 1, 1)
    drawing.layer("rpn_bbox_pred_fpn2", 12, 16, 1, 1, gain=0.1)
    return drawing


def _outputs(drawing, inputs, classes, gain=2.0):
    drawing.layer("cls_score", classes + 1, inputs, gain=gain)
    drawing.layer("bbox_pred", 4 * (classes + 1), inputs, gain=0.3)


def _mlp(drawing, classes):
    drawing.layer("fc6", 32, 16 * 49)
    drawing.layer("fc7", 32, 32)
    _outputs(drawing, 32, classes, gain=0.4)


def _mask_rcnn(seed, **options):
    drawing = _pyramid(seed, **options)
    _mlp(drawing, 3)
    for row in range(4):
        drawing.layer(f"_[mask]_fcn{row + 1}", 16, 16, 3, 3)
    drawing.layer("conv5_mask", 16, 16, 2, 2, outputs_first=False)
    drawing.layer("mask_fcn_logits", 4, 16, 1, 1)
    return drawing.blobs


def _keypoint_rcnn(seed):
    drawing = _pyramid(seed)
    _mlp(drawing, 1)
    for row in range(8):
        drawing.layer(f"conv_fcn{row + 1}", 16, 16, 3, 3)
    drawing.layer("kps_score_lowres", 16, 17, 4, 4, outputs_first=False)
    drawing.put("kps_score_w", np.zeros((17, 17, 4, 4)))  # the fixed kernel, which nothing reads
    drawing.put("kps_score_b", np.zeros(17))
    return drawing.blobs


def _group_norm(seed):
    drawing = _pyramid(seed, norm="gn")
    for row in range(4):
        drawing.normed(f"head_conv{row + 1}", 32, 16 if row == 0 else 32, 3, 3)
    drawing.layer("fc6", 32, 32 * 49)
    _outputs(drawing, 32, 3)
    for row in range(4):
        drawing.normed(f"_mask_fcn{row + 1}", 32, 16 if row == 0 else 32, 3, 3)
    drawing.layer("conv5_mask", 32, 32, 2, 2, outputs_first=False)
    drawing.layer("mask_fcn_logits", 4, 32, 1, 1)
    return drawing.blobs


def _c4(seed, *, masks):
    drawing = Drawing(seed, "bn")
    drawing.backbone(50, 3)
    drawing.layer("conv_rpn", 128, 128, 3, 3)
    drawing.layer("rpn_cls_logits", 15, 128, 1, 1)
    drawing.layer("rpn_bbox_pred", 60, 128, 1, 1, gain=0.1)
    drawing.stage("res5", 3, 128, 64, 256, 1)
    _outputs(drawing, 256, 3)
    if masks:
        drawing.layer("conv5_mask", 256, 12, 2, 2, outputs_first=False)
        drawing.layer("mask_fcn_logits", 4, 12, 1, 1)
    return drawing.blobs


KINDS = {
    "Faster R-CNN C4": lambda seed: _c4(seed, masks=False),
    "Mask R-CNN C4": lambda seed: _c4(seed, masks=True),
    "Mask R-CNN FPN": _mask_rcnn,
    "Keypoint R-CNN FPN": _keypoint_rcnn,
    "Mask R-CNN FPN with group norm": _group_norm,
    "Mask R-CNN X-101 FPN": lambda seed: _mask_rcnn(seed, depth=101, groups=4, group_width=2),
}
