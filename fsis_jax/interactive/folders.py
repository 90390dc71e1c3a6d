"""Which files a front end may open: those that were named when it was started, and all below the folders named then."""

import os
import pathlib
from collections.abc import Iterator, Sequence

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import user_path
from fsis_jax.io.finding import image_files


class Folders:
    """Files and folders that may be opened, as they are once all symbolic links are followed.

    Args:
        given: paths of files and folders.
        later: folders that may come to be.

    Raises:
        FsisError: a given one is not there.
    """

    def __init__(self, given: Sequence[str], later: Sequence[str | os.PathLike[str]] = ()) -> None:
        self.roots = tuple(_real(os.fspath(path)) for path in (*given, *later))
        for path, root in zip(given, self.roots, strict=False):
            if not root.exists():
                raise FsisError(f"{path}: no such file or folder: check the path")
        self._told: set[pathlib.Path] = set()

    def allowed(self, path: str) -> str:
        """The absolute path of an image, without symbolic links: it says where the file really lies.

        Raises:
            FsisError: that is none of the given files and below none of the given folders, or no path at all.
        """
        place = _real(path)
        if not any(place.is_relative_to(root) for root in self.roots):
            known = ", ".join(map(str, self.roots[:3])) + ", ..." * (len(self.roots) > 3)
            raise FsisError(f"{path}: not below what may be opened here ({known}): start again with its folder")
        return str(place)

    def images(self) -> list[str]:
        """The images that were given, and those directly in the folders that were, as `image_files` finds them."""
        return list(dict.fromkeys(self._found()))

    def _found(self) -> Iterator[str]:
        for root in self.roots:
            try:
                found = image_files([str(root)], tell=root not in self._told)
            except FsisError:  # a folder without images, whose folders may have some
                continue
            finally:
                self._told.add(root)
            for file in found:
                real = _real(file)  # of a link, where it leads
                if any(real.is_relative_to(other) for other in self.roots):
                    yield str(real)


class Everywhere(Folders):
    """All of them may be opened, for front ends whose user opens files by other ways."""

    def __init__(self) -> None:
        super().__init__([])

    def allowed(self, path: str) -> str:
        """The absolute path of an image, as of `Folders`.

        Raises:
            FsisError: no path at all.
        """
        return str(_real(path))


def _real(path: str) -> pathlib.Path:
    if "\0" in path:
        raise FsisError(f"{path!r}: no path of a file")
    return pathlib.Path(os.path.realpath(user_path(path)))
