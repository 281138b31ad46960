"""Paired and unpaired images for pretraining: batches of one kind, partners by chance, crops together or apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from detectron2.data.transforms import Augmentation

from mmovseg.data.mapper import DRAW_KEY, OpticalSARMapper
from mmovseg.data.sample import ModelInput, Reader
from mmovseg.data.samplers import PureBatchSampler
from mmovseg.data.transforms import OpticalJitter, SarJitter
from mmovseg.errors import UserError

Use = Literal["both", "paired", "unpaired"]
USES: tuple[Use, ...] = get_args(Use)
Unequal = Literal["refuse", "repeat"]

_SAR_STREAM = 0x5A12  # seeds of optical and SAR differ by it, so that unpaired images are cropped apart


class PretrainingDataset(list[dict[str, Any]]):
    """Dataset dicts: pairs, then unpaired optical images, then unpaired SAR images; batches hold one kind each.

    The loader asks it for its batches (`mmovseg.data.samplers.PureBatchSampler`).
    """

    def __init__(
        self,
        pairs: Sequence[dict[str, Any]],
        optical: Sequence[dict[str, Any]],
        sar: Sequence[dict[str, Any]],
    ) -> None:
        super().__init__([*pairs, *optical, *sar])
        self.num_pairs, self.num_optical, self.num_sar = len(pairs), len(optical), len(sar)

    def batch_sampler(
        self, *, batch_size: int, seed: int, start_iter: int, rank: int, world_size: int
    ) -> PureBatchSampler:
        """Return the batches of one process; `batch_size` counts samples of one optical and one SAR image each."""
        return PureBatchSampler(
            num_pairs=self.num_pairs,
            num_optical=self.num_optical,
            num_sar=self.num_sar,
            batch_size=batch_size,
            seed=seed,
            start_iter=start_iter,
            rank=rank,
            world_size=world_size,
        )


def pretraining_dataset(
    *,
    paired: Sequence[dict[str, Any]] | None = None,
    unpaired_optical: Sequence[dict[str, Any]] | None = None,
    unpaired_sar: Sequence[dict[str, Any]] | None = None,
    unequal: Unequal = "refuse",
) -> PretrainingDataset:
    """Join pairs and unpaired images; every sample is one optical and one SAR image, of a pair or by chance.

    Args:
        paired: dicts with `file_name` and `sar_file_name`, or None.
        unpaired_optical: dicts with `file_name`, or None; given together with `unpaired_sar`.
        unpaired_sar: dicts with `sar_file_name`, or None.
        unequal: what to do when there are not as many optical as SAR images: "refuse", or "repeat" the fewer ones, so
            that an epoch takes each of the others once.

    Raises:
        UserError: nothing is given, an empty list, one modality without the other, a dict that lacks its raster, or
            unequal counts that are refused.
    """
    given = {"pairs": paired, "unpaired optical images": unpaired_optical, "unpaired SAR images": unpaired_sar}
    for name, dicts in given.items():
        if dicts is not None and len(dicts) == 0:
            raise UserError(f"the pretraining data list no {name}; leave that part out or fill it")
    if (unpaired_optical is None) != (unpaired_sar is None):
        there, missing = ("optical", "SAR") if unpaired_sar is None else ("SAR", "optical")
        raise UserError(f"the pretraining data have unpaired {there} images but no unpaired {missing} ones")
    if paired is None and unpaired_optical is None:
        raise UserError("the pretraining data have neither pairs nor unpaired images")
    optical, sar = unpaired_optical or (), unpaired_sar or ()
    if unequal not in get_args(Unequal):
        raise UserError(f"unequal must be refuse or repeat, got '{unequal}'")
    if len(optical) != len(sar) and unequal == "refuse":
        raise UserError(
            f"there are {len(optical)} unpaired optical images but {len(sar)} unpaired SAR images; give as many of "
            "both, or set dataset.unequal=repeat to see the fewer ones more often"
        )
    _check_keys(paired or (), "file_name", "sar_file_name")
    _check_keys(optical, "file_name")
    _check_keys(sar, "sar_file_name")
    return PretrainingDataset(paired or (), optical, sar)


class PretrainingMapper:
    """Turn a pair, or an optical image and the SAR image of another place, into one model input.

    Paired: one geometric draw moves both rasters. Unpaired (the dict has `sar_from`): each raster is read and moved by
    itself, with draws of its own, so the two may differ in size; `paired` is then False, `image_id` is that of both
    joined by ``+``, and `sar_source` names the source of the SAR image. Pixels come out raw: the model normalises them,
    and a teacher that wants other constants reads the same crop.

    Args:
        reader: dataset dict -> `RawSample`.
        geometry: augmentations; they must end in one size for all images.
        optical_photometric: applied to optical; the paper applies none.
        sar_photometric: applied to SAR; the paper applies none.
        seed: of everything random here, together with the number of the draw.
    """

    is_train = True
    vocabulary = asked = None

    def __init__(
        self,
        *,
        reader: Reader,
        geometry: Sequence[Augmentation] = (),
        optical_photometric: OpticalJitter | None = None,
        sar_photometric: SarJitter | None = None,
        seed: int = 0,
    ) -> None:
        self.reader = reader

        def part(modality: Literal["both", "optical", "sar"], seed: int) -> OpticalSARMapper:
            return OpticalSARMapper(
                is_train=True,
                vocabulary=None,
                reader=reader,
                geometry=geometry,
                optical_photometric=optical_photometric,
                sar_photometric=sar_photometric,
                modality=modality,
                seed=seed,
            )

        self._pair, self._optical = part("both", seed), part("optical", seed)
        self._sar = part("sar", seed ^ _SAR_STREAM)

    def __call__(self, dataset_dict: dict[str, Any]) -> ModelInput:
        """Map one sample.

        Raises:
            UserError: a raster is unreadable or missing, or the two of a pair differ in size; the file is named.
        """
        if "sar_from" not in dataset_dict:
            item = self._pair(dataset_dict)
            if "image" not in item or "sar" not in item:
                lacks = "SAR" if "image" in item else "optical"
                raise UserError(f"pair '{item['image_id']}' lacks its {lacks} raster")
            item["paired"] = True
            return item
        own = {key: value for key, value in dataset_dict.items() if key != "sar_from"}
        other = {**dataset_dict["sar_from"], DRAW_KEY: dataset_dict[DRAW_KEY]}
        item, sar = self._optical(own), self._sar(other)
        item["sar"] = sar["sar"]
        if "sar_valid" in sar:
            item["sar_valid"] = sar["sar_valid"]
        if "source" in sar:
            item["sar_source"] = sar["source"]
        item["image_id"] = f"{item['image_id']}+{sar['image_id']}"
        item["paired"] = False
        return item


def check_use(use: str) -> Use:
    """Return `use` when it is one of the three.

    Raises:
        UserError: it is not.
    """
    if use not in USES:
        raise UserError(f"pretraining data are used as one of {', '.join(USES)}, not '{use}'")
    return cast(Use, use)


def _check_keys(dicts: Sequence[dict[str, Any]], *keys: str) -> None:
    for item in dicts:
        for key in keys:
            if key not in item:
                name = item.get("image_id", item.get("file_name", item.get("sar_file_name", "?")))
                raise UserError(f"sample '{name}' of the pretraining data has no {key}")
