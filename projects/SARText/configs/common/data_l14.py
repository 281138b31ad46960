"""Captioned images on disk for the large models: `optical` (RSICD) and `sar` (HRSID), train and retrieval.

Images lie in the folder of all data sets (`DETECTRON2_DATASETS`, else `datasets`). `optical`: made by
`datasets/prepare_rsicd.py`; further sets of optical captions: dataset=load_captioned with role="optical". `sar`: a
caption file, of which `split` picks the records, about images of the same folder:

    python datasets/prepare_hrsid.py --source HRSID_JPG
    python tools/make_captions.py annotations --dataset hrsid --output output/hrsid.jsonl

More sets: one file each, `path=[output/hrsid.jsonl,output/ssdd.jsonl]`, for both splits. SARDet-100K holds images of
HRSID and SSDD: take it without them. SAR is 8-bit amplitude, read as grey. Images are resampled to the model's 224
pixels as a whole.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.projects.sartext.data.sets import load_captioned, load_text_set
from mmovseg.projects.sartext.evaluation.retrieval_evaluator import RetrievalEvaluator

_SAR_CAPTIONS = ["output/hrsid.jsonl"]


def _mapper(modality, *, is_train):
    # No flips: captions say where things are.
    return L(OpticalSARMapper)(
        is_train=is_train,
        vocabulary=None,
        reader=L(FileReader)(sar_unit_in="amplitude8", sar_unit="amplitude8"),
        modality=modality,
        keep_caption=True,
    )


def _loaders(modality, train, test, name):
    return dict(
        train=L(build_train_loader)(
            dataset=train, mapper=_mapper(modality, is_train=True), batch_size=64, num_workers=8
        ),
        test=L(build_test_loader)(dataset=test, mapper=_mapper(modality, is_train=False), batch_size=32, num_workers=4),
        evaluator=L(RetrievalEvaluator)(dataset_name=name, modality=modality),
    )


optical = _loaders(
    "optical",
    L(load_text_set)(name="rsicd", split="train"),
    L(load_text_set)(name="rsicd", split="test"),
    "rsicd_test",
)
sar = _loaders(
    "sar",
    L(load_captioned)(path=_SAR_CAPTIONS, root=None, role="sar", split="train"),
    L(load_captioned)(path=_SAR_CAPTIONS, root=None, role="sar", split="test"),
    "sartext_test",
)
