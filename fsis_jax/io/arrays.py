"""Arrays of npz archives, which may be a stranger's: none takes more memory than the archive says that it has."""

import math
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
        return np.asarray(np.lib.format.read_array(part, allow_pickle=False))
