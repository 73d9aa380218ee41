"""Headers of tar archives of which none ends the reading unseen.

`tarfile` takes a header that makes no sense for the end of the archive, unless it is the first one. Others
read on behind it, or find an error there. Which headers are sound differs from one Python to the next.
"""

import tarfile
from typing import Self


class StrictHeader(tarfile.TarInfo):
    """For the `tarinfo` of `tarfile.open`: reading a header that makes no sense raises ReadError."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]  # typeshed has not all of them
            raise tarfile.ReadError(str(error)) from error
