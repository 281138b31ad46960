"""Readers around readers: one for each source of a mix, and one that gives SAR another unit or other bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmovseg.data.sample import DatasetDict, RawSample, Reader
from mmovseg.data.sar import AMPLITUDE8_TOP_DB, SarUnit, check_sar_units, convert_sar, select_polarisations
from mmovseg.errors import UserError


class SourceReader:
    """Read every pair of a mix with the reader of its source (`mmovseg.data.datasets.mix_datasets`).

    Units, bands and polarisations are options of the readers; all must give SAR in one unit.

    Args:
        readers: by the name of the source.

    Raises:
        UserError: no reader, or readers whose units of SAR differ.
    """

    def __init__(self, *, readers: Mapping[str, Reader]) -> None:
        units = {name: sar_unit_of(reader) for name, reader in readers.items()}
        if not units:
            raise UserError("a reader of a mix needs at least one source")
        if len(set(units.values())) > 1:
            said = ", ".join(f"{name} {unit}" for name, unit in units.items())
            raise UserError(f"the sources of a mix must give SAR in one unit, got: {said}")
        self.readers = dict(readers)
        self.sar_unit: SarUnit = next(iter(units.values()))

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read one pair.

        Raises:
            UserError: it names no source or one without a reader, or its reader fails.
        """
        source = dataset_dict.get("source")
        if source not in self.readers:
            name = dataset_dict.get("file_name", dataset_dict.get("sar_file_name", "?"))
            raise UserError(
                f"sample '{name}' is of source '{source}'; there are readers for: {', '.join(self.readers)}"
            )
        return self.readers[str(source)](dataset_dict)


class ConvertedSar:
    """Give the SAR of a reader another unit and other bands, for readers that have no such options.

    Args:
        reader: reads the sample.
        sar_unit_in: unit of what it gives.
        sar_unit: unit wanted.
        sar_polarisations_in: names of the bands that it gives; needed to pick by name.
        sar_polarisations: names wanted, in order; a name may come twice. None = all.
        amplitude8_top_db: calibration of the unit `amplitude8`, dB of the digital number 255.

    Raises:
        UserError: unknown unit, or polarisations wanted of unnamed bands.
    """

    def __init__(
        self,
        *,
        reader: Reader,
        sar_unit_in: SarUnit = "db",
        sar_unit: SarUnit = "db",
        sar_polarisations_in: Sequence[str] | None = None,
        sar_polarisations: Sequence[str] | None = None,
        amplitude8_top_db: float = AMPLITUDE8_TOP_DB,
    ) -> None:
        check_sar_units(sar_unit_in, sar_unit)
        if sar_polarisations is not None and sar_polarisations_in is None:
            raise UserError(
                f"to pick the polarisations {', '.join(sar_polarisations)}, name those that are read as well"
            )
        self.reader = reader
        self.sar_unit_in, self.sar_unit = sar_unit_in, sar_unit
        self.sar_polarisations_in, self.sar_polarisations = sar_polarisations_in, sar_polarisations
        self.amplitude8_top_db = amplitude8_top_db

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read one sample.

        Raises:
            UserError: a polarisation is missing, or the reader fails.
        """
        raw = self.reader(dataset_dict)
        if raw.sar is None:
            return raw
        sar = raw.sar
        if self.sar_polarisations_in is not None:
            wanted = self.sar_polarisations or self.sar_polarisations_in
            source = str(dataset_dict.get("sar_file_name", "?"))
            sar = select_polarisations(sar, self.sar_polarisations_in, wanted, source=source)
        sar = convert_sar(
            sar, unit_in=self.sar_unit_in, unit_out=self.sar_unit, amplitude8_top_db=self.amplitude8_top_db
        )
        return replace(raw, sar=sar)


def sar_unit_of(reader: Reader) -> SarUnit:
    """Return the unit of the SAR that a reader gives; readers without the attribute `sar_unit` give dB."""
    unit: SarUnit = getattr(reader, "sar_unit", "db")
    return unit
