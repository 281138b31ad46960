"""Image-text models of open_clip (CLIP, CoCa), trained on captioned SAR or optical images by the product's loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import open_clip
import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.loss import CoCaLoss
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.checkpoint.load import load_weights
from mmovseg.data.sample import ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.layers.distributed import world_size
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.meta_arch.batching import batch_view
from mmovseg.modeling.open_clip_models import (
    clip_from_architecture,
    clip_tokenizer,
    coca_from_architecture,
    limit_logit_scale,
    model_from_name,
    pretrained_tags,
)
from mmovseg.modeling.text.tokenizer import tokenize
from mmovseg.projects.sartext.modeling.decoding import BeamSearch
from mmovseg.projects.sartext.modeling.losses import TextAwareClipLoss, text_keys

Kind = Literal["clip", "coca"]
Reads = Literal["optical", "sar"]
Tower = Literal["image", "text"]
_PRODUCT_PART = "model"
_TEXTS_AT_ONCE = 256  # bounds the memory of a gallery's texts


class ImageTextModel(nn.Module):
    """Both towers of a CLIP, or those of a CoCa with its decoder, over one modality.

    The weights lie below `model` under open_clip's names, so that ``tools/export_weights.py --part model`` writes a
    file that `mmovseg.modeling.clip.OpenCLIPEncoder` (CLIP) and `weights` here read.

    Args:
        kind: ``clip`` or ``coca``.
        norm: of the images, after `bands` were picked: three channels.
        architecture: the model as data, with random weights; see `mmovseg.modeling.open_clip_models`.
        name: instead, an architecture of open_clip, for example ``ViT-L-14-quickgelu`` or ``coca_ViT-L-14``.
        weights: a tag of open_clip (``openai``), a file (a training's checkpoint, an exported part, or open_clip's own
            state), or None for random weights.
        modality: which raster of the sample is read, ``optical`` or ``sar``.
        bands: channels of the raster to read, from 0, in order and possibly repeated: (0, 0, 0) is one SAR band as
            grey. None = all.
        contrastive_weight: of the contrastive loss; 0 leaves it out and trains the decoder alone with the towers.
        caption_weight: of CoCa's caption loss; 0 leaves the decoder out, which then does not train.
        learn_questions: whether the decoder also learns to write the `question` with which a caption begins, where a
            training sample has one. Off by default: it is always given, and only the answer has to be written.
        equal_texts: of the pairs of a batch whose captions are the same, make no negatives of each other
            (`TextAwareClipLoss`). On by default: captions from templates repeat. False is open_clip's loss.
        locked: towers that do not train.
        unlocked_layers: of locked towers, the last layers that train all the same (open_clip's groups).
        beams, max_length, min_length: of the texts that CoCa writes; None = as long as its context.
        input_contract: what the model was trained to read, kept with its weights.

    Raises:
        UserError: an unknown kind, modality or tower, a model of another kind, weights of another shape, or nothing to
            train.
    """

    def __init__(
        self,
        *,
        kind: Kind,
        norm: PixelNorm | SourceNorm,
        architecture: Mapping[str, Any] | None = None,
        name: str | None = None,
        weights: str | None = None,
        modality: Reads = "sar",
        bands: Sequence[int] | None = None,
        contrastive_weight: float = 1.0,
        caption_weight: float = 1.0,
        learn_questions: bool = False,
        equal_texts: bool = True,
        locked: Sequence[Tower] = (),
        unlocked_layers: int = 0,
        beams: int = 6,
        max_length: int | None = None,
        min_length: int = 5,
        input_contract: InputContract | None = None,
    ) -> None:
        super().__init__()
        _check_choices(kind, modality, locked, name, architecture)
        self.kind, self.modality, self.norm = kind, modality, norm
        self.bands = None if bands is None else tuple(bands)
        self.contrastive_weight = float(contrastive_weight)
        self.caption_weight = float(caption_weight) if kind == "coca" else 0.0
        self.learn_questions, self.equal_texts = learn_questions, equal_texts
        self.beams, self.max_length, self.min_length = beams, max_length, min_length
        self.input_contract = input_contract.to_dict() if input_contract is not None else None
        tag = weights if weights and weights in pretrained_tags(name) else None
        self.model: Any = _build(kind, architecture, name, tag)
        if weights and tag is None:
            load_weights(self.model, weights, part=_PRODUCT_PART)
        text = self.model.text if kind == "coca" else self.model
        self.tokenizer = clip_tokenizer(text.vocab_size, int(self.model.context_length))
        self._choose_trained(locked, unlocked_layers)
        ranks = dict(rank=dist.get_rank() if world_size() > 1 else 0, world_size=world_size())
        self.contrastive = TextAwareClipLoss(local_loss=True, gather_with_grad=True, cache_labels=True, **ranks)
        self.captioning = CoCaLoss(caption_loss_weight=self.caption_weight, clip_loss_weight=0.0, **ranks)

    # ------------------------------------------------------------------ what it is

    @property
    def embed_dim(self) -> int:
        """Length of the embeddings."""
        return int(self.model.visual.output_dim)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that the image tower reads; other images are resampled to it."""
        size = self.model.visual.image_size  # of residual towers one number
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    @property
    def logit_scale(self) -> Tensor:
        """Inverse temperature, 0-d."""
        return self.model.logit_scale.exp()

    def _choose_trained(self, locked: Sequence[Tower], unlocked_layers: int) -> None:
        coca = self.kind == "coca"
        if "image" in locked:
            self.model.visual.lock(unlocked_groups=unlocked_layers)
        if "text" in locked and coca:
            self.model.text.lock(unlocked_layers=unlocked_layers)
        elif "text" in locked:
            self.model.lock_text_tower(unlocked_layers=unlocked_layers)
        # Weights without a gradient would stop distributed training.
        if coca and not self.caption_weight:
            self.model.text_decoder.requires_grad_(False)
        if not self.contrastive_weight:
            if not self.caption_weight:
                raise UserError("contrastive_weight and caption_weight are both 0, so there is nothing to train")
            unused = [self.model.logit_scale, self.model.visual.proj]
            unused += [self.model.text.text_projection, self.model.text.cls_emb, *self.model.text.ln_final.parameters()]
            for parameter in unused:
                parameter.requires_grad_(False)

    # ------------------------------------------------------------------ embeddings

    def image_parts(self) -> dict[str, nn.Module]:
        """Return what an image passes through on the way to its embedding, by name."""
        return {"norm": self.norm, "visual": self.model.visual}

    def encode_images(self, batched_inputs: Sequence[ModelInput]) -> Tensor:
        """Return (N, D) unit-length embeddings.

        Raises:
            UserError: a sample lacks the raster, or has other channels than the model reads.
        """
        return self.model.encode_image(self.pixels(batched_inputs), normalize=True)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (T, D) unit-length embeddings of T sentences; what is over the context is cut, with a warning.

        Raises:
            UserError: a text is empty.
        """
        if not len(texts):
            return self.model.logit_scale.new_zeros(0, self.embed_dim)
        parts = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        return torch.cat([self.model.encode_text(self._tokens(part), normalize=True) for part in parts])

    def pixels(self, batched_inputs: Sequence[ModelInput]) -> Tensor:
        """Return (N, 3, H, W) normalised images of the size that the tower reads.

        An image of another size is resampled as a whole, its sides apart: captions speak of all of it and of where
        things are, so nothing may be cropped away.

        Raises:
            UserError: see `encode_images`.
        """
        key = "image" if self.modality == "optical" else "sar"
        if not all(key in item for item in batched_inputs):
            name = next(item.get("file_name", "?") for item in batched_inputs if key not in item)
            raise UserError(f"sample '{name}' has no '{key}', which this {self.kind} model reads")
        valid = "valid" if self.modality == "optical" else "sar_valid"
        parts = [self._fitted(item, key, valid) for item in batched_inputs]
        return torch.cat(parts)

    def _fitted(self, item: ModelInput, key: str, valid: str) -> Tensor:
        view = batch_view([item], key, valid, self.norm, 1, bands=self.bands)
        assert view is not None
        if view.x.shape[-2:] == self.image_size:
            return view.x
        return F.interpolate(view.x, size=self.image_size, mode="bicubic", antialias=True, align_corners=False)

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        for text in texts:
            if not text.strip():
                raise UserError("a caption is empty, and no model can read it")
        return tokenize(self.tokenizer, texts).to(self.model.logit_scale.device)

    # ------------------------------------------------------------------ training and inference

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[Prediction]:
        """Train on the images and `caption`, or answer.

        Returns:
            In training ``loss_contrastive`` and, of a CoCa, ``loss_caption``: 0-d, already weighted. At inference one
            dict an image, by the sample's `task`: ``image_embedding`` (D,) and, if it has `captions`,
            ``text_embeddings`` (T, D); or ``generated_caption``; or ``generated_answer`` to its `question`.

        Raises:
            UserError: a sample lacks its image, caption or question, a batch mixes tasks, or a CLIP is to write.
        """
        if self.training:
            return self._losses(batched_inputs)
        tasks = {item.get("task", "answer" if "question" in item else "embedding") for item in batched_inputs}
        if len(tasks) > 1:
            raise UserError(f"the samples of a batch ask for {' and '.join(sorted(tasks))}; batch them apart")
        return self._predictions(batched_inputs, tasks.pop())

    def _losses(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        captions = [_caption_of(item) for item in batched_inputs]
        images = self.pixels(batched_inputs)
        tokens, given = self._training_tokens(batched_inputs, captions)
        found: dict[str, Tensor] = {}
        if self.kind == "coca" and self.caption_weight:
            answer = self.model(images, tokens)
            image, text = answer["image_features"], answer["text_features"]
            labels = answer["labels"]
            if not self.learn_questions:
                places = torch.arange(labels.shape[1], device=labels.device)
                labels = labels.masked_fill(places < given[:, None], self.model.pad_id)
            _, found["loss_caption"] = self.captioning(image, text, answer["logits"], labels, None)
        else:
            image = self.model.encode_image(images, normalize=True)
            text = self.model.encode_text(tokens, normalize=True)
        if self.contrastive_weight:
            limit_logit_scale(self.model.logit_scale)
            if self.equal_texts:
                loss = self.contrastive.forward_with_keys(image, text, self.logit_scale, text_keys(captions))
            else:
                loss = self.contrastive(image, text, self.logit_scale)
            found["loss_contrastive"] = self.contrastive_weight * loss
        return found

    def _training_tokens(self, batched_inputs: Sequence[ModelInput], captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (N, L) token ids of the captions, and (N,) how many of them, after the start, are the question's.

        Raises:
            UserError: a caption does not begin with the question of its sample.
        """
        tokens = self._tokens(captions)
        counts = [0] * len(captions)
        for row, (item, caption) in enumerate(zip(batched_inputs, captions, strict=True)):
            if "question" not in item:
                continue
            question, whole = self.tokenizer.encode(_question_of(item)), self.tokenizer.encode(caption)
            if whole[: len(question)] != question:
                raise UserError(f"sample '{item.get('file_name', '?')}': its caption does not begin with its question")
            kept = self._shortened(question)
            counts[row] = len(kept)
            if len(kept) < len(question):  # cut here as at inference, so that its answer is still learned
                ids = [*kept, *whole[len(question) :]][: tokens.shape[1] - 2]
                tokens[row] = 0
                tokens[row, : len(ids) + 2] = tokens.new_tensor(
                    [self.tokenizer.sot_token_id, *ids, self.tokenizer.eot_token_id]
                )
        return tokens, torch.tensor(counts, device=tokens.device)

    def _shortened(self, question: list[int]) -> list[int]:
        """Cut the ids of a question, so that half of the context is left to the answer."""
        return question[: int(self.model.context_length) // 2 - 1]

    def _predictions(self, batched_inputs: Sequence[ModelInput], task: str) -> list[Prediction]:
        if task == "caption":
            return [{"generated_caption": text} for text in self.generate(batched_inputs)]
        if task == "answer":
            prompts = [_question_of(item) for item in batched_inputs]
            return [{"generated_answer": text} for text in self.generate(batched_inputs, prompts=prompts)]
        if task != "embedding":
            raise UserError(f"the task of a sample is '{task}', expected one of embedding, caption, answer")
        outputs: list[Prediction] = [{"image_embedding": row} for row in self.encode_images(batched_inputs)]
        self._add_texts(batched_inputs, outputs)
        return outputs

    def _add_texts(self, batched_inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        captions = [list(item.get("captions", ())) for item in batched_inputs]
        distinct = list(dict.fromkeys(text for texts in captions for text in texts))
        if not distinct:
            return
        rows = dict(zip(distinct, self.encode_texts(distinct), strict=True))
        for output, texts in zip(outputs, captions, strict=True):
            if texts:
                output["text_embeddings"] = torch.stack([rows[text] for text in texts])

    # ------------------------------------------------------------------ writing

    @torch.no_grad()
    def generate(
        self,
        batched_inputs: Sequence[ModelInput],
        *,
        prompts: Sequence[str] | None = None,
        num_beams: int | None = None,
        max_length: int | None = None,
        min_length: int | None = None,
    ) -> list[str]:
        """Write a text for every image by beam search.

        Args:
            batched_inputs: N samples.
            prompts: N beginnings of the texts, for example questions; one that takes more than half of the context is
                cut. None = captions from the start.
            num_beams, max_length, min_length: instead of the model's; the length counts start, prompt and end token,
                and is limited to the context. `min_length` holds for captions; answers may be one word.

        Returns:
            N texts, without the prompt.

        Raises:
            UserError: the model is a CLIP, which writes nothing.
        """
        if self.kind != "coca":
            raise UserError("a CLIP model has no decoder and writes no text; use a model of kind 'coca'")
        context = int(self.model.context_length)
        start, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        search = BeamSearch(
            start=start,
            end=end,
            beams=num_beams or self.beams,
            max_length=min(max_length or self.max_length or context, context),
            min_length=(self.min_length if prompts is None else 1) if min_length is None else min_length,
        )
        pixels = self.pixels(batched_inputs)
        if prompts is None:
            return [self._decoded(ids) for ids in search(self.model, pixels)]
        begun = [[start, *self._shortened(self.tokenizer.encode(prompt))] for prompt in prompts]
        texts = [""] * len(begun)
        for length in sorted({len(ids) for ids in begun}):  # texts of one length go through the decoder together
            chosen = [index for index, ids in enumerate(begun) if len(ids) == length]
            given = torch.tensor([begun[index] for index in chosen], device=pixels.device)
            for index, ids in zip(chosen, search(self.model, pixels[chosen], given), strict=True):
                texts[index] = self._decoded(ids)
        return texts

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode([token for token in ids if token])).strip()


def _check_choices(
    kind: str,
    modality: str,
    locked: Sequence[str],
    name: str | None,
    architecture: Mapping[str, Any] | None,
) -> None:
    chosen = [("kind", kind, Kind), ("modality", modality, Reads)]
    chosen += [("locked", tower, Tower) for tower in locked]
    for key, value, allowed in chosen:
        if value not in get_args(allowed):
            raise UserError(f"image-text model: {key} is '{value}', expected one of {', '.join(get_args(allowed))}")
    if (name is None) == (architecture is None):
        raise UserError("image-text model: give either name or architecture")


def _build(kind: Kind, architecture: Mapping[str, Any] | None, name: str | None, tag: str | None) -> nn.Module:
    if architecture is not None:
        return clip_from_architecture(architecture) if kind == "clip" else coca_from_architecture(architecture)
    model = model_from_name(name, tag)
    if not isinstance(model, open_clip.CoCa if kind == "coca" else open_clip.CLIP):
        raise UserError(f"open_clip's '{name}' is a {type(model).__name__}, not a model of kind '{kind}'")
    return model


def _caption_of(item: ModelInput) -> str:
    caption = item.get("caption")
    if caption is None or not caption.strip():
        raise UserError(f"sample '{item.get('file_name', '?')}' has no caption to train on")
    return caption


def _question_of(item: ModelInput) -> str:
    question = item.get("question")
    if question is None or not question.strip():
        raise UserError(f"sample '{item.get('file_name', '?')}' has no question to answer")
    return question
