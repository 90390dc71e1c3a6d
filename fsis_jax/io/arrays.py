"""Arrays of npz archives, which may be a stranger's: none takes more memory than the archive says that it has."""

import math
import sys
import zipfile

import numpy as np


def read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array of numbers or text.

    Raises:
        ValueError: it is none, or declares more than is there; and what damaged archives raise.
    """
    with archive.open(member) as part:
        if np.lib.format.read_magic(part) != (1, 0):
            raise ValueError("not a version that numpy writes for arrays of numbers")
        shape, _, dtype = np.lib.format.read_array_header_1_0(part)
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError("more declared than there is")
    with archive.open(member) as part:
        array = np.asarray(np.lib.format.read_array(part, allow_pickle=False))
    if dtype.kind == "U" and array.size and array.reshape(-1).view(np.uint32).max() > sys.maxunicode:
        raise ValueError("text of numbers that are no characters")
    return array
