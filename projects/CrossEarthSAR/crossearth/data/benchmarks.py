"""The 22 domain-generalisation benchmarks of CrossEarth-SAR: train on one domain, test on another that was never seen.

`benchmarks.json` is the table: what each code means, how many images and which figures the paper reports. Where the
paper says nothing, the choice is an option of `load_benchmark`:

- which scenes of AIR-PolSAR-Seg-2.0 are north: Beijing, since mountains occur there only and the two benchmarks between
  north and south are the only ones without that class; Shanghai and Guangzhou are south;
- the polarisation where none is part of the gap: HH, as in the only public reader that trains on one of them;
- "CN" of DDHR-SK is Shandong (S is Shandong and K Korea): Xi'an is in the paper's pretraining data;
- the metric of one class is the IoU of buildings. The model has two classes, building and other, as a model with one
  class has nothing to decide between. The paper's figures fit: a map without any building would have about 45 as the
  mean over both, and the paper reports 2.7 and 8.5 for some models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from mmovseg.data.datasets.catalog import datasets_root
from mmovseg.data.datasets.sar_sets import POLARISATIONS, SPLITS, find_sar_set, load_sar_set
from mmovseg.data.vocabulary import Vocabulary, closed_vocabulary
from mmovseg.errors import UserError
from mmovseg.projects.crossearth.data.unification import label_map

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

FULL = "full"
_TABLE_FILE = Path(__file__).with_name("benchmarks.json")


@dataclass(frozen=True)
class BenchmarkDomain:
    """One side of a benchmark.

    name: short and unique; dataset dicts carry it as `source`.
    about: for tables and figures.
    dataset: of `mmovseg.data.datasets.sar_sets`.
    rendering: of `sar_sets.RENDERINGS`, None for a data set with one.
    polarisation: that is part of the gap, or ``full``; None leaves the choice to the user.
    region: key of the regions of the table; None = all.
    """

    name: str
    about: str
    dataset: str
    rendering: str | None = None
    polarisation: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """One line of the table.

    code: as in the paper, ``C(r)2R``.
    gap: what differs, joined by plus signs, for example ``region+band``.
    classes: key of the vocabulary that both sides are mapped to.
    source, target: training and test domain.
    num_train, num_test: images as reported.
    num_classes: as reported; 1 stands for buildings against the rest.
    reported: method -> mIoU in percent as reported.
    """

    code: str
    gap: str
    classes: str
    source: BenchmarkDomain
    target: BenchmarkDomain
    num_train: int
    num_test: int
    num_classes: int
    reported: Mapping[str, float]

    @property
    def slug(self) -> str:
        """The code without brackets, for names of folders and runs: ``Cr2R``."""
        return self.code.replace("(", "").replace(")", "")

    @property
    def num_gaps(self) -> int:
        """How many things differ: 1, 2 or 3."""
        return self.gap.count("+") + 1

    @property
    def metric(self) -> str:
        """Key of the evaluator's result that the paper's figure is compared with."""
        return "mIoU" if self.num_classes > 1 else "IoU-building"

    def vocabulary(self) -> Vocabulary:
        """Return the classes, all of them seen; label id = position."""
        return closed_vocabulary(self.classes)

    def load(self, part: Part, **options: Any) -> list[dict[str, Any]]:
        """Return the dataset dicts of a part; options as for `load_benchmark`."""
        return load_benchmark(self.code, part=part, **options)


def get_benchmark(code: str) -> Benchmark:
    """Return a benchmark by its code, with or without brackets; case is ignored.

    Raises:
        UserError: there is none; the message lists the codes.
    """
    wanted = code.strip().casefold()
    for benchmark in _table():
        if wanted in (benchmark.code.casefold(), benchmark.slug.casefold()):
            return benchmark
    raise UserError(f"unknown benchmark '{code}'; known: {', '.join(list_benchmarks())}")


def list_benchmarks(gap: str | None = None) -> list[str]:
    """Return the codes in the paper's order, all or those of one gap.

    Raises:
        UserError: unknown gap; the message lists the known.
    """
    gaps = list(dict.fromkeys(benchmark.gap for benchmark in _table()))
    if gap is not None and gap not in gaps:
        raise UserError(f"unknown gap '{gap}'; known: {', '.join(gaps)}")
    return [benchmark.code for benchmark in _table() if gap in (None, benchmark.gap)]


def benchmark_vocabulary(code: str) -> Vocabulary:
    """Return the classes of a benchmark, for configs."""
    return get_benchmark(code).vocabulary()


def load_benchmark(
    code: str,
    *,
    part: Part,
    polarisation: str = "hh",
    regions: Mapping[str, Sequence[str]] | None = None,
    unification: str | Path | None = None,
    root: str | Path | None = None,
) -> list[dict[str, Any]]:
    """List the images of a benchmark: split ``train`` of its source, or split ``test`` of its target.

    Args:
        code: of `list_benchmarks`.
        part: which.
        polarisation: of AIR-PolSAR-Seg-2.0 where none is part of the gap: ``hh hv vh vv``, or ``full`` for the
            composite, which has amplitudes only.
        regions: other scenes for ``north`` and ``south``, by the beginnings of their ids: ``{"north": ["bj", "gz"]}``.
        unification: JSON file that replaces parts of the class tables (`unification.read_unification`).
        root: folder of all data sets; None = that of the catalog, `DETECTRON2_DATASETS`.

    Returns:
        Dataset dicts with `sar_file_name`, `sem_seg_file_name`, `image_id`, `label_map` to the classes of the
        benchmark, `source` (name of the domain) and, where it is known, `gsd_m`.

    Raises:
        UserError: unknown code, part, polarisation or region, or the data set is not there or lacks the view.
    """
    benchmark = get_benchmark(code)
    if part not in PARTS:
        raise UserError(f"a benchmark has the parts {' and '.join(PARTS)}, got '{part}'")
    domain = benchmark.source if part == "train" else benchmark.target
    return load_domain(
        domain,
        SPLITS[PARTS.index(part)],
        classes=benchmark.classes,
        polarisation=polarisation,
        regions=regions,
        unification=unification,
        root=root,
    )


def load_domain(
    domain: BenchmarkDomain,
    split: str,
    *,
    classes: str,
    polarisation: str = "hh",
    regions: Mapping[str, Sequence[str]] | None = None,
    unification: str | Path | None = None,
    root: str | Path | None = None,
) -> list[dict[str, Any]]:
    """List the images of a domain in the classes of a benchmark; arguments and errors as `load_benchmark`."""
    known = find_sar_set(domain.dataset)
    items = load_sar_set(
        domain.dataset,
        split,
        root=datasets_root() if root is None else root,
        view=_view(domain, polarisation),
        regions=_region_words(domain, regions),
        label_map=label_map(classes, known.vocabulary, path=unification),
    )
    return [item | {"source": domain.name} for item in items]


def paper_figures() -> dict[str, dict[str, float]]:
    """Return method -> code -> mIoU in percent, *reported* in the paper's Tables 2 and 3."""
    return {method: dict(figures) for method, figures in _content()["reported"].items()}


def _view(domain: BenchmarkDomain, polarisation: str) -> str | None:
    if polarisation not in (*POLARISATIONS, FULL):
        raise UserError(f"unknown polarisation '{polarisation}'; known: {', '.join((*POLARISATIONS, FULL))}")
    if domain.rendering is None:
        return None
    return f"{domain.polarisation or polarisation}_{domain.rendering}"


def _region_words(domain: BenchmarkDomain, regions: Mapping[str, Sequence[str]] | None) -> Sequence[str] | None:
    table: dict[str, Sequence[str]] = dict(_content()["regions"])
    for name in regions or {}:
        if name not in table:
            raise UserError(f"unknown region '{name}'; known: {', '.join(table)}")
    return None if domain.region is None else (table | dict(regions or {}))[domain.region]


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_TABLE_FILE.read_text(encoding="utf-8"))
    return content


@cache
def _table() -> tuple[Benchmark, ...]:
    content = _content()
    domains = {name: BenchmarkDomain(name, **facts) for name, facts in content["domains"].items()}
    return tuple(
        Benchmark(
            code=row["code"],
            gap=row["gap"],
            classes=row["classes"],
            source=domains[row["source"]],
            target=domains[row["target"]],
            num_train=row["train"],
            num_test=row["test"],
            num_classes=row["num_classes"],
            reported={method: figures[row["code"]] for method, figures in content["reported"].items()},
        )
        for row in content["benchmarks"]
    )
