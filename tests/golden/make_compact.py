"""Makes the compact copy of the golden vectors that lies beside this file.

    python tests/golden/make_compact.py SOURCE [--output DIR]

Everything is copied as it is but for the .npz files, which are made smaller in two ways. An array that equals one
stored before, or the leading part of it, is not stored again: `aliases.json` tells where it lies (the variants share
their inputs and much of their features). And the largest arrays that pin least are left out: the tests that need
them are then skipped with a reason, and run where FSIS_GOLDEN names the full folder.
"""

import argparse
import fnmatch
import json
import pathlib
import shutil

import numpy as np

DROPPED = {
    # Maps of a level or number of references whose like stays.
    "*/infer.npz": (
        "k3_rpn_bbox_pred_P2", "k1_rpn_feat_P4", "k1_mask_act_feat_P[24]", "k1_query_feat_C4", "c56_masks28_top20",
    ),
    "V[134]_*/infer.npz": ("k1_query_feat_P3", "k1_act_aim_P3", "k1_mask_act_aim_P2", "k1_act_feat_P4"),
    "V[345]_*/infer.npz": ("k3_masks28_top20",),
    # The matching block and the heads of V5 are those of V1: its backbone is what differs.
    "V5_fpn_deform/infer.npz": (
        "img_feat_P4", "k[13]_query_feat_P[34]", "k1_*rpn_feat_P2", "k1_act_feat_P[24]", "k1_*act_aim_P[234]",
        "k1_rpn_bbox_pred_P2", "k3_rpn_cls_logits_P2", "k3_rpn_bbox_pred_P3",
    ),
    "V3_fpn_l1/infer.npz": ("k1_rpn_bbox_pred_P2", "k3_rpn_cls_logits_P2"),
    # The norm of every gradient stays.
    "*/train.npz": ("match/*_P4", "gradfull*/match_net.theta.weight", "gradfull*/match_net.ChannelGate*"),
    "V2_c4_full/train.npz": ("gradfull/Box_Outs*",),
    "V[345]_*/train.npz": ("gradfull/Conv_Body*", "gradfull/Box_Outs*"),
}  # fmt: skip
"""Pattern of files -> patterns of arrays that are left out."""

Place = tuple[str, str]
"""A file and the name of an array in it."""


def dropped(file: str, key: str) -> bool:
    """Whether the array is left out; the few numbers that describe it (`__shape`, `__stat`) stay."""
    return any(
        fnmatch.fnmatch(file, files) and any(fnmatch.fnmatch(key, pattern) for pattern in patterns)
        for files, patterns in DROPPED.items()
    ) and not key.endswith(("__shape", "__stat"))


def find_equal(value: np.ndarray, stored: dict[Place, np.ndarray]) -> Place | None:
    """Where an array lies of which this one is the leading part; None if nowhere, or if it takes hardly any space."""
    if value.nbytes < 256:
        return None
    for place, other in stored.items():
        if other.dtype == value.dtype and other.ndim == value.ndim and (np.less_equal(value.shape, other.shape)).all():
            part = other[tuple(map(slice, value.shape))]
            if part.tobytes() == value.tobytes():
                return place
    return None


def make(source: pathlib.Path, output: pathlib.Path) -> None:
    """Write the compact copy of `source` to `output`."""
    stored: dict[Place, np.ndarray] = {}
    aliases: dict[str, dict[str, list[object]]] = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        file = path.relative_to(source).as_posix()
        target = output / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".npz":
            shutil.copyfile(path, target)
            continue
        kept: dict[str, np.ndarray] = {}
        with np.load(path) as arrays:
            for key in arrays.files:
                if dropped(file, key):
                    continue
                value = arrays[key]
                place = find_equal(value, stored)
                if place is None:
                    kept[key] = stored[file, key] = value
                else:
                    aliases.setdefault(file, {})[key] = [*place, value.shape]
        np.savez_compressed(target, **kept)
    (output / "aliases.json").write_text(json.dumps(aliases, indent=0, sort_keys=True) + "\n")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()
    make(arguments.source, arguments.output)
