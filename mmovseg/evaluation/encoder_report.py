"""The evaluation of an encoder as text: what each number means, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmovseg.evaluation.alignment import TOP
from mmovseg.evaluation.metrics import DEFINITION as SEGMENTATION
from mmovseg.evaluation.report import format_percent, text_table

DEFINITION: dict[str, str] = {
    "R@k a->b": (
        "percent of the gallery's scenes whose a-features have the b-features of the same scene among their k nearest "
        "by cosine; the gallery is the first scenes of the test part in data-set order; cosines within 1e-6 are tied, "
        "and among ties the expected value of a random order is taken"
    ),
    "scene": "a scene's feature is what the model calls global: the mean of its valid patches, or a class token",
    "chance R@k": "k / gallery",
    "patch accuracy": (
        "percent of the student's patches whose own teacher patch is the nearest by cosine among all valid patches of "
        "the same image, over all test images; ties count as in R@k; what positions alone give, the control "
        "--modality shuffled-sar says"
    ),
    "chance patch accuracy": "images / patches",
    "CKA": (
        "linear centred kernel alignment, 0..1, over all valid patches of the test part, with the unbiased estimator "
        "of HSIC: unrelated features give 0 on average, so it can fall just below"
    ),
    "effective rank": (
        "exponential of the entropy of the singular values, as shares of their sum, of the student's features less "
        "their mean, over all valid patches of the test part (Roy and Vetterli, 2007): 1 when they lie on a line, the "
        "number of channels when they spread alike in all directions"
    ),
    "teacher effective rank": "the same of the teacher's features",
    "probe": (
        "multinomial logistic regression on the frozen patch features of the fit part, standardised, all classes of "
        "the label space; its loss is the mean cross-entropy of labelled pixels that take the scores of their patch, "
        "plus l2 / 2 times the squared weights; scores are brought to the pixels of the test part bilinearly"
    ),
    "probe mIoU": f"{SEGMENTATION['mIoU']}; {SEGMENTATION['matrix']}",
    "probe accuracy": SEGMENTATION["pACC"],
    "probe chance mIoU": "the best that one class everywhere reaches, the class chosen on the test part",
    "left out": "pixels labelled 255, and pixels and patches where the student's raster holds no data",
}


def format_encoder_table(report: Mapping[str, Any]) -> str:
    """Return a report of `EncoderEvaluator` as text: alignment by level, then the probe by class."""
    return "\n\n".join([_alignment_table(report), *_probe_table(report)])


def _alignment_table(report: Mapping[str, Any]) -> str:
    metrics = report["metrics"]
    ranks = {level: format_rank(found.get("effective rank")) for level, found in report["levels"].items()}
    if metrics["chance patch accuracy"] is None:
        listed = ", ".join(f"{level} {rank}" for level, rank in ranks.items()) or "-"
        return (
            "no image has comparable features of the teacher: no retrieval and no patch accuracy\n"
            f"effective rank: {listed}"
        )
    ways = [key.removeprefix("R@1 ") for key in metrics if key.startswith("R@1 ")]
    rows = []
    for level, found in report["levels"].items():
        local = [format_percent(found["patch accuracy"]), format_number(found["CKA"]), ranks[level]]
        rows.append([level, *(_recalls(found, way) for way in ways), *local])
    chance = "/".join(format_percent(metrics[f"chance R@{k}"]) for k in TOP)
    rows.append(["chance", chance, chance, format_percent(metrics["chance patch accuracy"]), format_number(0.0), ""])
    title = f"R@{'/'.join(map(str, TOP))} among {report['gallery']} scenes, patches of {report['test_images']} images"
    return f"{title}\n{text_table(rows, ['level', *ways, 'patch acc.', 'CKA', 'eff. rank'], text_columns=1)}"


def _recalls(found: Mapping[str, float | None], way: str) -> str:
    return "/".join(format_percent(found[f"R@{k} {way}"]) for k in TOP)


def _probe_table(report: Mapping[str, Any]) -> list[str]:
    if report["probe"] is None:
        return []
    metrics = report["metrics"]
    head = (
        f"linear probe of {report['probe']['level']}, fit on {report['probe']['fit_images']} images: "
        f"mIoU {format_percent(metrics['probe mIoU'])} "
        f"(one class everywhere {format_percent(metrics['probe chance mIoU'])}), "
        f"accuracy {format_percent(metrics['probe accuracy'])}"
    )
    rows = [
        [row["name"], format_percent(row["IoU"]), format_percent(row["accuracy"]), str(row["pixels"])]
        for row in report["probe"]["per_class"]
    ]
    return [f"{head}\n{text_table(rows, ['class', 'IoU', 'accuracy', 'pixels'], text_columns=1)}"]


def format_number(value: float | None) -> str:
    """Return a number of 0..1 with three decimals, `-` for None."""
    return "-" if value is None else f"{value:.3f}"


def format_rank(value: float | None) -> str:
    """Return an effective rank with one decimal, `-` for None."""
    return "-" if value is None else f"{value:.1f}"
