"""Captioning and question answering on SAR scenes of MiniEarth.

`captions`: test and evaluator of generated captions, scored against all captions of a scene. `questions`: train, test
and evaluator; `questions_turned` the same with training images flipped and turned, which no question asks after.
Without that an image is always shown alike, and a classifier on frozen features encodes it once.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.transforms import RandomFlip, RandomRotate90
from mmovseg.projects.sartext.data.question_mapper import QuestionMapper
from mmovseg.projects.sartext.data.questions import load_stage_questions
from mmovseg.projects.sartext.data.stages import load_stage
from mmovseg.projects.sartext.data.tasks import AskingMapper
from mmovseg.projects.sartext.evaluation.captioning import CaptioningEvaluator, most_frequent_caption
from mmovseg.projects.sartext.evaluation.vqa import VQAEvaluator, answer_prior

_STAGE = "sar"
_MODALITY = "sar"
_DATASET = "miniearth_sar_test"


def _image_mapper(*, is_train, turned=False, keep_caption=False):
    return L(OpticalSARMapper)(
        is_train=is_train,
        vocabulary=None,
        reader=L(MiniEarthReader)(),
        geometry=[L(RandomFlip)(), L(RandomRotate90)()] if turned else [],
        views=1 if is_train and not turned else None,
        modality=_MODALITY,
        keep_caption=keep_caption,
    )


def _questions(*, turned):
    train = L(build_train_loader)(
        dataset=L(load_stage_questions)(stage=_STAGE),
        mapper=L(QuestionMapper)(
            mapper=_image_mapper(is_train=True, turned=turned), is_train=True, keep_images=not turned
        ),
        batch_size=64,
    )
    test = L(build_test_loader)(
        dataset=L(load_stage_questions)(stage=_STAGE, split="test"),
        mapper=L(QuestionMapper)(mapper=_image_mapper(is_train=False), is_train=False, keep_images=True),
        batch_size=100,
    )
    evaluator = L(VQAEvaluator)(
        dataset_name=_DATASET,
        prior=L(answer_prior)(dataset=L(load_stage_questions)(stage=_STAGE)),
        closed_types=["dominant"],  # its answers are the names of the classes
        modality=_MODALITY,
    )
    return dict(train=train, test=test, evaluator=evaluator)


captions = dict(
    test=L(build_test_loader)(
        dataset=L(load_stage)(stage=_STAGE, split="test"),
        mapper=L(AskingMapper)(mapper=_image_mapper(is_train=False, keep_caption=True), task="caption"),
        batch_size=50,
    ),
    evaluator=L(CaptioningEvaluator)(
        dataset_name=_DATASET,
        baseline=L(most_frequent_caption)(dataset=L(load_stage)(stage=_STAGE), reader=L(MiniEarthReader)()),
        modality=_MODALITY,
    ),
)
questions = _questions(turned=False)
questions_turned = _questions(turned=True)
