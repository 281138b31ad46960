"""Questions about images with their answers, as dataset dicts: conversation JSON, SARLANG-1M CSV, MiniEarth.

A dict is one question. `image_id` names the image, so that the questions of an image share it; `question`, `answer` and
`question_type` come beside the path of the image.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.miniearth.dataset import Split
from mmovseg.data.sample import DatasetDict, Reader
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import IMAGE_ROLES, ImageRole, read_lines
from mmovseg.projects.sartext.data.stages import Stage, load_stage
from mmovseg.projects.sartext.evaluation.answers import is_closed, load_answer_rules

MINIEARTH_TYPES = ("presence", "dominant", "comparison", "count")
_IMAGE_MARK = "<image>"
_SPEAKERS = ("human", "gpt")


def load_conversations(
    path: str | Path,
    *,
    root: str | Path | None = None,
    role: ImageRole = "sar",
    check_images: bool = True,
) -> list[DatasetDict]:
    """Read questions from a conversation file in the manner of LLaVA.

    The file is a JSON list of ``{"id", "image", "conversations": [{"from": "human"|"gpt", "value"}, ...]}``; each
    question is followed by its answer. The mark ``<image>`` in a question is dropped. A key ``question_type`` of an
    entry is taken over; without it the type is ``yes/no``, ``number`` or ``open``, as the answer says.

    Args:
        path: the file.
        root: what image paths start from; None = the folder of the file.
        role: what the images are, ``sar`` or ``optical``.
        check_images: stop where an image does not exist.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or of another form, a question or answer is empty, an image
            does not exist, or there is no question; the sentence names file and entry.
    """
    text = "".join(line for _, line in read_lines(path))  # JSON may hold no line break in a text
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not valid JSON: {error}") from error
    if not isinstance(entries, list):
        raise UserError(f"'{path}' must hold a JSON list of conversations, got {type(entries).__name__}")
    found: list[DatasetDict] = []
    for number, entry in enumerate(entries, start=1):
        where = f"'{path}' entry {number}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
            raise UserError(f"{where} has no image path under 'image'")
        for question, answer in _turns(entry.get("conversations"), where):
            kind = entry.get("question_type") or guess_type(answer)
            found.append(_dict(entry["image"], question, answer, str(kind), path, root, role, where))
    return _checked(found, path, check_images)


def _turns(conversation: object, where: str) -> Iterator[tuple[str, str]]:
    """Yield question and answer of every turn."""
    if not isinstance(conversation, Sequence) or len(conversation) % 2 or not conversation:
        raise UserError(f"{where} needs under 'conversations' a list of questions, each followed by its answer")
    values = []
    for number, part in enumerate(conversation):
        speaker = _SPEAKERS[number % 2]
        if not isinstance(part, Mapping) or part.get("from") != speaker or not isinstance(part.get("value"), str):
            raise UserError(f"{where}: part {number + 1} of the conversation must be a text from '{speaker}'")
        values.append(part["value"])
    yield from zip(values[::2], values[1::2], strict=True)


def load_sarlang_csv(
    path: str | Path,
    *,
    root: str | Path | None = None,
    role: ImageRole = "sar",
    prefix: str = "",
    image_column: str = "image",
    question_column: str = "question",
    answer_column: str = "answer",
    type_column: str = "type",
    check_images: bool = True,
) -> list[DatasetDict]:
    """Read questions from a CSV with a line a question, in the manner of SARLANG-1M.

    Args:
        path: UTF-8, comma-separated, with a header; further columns are ignored.
        root: what image paths start from (``SARimages`` of the download); None = the folder of the file.
        role: what the images are.
        prefix: put before every question; questions of the SARDet part need the list of classes there.
        image_column, question_column, answer_column: names of columns.
        type_column: column of the question type; where it is absent, the type is guessed as for conversations.
        check_images: stop where an image does not exist.

    Raises:
        UserError: as `load_conversations`, and where a column is missing.
    """
    text = "".join(line for _, line in read_lines(path))
    rows = csv.DictReader(io.StringIO(text, newline=""))
    header = rows.fieldnames or []
    for column in (image_column, question_column, answer_column):
        if column not in header:
            raise UserError(f"'{path}' has no column '{column}'; it has: {', '.join(header)}")
    found: list[DatasetDict] = []
    try:
        for number, row in enumerate(rows, start=1):
            where = f"'{path}' row {number}"
            image, question, answer = (row[name] or "" for name in (image_column, question_column, answer_column))
            if not image.strip():
                raise UserError(f"{where} names no image")
            kind = (row.get(type_column) or "").strip() or guess_type(answer)
            asked = f"{prefix.strip()} {question}" if prefix.strip() and question.strip() else question
            found.append(_dict(image.strip(), asked, answer, kind, path, root, role, where))
    except csv.Error as error:
        raise UserError(f"'{path}' is not a readable CSV: {error}") from error
    return _checked(found, path, check_images)


def guess_type(answer: str) -> str:
    """Return ``yes/no``, ``number`` or ``open``, as the answer is."""
    rules = load_answer_rules()
    if not is_closed(answer, rules):
        return "open"
    return "yes/no" if rules.normal_form(answer) in ("yes", "no") else "number"


def _dict(
    image: str,
    question: str,
    answer: str,
    kind: str,
    path: str | Path,
    root: str | Path | None,
    role: ImageRole,
    where: str,
) -> DatasetDict:
    if role not in IMAGE_ROLES:
        raise UserError(f"role is '{role}'; it can be: {', '.join(IMAGE_ROLES)}")
    question, answer = " ".join(question.replace(_IMAGE_MARK, " ").split()), " ".join(answer.split())
    for name, value in (("question", question), ("answer", answer)):
        if not value:
            raise UserError(f"{where} has an empty {name}")
    file = str((Path(path).parent if root is None else Path(root)) / image)
    item: DatasetDict = {"image_id": image, "question": question, "answer": answer, "question_type": kind}
    if role == "sar":
        item["sar_file_name"] = file
    else:
        item["file_name"] = file
    return item


def _checked(found: list[DatasetDict], path: str | Path, check_images: bool) -> list[DatasetDict]:
    if not found:
        raise UserError(f"'{path}' holds no question")
    if check_images:
        files = list(dict.fromkeys(item.get("sar_file_name") or item["file_name"] for item in found))
        absent = [file for file in files if not Path(file).is_file()]
        if absent:
            raise UserError(
                f"'{path}' names '{absent[0]}', which does not exist ({len(absent)} of {len(files)} images)"
            )
    return found


def load_stage_questions(
    stage: Stage,
    *,
    split: Split = "train",
    num_scenes: int | None = None,
    size: int = 64,
    seed: int = 0,
    types: Sequence[str] = MINIEARTH_TYPES,
    reader: Reader | None = None,
) -> list[DatasetDict]:
    """Return the questions of a stage of MiniEarth, which follow from the labels; every scene is rendered for it.

    Args:
        stage, split, num_scenes, size, seed: see `mmovseg.projects.sartext.data.stages.load_stage`.
        types: which of ``presence``, ``dominant``, ``comparison`` and ``count`` are asked.
        reader: renders; None = one that keeps what it rendered for the readers of the process.

    Raises:
        UserError: an unknown type, or see `load_stage`.
    """
    unknown = [name for name in types if name not in MINIEARTH_TYPES]
    if unknown or not types:
        said = f"'{unknown[0]}'" if unknown else "none"
        raise UserError(f"question type is {said}; MiniEarth asks for: {', '.join(MINIEARTH_TYPES)}")
    render = MiniEarthReader() if reader is None else reader
    found: list[DatasetDict] = []
    for scene in load_stage(stage, split=split, num_scenes=num_scenes, size=size, seed=seed):
        asked: list[dict[str, Any]] = render(scene).facts["questions"]
        for entry in asked:
            if entry["kind"] in types:
                parts = {"question": entry["question"], "answer": entry["answer"], "question_type": entry["kind"]}
                found.append({**scene, **parts})  # type: ignore[typeddict-item]
    return found
