"""Energy and CO2 of a stretch of work, by the package codecarbon (extra ``energy``), without a network."""

from __future__ import annotations

import logging
from typing import Any

from mmovseg.errors import UserError

WORLD_G_PER_KWH = 475.0
"""World average that codecarbon takes where it knows no country (IEA, Global Energy & CO2 Status Report 2019)."""


class EnergyMeter:
    """Count the energy between entering and leaving; what is known afterwards stands in `report`.

    Only this process is counted where the method allows it: by its share of the processor and of the memory. A GPU is
    always counted whole.

    Args:
        country: three-letter code of the country whose electricity is used; None takes the world average.

    Raises:
        UserError: codecarbon is not installed, or it does not know the country.
    """

    def __init__(self, country: str | None = None) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError as error:
            raise UserError(
                f"energy needs the package codecarbon ({error}); install it with: pip install 'mmovseg[energy]'"
            ) from error
        logging.getLogger("codecarbon").setLevel(logging.ERROR)
        _check_country(country)
        place: dict[str, Any] = {"force_carbon_intensity_g_co2e_kwh": WORLD_G_PER_KWH}
        if country is not None:
            place = {"country_iso_code": country.upper()}
        self.country = country
        self.report: dict[str, Any] = {}
        self._tracker = OfflineEmissionsTracker(
            measure_power_secs=1,
            tracking_mode="process",
            output_methods=[],
            log_level="error",
            allow_multiple_runs=True,
            **place,
        )

    def __enter__(self) -> EnergyMeter:
        self._tracker.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._tracker.stop()
        data = getattr(self._tracker, "final_emissions_data", None)
        if error[0] is not None:
            return
        if data is None or data.energy_consumed <= 0:
            raise UserError("codecarbon measured no energy; its own log says why")
        self.report = {
            "seconds": float(data.duration),
            "kwh": float(data.energy_consumed),
            "kg_co2": float(data.emissions),
            "cpu_kwh": float(data.cpu_energy),
            "gpu_kwh": float(data.gpu_energy),
            "ram_kwh": float(data.ram_energy),
            "source": self._source(data),
        }

    def _source(self, data: Any) -> str:
        """Say in words how each share was had and what electricity was assumed."""
        methods = [_method(part) for part in getattr(self._tracker, "_hardware", [])]
        place = data.country_name if self.country is not None else f"world average {WORLD_G_PER_KWH:.0f} g/kWh"
        return "; ".join([*(text for text in methods if text), place, f"codecarbon {data.codecarbon_version}"])


def _check_country(country: str | None) -> None:
    """Refuse a code without an energy mix at once; the tracker itself would only write a line to its log."""
    if country is None:
        return
    from codecarbon.input import DataSource

    known = DataSource().get_global_energy_mix_data()
    if country.upper() not in known:
        raise UserError(f"codecarbon knows no country '{country}'; it takes three-letter codes, for example DEU or JPN")


def _method(hardware: Any) -> str:
    """Say how codecarbon knows the power of one piece of hardware."""
    kind, mode = type(hardware).__name__, str(getattr(hardware, "_mode", ""))
    if kind == "CPU":
        tdp = f"a TDP of {getattr(hardware, '_tdp', '?')} W"
        known = {"intel_rapl": "measured by RAPL", "cpu_load": f"estimated from load and {tdp}", "constant": tdp}
        return f"CPU {known.get(mode, mode)}"
    return {"RAM": "RAM estimated", "GPU": "GPU measured by its driver"}.get(kind, kind)
