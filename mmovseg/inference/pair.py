"""The image pair that a command line names, as arrays in the units of the model."""

from __future__ import annotations

import argparse
import math
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from mmovseg.checkpoint.contract import contract_from_dict
from mmovseg.data.io import FileReader
from mmovseg.data.raster import Raster
from mmovseg.data.sample import MODALITIES, DatasetDict
from mmovseg.data.sar import SAR_UNITS, SarUnit, convert_sar
from mmovseg.errors import UserError
from mmovseg.inference.scene.contract_check import check_values
from mmovseg.inference.scene.rasters import SceneInputs
from mmovseg.inference.scene.sources import OpticalSource, SarSource

if TYPE_CHECKING:
    from mmovseg.inference.predictor import Predictor


def add_pair_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `read_pair` reads."""
    parser.add_argument("--optical", metavar="FILE", help="optical image (8/16-bit, float with --optical-range)")
    parser.add_argument("--sar", metavar="FILE", help="SAR image of the same size")
    parser.add_argument("--modality", choices=MODALITIES, default="both", help="ignore one of two given images")
    parser.add_argument("--sar-unit", choices=SAR_UNITS, help="default: amplitude8 for 8-bit files, else db")
    parser.add_argument("--sar-bands", type=int, nargs="+", metavar="N", help="1-based, in the order of the model")
    parser.add_argument("--optical-bands", type=int, nargs="+", metavar="N", help="1-based red, green, blue")
    parser.add_argument(
        "--optical-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of black and white"
    )
    add_override_argument(parser)


def add_override_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument with which `check_files` refuses nothing."""
    parser.add_argument(
        "--override-contract", action="store_true", help="go on with images that are not what the model was trained on"
    )


def read_pair(args: argparse.Namespace, predictor: Predictor) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Read what the command line names.

    Args:
        args: with the arguments of `add_pair_arguments`.
        predictor: whose model says which unit, channels and values it was trained on.

    Returns:
        Optical (H, W, B) on the 0..255 scale and SAR (H, W, P) in the unit of the model; None for an image that is not
        there. NaN is not data.

    Raises:
        UserError: neither image is given, a file is unusable, its unit is unclear, the two differ in size, or values do
            not look like what the model was trained on.
    """
    paths: DatasetDict = {}
    if args.optical and args.modality != "sar":
        paths["file_name"] = args.optical
    if args.sar and args.modality != "optical":
        paths["sar_file_name"] = args.sar
    if not paths:
        raise UserError(f"no image to segment for modality '{args.modality}': give --optical, --sar or both")
    sample = FileReader(bands=args.optical_bands, optical_range=args.optical_range, sar_bands=args.sar_bands)(paths)
    optical, sar = sample.optical, sample.sar
    if optical is not None and sample.optical_valid is not None and not sample.optical_valid.all():
        optical = np.where(sample.optical_valid[..., None], optical, np.nan)
    unit: SarUnit = "db"
    if sar is not None:
        unit = args.sar_unit or guess_sar_unit(sar, args.sar)
        sar = convert_sar(sar, unit_in=unit, unit_out=predictor.sar_unit)
        sar = fit_polarisations(sar, predictor.num_polarisations, args.sar)
    check_files(args, predictor, optical=paths.get("file_name"), sar=paths.get("sar_file_name"), sar_unit=unit)
    return optical, sar


def check_files(
    args: argparse.Namespace, predictor: Predictor, *, optical: str | None, sar: str | None, sar_unit: SarUnit
) -> None:
    """Check that files look like what a model was trained on, as those of a scene; print what is merely odd.

    Args:
        args: says which bands and which range are read, and whether to go on all the same.
        predictor: of the model; without an input contract only files without data are refused.
        optical, sar: readable files; None for one that is not there.
        sar_unit: of the SAR file.

    Raises:
        UserError: a file holds no data, or does not look like what the model was trained on.
    """
    contract = contract_from_dict(predictor.contract) if predictor.contract else None
    notes: list[str] = []
    # That NaN is no data holds anyway; with it, nobody is sent to options that only scenes have.
    inputs = SceneInputs(optical_nodata=math.nan, sar_nodata=math.nan)
    optical_source = sar_source = None
    with ExitStack() as stack:
        if optical is not None:
            raster = stack.enter_context(Raster(optical, "optical"))
            optical_source = OpticalSource(
                raster, bands=raster.rgb_bands(args.optical_bands), optical_range=args.optical_range
            )
        if sar is not None:
            raster = stack.enter_context(Raster(sar, "SAR"))
            bands = args.sar_bands or raster.data_bands()
            sar_source = SarSource(raster, bands=bands, channels=len(bands), unit=sar_unit, unit_out=predictor.sar_unit)
        check_values(
            optical_source,
            sar_source,
            contract=contract,
            inputs=inputs,
            override=args.override_contract,
            warnings=notes,
        )
    for note in notes:
        print(f"note: {note}")


def guess_sar_unit(sar: np.ndarray, path: str) -> SarUnit:
    """Return `likely_sar_unit` and say so; errors as there."""
    unit = likely_sar_unit(sar, path)
    print(f"reading '{path}' as {unit} (--sar-unit changes that)")
    return unit


def likely_sar_unit(sar: np.ndarray, path: str) -> SarUnit:
    """Return the unit that values suggest: whole numbers 0..255 are amplitude8, values below 0 are dB.

    Raises:
        UserError: the values fit both dB and power.
    """
    values = sar[np.isfinite(sar)]
    if values.size and values.min() >= 0 and values.max() <= 255 and (values == np.rint(values)).all():
        return "amplitude8"
    if values.size == 0 or values.min() < 0:
        return "db"
    raise UserError(f"the unit of '{path}' is unclear (values {values.min():g}..{values.max():g}); give --sar-unit")


def fit_polarisations(sar: np.ndarray, wanted: int | None, path: str) -> np.ndarray:
    """Return SAR with as many channels as the model wants: a single (or grey) band stands in for all, with a notice.

    Raises:
        UserError: there are several different bands, and not as many as the model wants.
    """
    count = sar.shape[2]
    if wanted is None or count == wanted:
        return sar
    if not np.array_equal(sar, np.repeat(sar[..., :1], count, axis=2), equal_nan=True):
        raise UserError(f"'{path}' has {count} bands, the model wants {wanted}; choose with --sar-bands")
    print(f"'{path}' has one polarisation, the model wants {wanted}: it is given the same one {wanted} times")
    return np.repeat(sar[..., :1], wanted, axis=2)
