"""Captioned images on disk for the large models: `optical` (RSICD) and `sar` (a caption file), train and retrieval.

`optical`: `datasets/prepare_rsicd.py` makes it; further sets of optical captions: dataset=load_caption_jsonl with
role="optical". `sar`: the JSONL files of `tools/make_captions.py`, of which the images lie below `data`; SAR is 8-bit
amplitude, read as grey. Images are resampled to the model's 224 pixels as a whole.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.projects.sartext.captioning.schema import load_caption_jsonl
from mmovseg.projects.sartext.data.sets import load_text_set
from mmovseg.projects.sartext.evaluation.retrieval_evaluator import RetrievalEvaluator


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
    L(load_caption_jsonl)(path="data/sartext/train.jsonl", root="data", role="sar"),
    L(load_caption_jsonl)(path="data/sartext/test.jsonl", root="data", role="sar"),
    "sartext_test",
)
