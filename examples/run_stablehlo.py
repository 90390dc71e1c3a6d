"""Find cells with what `fsis export W --to stablehlo --output FOLDER` wrote: NumPy and JAX, and nothing of fsis_jax.

    pip install jax flatbuffers    # flatbuffers is what jax.export reads programs with; NumPy comes with JAX
    python run_stablehlo.py FOLDER image.npy --box 120,80,164,131 [--box ...] [--output found.npz]

prints a line for each cell: x1 y1 x2 y2 score. The image is an array (H, W) or (H, W, 3), of any dtype, saved by
`numpy.save`; each box is around one example cell of it. All that a program in another language must do stands here:

1. Limits: the percentiles (`preprocessing.percentiles` of detector.json) of all finite values of the image, the
   channels together; its extremes where the two are equal. They become levels 0 and 255, rounded; what is beyond is
   clipped. An 8-bit image stays as it is where `preprocessing.intensity` is "none".
2. References: of each box the pixels that it touches, as levels by the limits of the image (`reference_stretch`
   "image") or of the crop itself ("crop"); in the middle of a black square; resized to `reference_size`; three
   channels. `encode` gives the features of one. Of several they are the mean.
3. Scale: `reference_pixels` over the median of sqrt(width * height) of the boxes, from `min_scale` to `max_scale`
   (`scale` "reference"); or that which makes the shortest side `shortest_side`, but the longest no longer than
   `longest_side`.
4. Canvas: the image as levels, resized by the scale, at the top left of the smallest of the `canvases` that holds it,
   black elsewhere; three channels. `find` of this canvas gives rows by score, of which those that are `valid` count.
5. Brightness, where `faintness` is above 0 and the examples are boxes in an image: what `faintness` below makes of a
   cell, times that, is taken from its log odds, and the rows are put in order again.
6. Repeats: a mask holds the pixels whose centres lie in the box and where the probabilities over the box, read
   bilinearly, exceed a half. By descending score a row is dropped of whose mask more than the share
   `most_in_better` lies in masks that were kept; where that is 0, none is.

What is not here: images that are larger than the largest canvas at their scale (the command `fsis segment` reads them
in overlapping tiles), several kinds at once, references of very different sizes, and label images.
"""

import argparse
import json
import math
import pathlib

import jax
import numpy as np
from jax import export


class Exported:
    """A detector that was exported to a folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.about = json.loads((self.folder / "detector.json").read_text())
        self.settings = self.about["preprocessing"]
        with np.load(self.folder / self.about["weights"], allow_pickle=False) as weights:
            self.weights = jax.device_put(dict(weights))
        self._programs = {}

    def encode_boxes(self, image, boxes):
        """What `find` needs of example cells: features, (k, 2) height and width of the boxes (k, 4), and brightness."""
        boxes = np.asarray(boxes, np.float64)
        own = limits(image, self.settings)
        stretch = own if self.settings["reference_stretch"] == "image" else None
        height, width = image.shape[:2]
        crops = []
        for x1, y1, x2, y2 in boxes:
            left, top = (min(max(math.floor(low), 0), most - 1) for low, most in ((x1, width), (y1, height)))
            crops.append(image[top : max(math.ceil(y2), top + 1), left : max(math.ceil(x2), left + 1)])
        features, sides, _ = self.encode_crops(crops, boxes[:, [3, 2]] - boxes[:, [1, 0]], stretch)
        shown = [brightness(to_levels(crop, own), [[0, 0, *crop.shape[1::-1]]])[0] for crop in crops]
        return features, sides, np.array(shown)

    def encode_crops(self, crops, sides=None, stretch=None):
        """The same of crops, whose brightness is not known; `sides` and `stretch` of their image, None: their own."""
        each = []
        for crop in crops:
            levels = to_levels(crop, stretch or limits(crop, self.settings))
            square = pad_to_square(levels, self.settings["legacy_reference_crop"])
            side = self.settings["reference_size"]
            area = self.settings["antialias"] and side < len(square) / 2
            square = resize(square, (side, side), (side / len(square),) * 2, area)
            each.append(self._program(self.about["encode"]["program"])(self.weights, place(square, (side, side))))
        features = {name: sum(np.asarray(x[name]) for x in each) / np.float32(len(each)) for name in each[0]}
        sides = [crop.shape[:2] for crop in crops] if sides is None else sides
        return features, np.asarray(sides, np.float32), None

    def prepare(self, image, sides):
        """The canvas (H, W, 3) uint8, the image's size on it and its scale; `sides` (k, 2) of the references."""
        height, width = image.shape[:2]
        canvases = [tuple(program["canvas"]) for program in self.about["find"]["programs"]]
        largest = max(min(rows / height, columns / width) for rows, columns in canvases)
        s = self.settings
        if s["scale"] == "reference":
            median = np.median(np.sqrt(np.prod(sides, axis=1, dtype=np.float64)))
            scale = float(np.clip(s["reference_pixels"] / median, s["min_scale"], s["max_scale"]))
            if scale > largest:
                raise SystemExit(f"{width}x{height} pixels at scale {scale:.2f}: too large for a canvas: cut it")
        else:
            scale = s["shortest_side"] / min(height, width)
            if round(scale * max(height, width)) > s["longest_side"]:
                scale = s["longest_side"] / max(height, width)
            scale = min(scale, largest)
        levels = to_levels(image, limits(image, s))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        if scale != 1:
            small = min(height, width) * scale < 1
            area = small or (s["antialias"] and scale < 0.5)
            levels = resize(levels, size, tuple(np.divide(size, (height, width))) if small else (scale, scale), area)
        fitting = [canvas for canvas in canvases if canvas[0] >= size[0] and canvas[1] >= size[1]]
        return place(levels, min(fitting, key=math.prod)), size, scale

    def find(self, image, references):
        """Boxes (n, 4), scores (n,) and masks (n, M, M), probabilities over each box, of all cells by score.

        Those that score `min_score` of detector.json count.
        """
        features, sides, shown = references
        canvas, size, scale = self.prepare(image, sides)
        (name,) = (x["program"] for x in self.about["find"]["programs"] if tuple(x["canvas"]) == canvas.shape[:2])
        window = np.array(image.shape[:2], np.int32)
        found = self._program(name)(self.weights, features, canvas, np.array(size, np.int32), np.float32(scale), window)
        found = {name: np.asarray(values) for name, values in found.items()}
        valid = found.pop("valid")
        found = {name: values[valid] for name, values in found.items()}
        if shown is not None and self.about["faintness"]:
            cells = brightness(to_levels(image, limits(image, self.settings)), found["boxes"])
            taken = np.exp(self.about["faintness"] * faintness(shown, cells))
            scores = found["scores"] / (found["scores"] + (1 - found["scores"]) * taken)
            order = np.argsort(-scores, kind="stable")
            found = {name: values[order] for name, values in (found | {"scores": scores}).items()}
        offset, share = self.about["box_offset"], self.about["most_in_better"]
        if share:
            kept = without_repeats(found["boxes"], found["masks"], image.shape[:2], share, offset)
            found = {name: values[kept] for name, values in found.items()}
        corners = found["boxes"] + np.array([0, 0, offset, offset], np.float32)
        return found | {"boxes": np.clip(corners, 0, np.array(image.shape[1::-1] * 2, np.float32))}

    def _program(self, name):
        if name not in self._programs:
            self._programs[name] = jax.jit(export.deserialize((self.folder / name).read_bytes()).call)
        return self._programs[name]


def brightness(levels, boxes):
    """(n, 2) shares of 255: the means inside and outside of an ellipse in the pixels that each box touches."""
    height, width = levels.shape[:2]
    found = []
    for x1, y1, x2, y2 in np.asarray(boxes, np.float64):
        left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
        right, bottom = (min(max(math.ceil(b), a + 1), most) for a, b, most in ((left, x2, width), (top, y2, height)))
        part = levels[top:bottom, left:right] / 255
        y, x = ((np.arange(side) + 0.5 - side / 2) / (side / 2) for side in part.shape[:2])
        inside = y[:, None] ** 2 + x[None] ** 2 <= 0.8
        inside |= not inside.any()
        cell = part[inside].mean()
        found.append((cell, cell if inside.all() else part[~inside].mean()))
    return np.array(found).reshape(-1, 2)


def faintness(shown, cells):
    """(n,) log(1 + z^2 / 4), z how far the brightness of cells (n, 2) lies from that of the examples (k, 2) towards
    what is around them, in spreads: that of the examples, to which one of 0.12 counts as eight more."""
    mean, around = shown.mean(0)
    spread = np.sqrt((8 * 0.12**2 + ((shown[:, 0] - mean) ** 2).sum()) / (8 + len(shown)))
    z = np.maximum((cells[:, 0] - mean) * np.sign(around - mean) / spread, 0)
    return np.log1p(z**2 / 4)


def without_repeats(boxes, masks, size, share, offset=0):
    """Rows, by descending score, of whose masks (n, M, M) no more than a share lies in better ones."""
    taken, kept = np.zeros(size, bool), []
    for row, (probabilities, (x1, y1, x2, y2)) in enumerate(zip(masks, boxes.tolist(), strict=True)):
        across = _sampling(x1, x2 + offset, size[1], probabilities.shape[1])
        down = _sampling(y1, y2 + offset, size[0], probabilities.shape[0])
        mask = down[1] @ probabilities @ across[1].T > 0.5
        place = taken[down[0] : down[0] + len(mask), across[0] : across[0] + mask.shape[1]]
        area = np.count_nonzero(mask)
        if area and np.count_nonzero(mask & ~place) >= (1 - share) * area:
            place |= mask
            kept.append(row)
    return np.array(kept, np.intp)


def _sampling(low, high, limit, cells):
    """The first of the p pixels with their centre between low and high, and bilinear weights (p, cells) of cells."""
    first = min(max(int(np.ceil(low - 0.5)), 0), limit)
    last = max(min(int(np.floor(high - 0.5)), limit - 1), first - 1)
    centres = np.arange(first, last + 1, dtype=np.float32) + np.float32(0.5)
    places = (centres - np.float32(low)) * np.float32(cells / max(high - low, 1e-6)) - np.float32(0.5)
    places = np.clip(places, 0, cells - 1)
    return first, np.maximum(1 - np.abs(places[:, None] - np.arange(cells, dtype=np.float32)), 0)


def limits(image, settings):
    """Values that become levels 0 and 255; None: the image has levels already."""
    if settings["intensity"] == "none" and image.dtype == np.uint8:
        return None
    values = image[..., :3] if image.ndim == 3 else image
    values = values[np.isfinite(values)].astype(np.float64)
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, settings["percentiles"])
    return (low, high) if high > low else (values.min(), values.max())


def to_levels(image, stretch):
    """uint8 (h, w) or (h, w, 3): alpha is left out, what is not finite is black."""
    image = image[..., :3] if image.ndim == 3 else image
    if stretch is None:
        return image
    low, high = stretch
    if high <= low:
        return np.zeros(image.shape, np.uint8)
    unit = (image.astype(np.float64) / 2 - low / 2) / (high / 2 - low / 2)
    return np.rint(np.where(np.isfinite(unit), np.clip(unit, 0, 1), 0) * 255).astype(np.uint8)


def pad_to_square(image, legacy):
    """The image in the middle of a black square; `legacy`: the last row or column of an odd longest side is lost."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = side // 2 - height // 2, side // 2 - width // 2
    if legacy and side % 2:
        image = image[: side - 1 if height == side else height, : side - 1 if width == side else width]
    square = np.zeros((side, side, *image.shape[2:]), np.uint8)
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def place(image, canvas):
    """(H, W, 3) uint8, the image at the top left of a black canvas."""
    placed = np.zeros((*canvas, 3), np.uint8)
    placed[: image.shape[0], : image.shape[1]] = image if image.ndim == 3 else image[..., None]
    return placed


def resize(image, size, scales, area):
    """To `size` (height, width) by `scales`, as OpenCV resizes 8-bit images (INTER_AREA or INTER_LINEAR)."""
    if scales == (0.5, 0.5) or (area and max(scales) <= 1):
        rows, columns = (_means(old, new, scale) for old, new, scale in zip(image.shape, size, scales, strict=False))
        means = np.einsum("yi,xj,ij...->yx...", rows, columns, image.astype(np.float64), optimize=True)
        return (np.floor(means + 0.5) if scales == (0.5, 0.5) else np.rint(means.astype(np.float32))).astype(np.uint8)
    (top, bottom, down), (left, right, across) = (
        _neighbours(*of) for of in zip(image.shape, size, scales, strict=False)
    )
    axes = (1,) * (image.ndim - 2)
    across, down = across.reshape(2, 1, -1, *axes), down.reshape(2, -1, 1, *axes)
    rows = [(image[:, left] * across[0] + image[:, right] * across[1])[rows] for rows in (top, bottom)]
    # Fixed point, as there: weights of 11 bits, four bits of the rows and 16 of the sums left out, then two rounded.
    upper, lower = ((weights * (row >> 4)) >> 16 for weights, row in zip(down, rows, strict=True))
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _means(old, new, scale):
    """(new, old) shares that old pixels have in new ones, which are larger."""
    starts = np.arange(new) / scale
    ends = np.minimum(starts + 1 / scale, old)
    edges = np.arange(old)
    shares = np.clip(np.minimum(ends[:, None], edges + 1) - np.maximum(starts[:, None], edges), 0, None)
    return shares / shares.sum(1, keepdims=True)


def _neighbours(old, new, scale):
    """Of each new pixel the two old ones that it lies between, and their weights (2, new), of 2048."""
    place = ((np.arange(new) + 0.5) / scale - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    share = place - first.astype(np.float32)
    weights = np.rint(np.stack([1 - share, share]) * np.float32(2048)).astype(np.int64)
    return np.clip(first, 0, old - 1), np.clip(first + 1, 0, old - 1), weights


def main():
    parser = argparse.ArgumentParser(description="Find cells with an exported detector.")
    parser.add_argument("folder")
    parser.add_argument("image", help="an array saved by numpy.save")
    parser.add_argument("--box", action="append", required=True, metavar="x1,y1,x2,y2", help="around an example cell")
    parser.add_argument("--output", help="all that was found, with masks, as .npz")
    options = parser.parse_args()
    model, image = Exported(options.folder), np.load(options.image)
    references = model.encode_boxes(image, [[float(value) for value in box.split(",")] for box in options.box])
    found = model.find(image, references)
    for box, score in zip(found["boxes"], found["scores"], strict=True):
        if score >= model.about["min_score"]:
            print(*(f"{value:.2f}" for value in box), f"{score:.4f}")
    if options.output:
        np.savez(options.output, **found)


if __name__ == "__main__":
    main()
