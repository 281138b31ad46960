"""What disks, memory and damaged rasters do to a run, as one sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from mmovseg.errors import UserError, one_line


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what disks, memory and rasters do to a run into a `UserError`."""
    from rasterio.errors import RasterioError

    try:
        yield
    except UserError:
        raise
    except RasterioError as error:
        raise UserError(f"a raster cannot be read or written: {_root_cause(error)}") from error
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        advice = "; make room and give the command again" if error.errno == errno.ENOSPC else ""
        raise UserError(f"{where}{error.strerror or error}{advice}") from error
    except MemoryError as error:
        raise UserError(f"there is not enough memory{_details(error)}; give smaller --tile or --batch") from error
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" and "allocate memory" not in str(error):
            raise
        raise UserError("there is not enough memory for the model; give smaller --tile or --batch") from error


def _details(error: BaseException) -> str:
    return f" ({one_line(error)})" if str(error) else ""


def _root_cause(error: BaseException) -> str:
    """Return the innermost message: rasterio's own often only says that one should look there."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
