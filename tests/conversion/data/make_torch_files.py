"""Makes tensors_zip.pth and tensors_legacy.pth beside this file: python make_torch_files.py, with PyTorch installed.

The tests read them without PyTorch, and test_torch_file.py says what must be in them.
"""

import collections
import pathlib

import numpy as np
import torch


def content() -> dict[str, object]:
    """A small checkpoint with every kind of tensor that published ones have."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    model = collections.OrderedDict(
        plain=base,
        part=base[1:3, ::2],
        transposed=base.t(),
        half=base.half() / 3,
        bfloat16=base.bfloat16() / 3,
        double=base.double() / 3,
        number=torch.tensor(7),
        empty=torch.zeros(0, 3),
        boolean=torch.tensor([True, False]),
        bytes=torch.arange(3, dtype=torch.uint8),
        parameter=torch.nn.Parameter(base[0]),
    )
    model._metadata = {"": {"version": 1}}
    optimizer = {"state": {140: {"momentum_buffer": base + 1}}, "param_groups": [{"params": [140], "lr": 0.02}]}
    return {
        "step": 41,
        "model": model,
        "optimizer": optimizer,
        "best": np.float64(0.5),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "size": base.shape,
        "arch": "resnet50",
        "nothing": None,
    }


if __name__ == "__main__":
    folder = pathlib.Path(__file__).parent
    torch.save(content(), folder / "tensors_zip.pth")
    torch.save(content(), folder / "tensors_legacy.pth", _use_new_zipfile_serialization=False)
