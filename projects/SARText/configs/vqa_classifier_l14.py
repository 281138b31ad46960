"""Questions of SARLANG-1M by a classifier over the answers of its training part, on the frozen ViT-L/14 of stage 2.

    tools/train_net.py --config-file projects/SARText/configs/vqa_classifier_l14.py

Put its text files beside its images: `data/sarlang/train.csv`, `test.csv` and `SARimages/`. Its questions of the SARDet
part need the list of classes in front (`prefix`); conversation files are read by `load_conversations` instead. The
recipe is ours.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.projects.sartext.data.question_mapper import QuestionMapper
from mmovseg.projects.sartext.data.questions import load_sarlang_csv
from mmovseg.projects.sartext.evaluation.vqa import VQAEvaluator, answer_prior
from mmovseg.projects.sartext.modeling.answer_classifier import AnswerClassifier, answer_vocabulary

train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

_root = "data/sarlang/SARimages"
_questions = L(load_sarlang_csv)(path="data/sarlang/train.csv", root=_root, prefix="")
_asked = L(load_sarlang_csv)(path="data/sarlang/test.csv", root=_root, prefix="")


def _mapper(*, is_train):
    image = L(OpticalSARMapper)(
        is_train=is_train,
        vocabulary=None,
        reader=L(FileReader)(sar_unit_in="amplitude8", sar_unit="amplitude8"),
        views=1 if is_train else None,  # shown in one way: the frozen model encodes an image once
        modality="sar",
    )
    return L(QuestionMapper)(mapper=image, is_train=is_train)


model = L(AnswerClassifier)(
    encoder=get_config("projects/SARText/configs/common/models_l14.py").clip_sar,
    answers=L(answer_vocabulary)(dataset=_questions, most=1000),
    hidden=1024,
)
model.encoder.weights = "output/sartext/clip_sar_l14/model_final.safetensors"
dataloader = dict(
    train=L(build_train_loader)(dataset=_questions, mapper=_mapper(is_train=True), batch_size=256, num_workers=8),
    test=L(build_test_loader)(dataset=_asked, mapper=_mapper(is_train=False), batch_size=256, num_workers=4),
    evaluator=L(VQAEvaluator)(dataset_name="sarlang_test", prior=L(answer_prior)(dataset=_questions), modality="sar"),
)
optimizer.base_lr = 1e-3
optimizer.weight_decay = 0.05
lr_multiplier.warmup_iters = 500
train.max_iter = 20000
train.amp.enabled = True
train.output_dir = "output/sartext/vqa_classifier_l14"
