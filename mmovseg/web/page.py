"""The page itself: what stands where, and which question follows from it. Needs the extra `web`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import gradio as gr
from fastapi import FastAPI
from gradio_client.utils import is_http_url_like

from mmovseg.data.sample import Modality
from mmovseg.data.sar import SarUnit
from mmovseg.errors import UserError, one_line
from mmovseg.web.answer import Answer, MapMaker, UploadedPair
from mmovseg.web.style import CSS
from mmovseg.web.views import legend_html, message_html

logger = logging.getLogger(__name__)

SAMPLE, UPLOAD = "MiniEarth scene", "Your own rasters"
DEFAULT_COVER = 40
_SHIPPED = (
    "<div class='caution'><strong>Small demonstration model.</strong> It was trained on MiniEarth, a made-up world, "
    "and knows nothing else: what it says about real images means nothing. To map those, start the page with "
    "<code>--config-file</code> and <code>--weights</code> of a model trained on such data.</div>"
)
_HEADER = (
    "<div class='masthead'><h1>mmovseg</h1><p>Name what you look for; the model finds it in an optical and a radar "
    "(SAR) image of one place, through clouds.</p></div>"
)
_MODALITIES = [("Optical + SAR", "both"), ("Optical only", "optical"), ("SAR only", "sar")]
_UNITS = [
    ("as the file or the model says", ""),
    ("dB", "db"),
    ("linear power", "linear"),
    ("8-bit amplitude", "amplitude8"),
]
_SUFFIXES = [".tif", ".tiff", ".png", ".jpg", ".jpeg"]
_CLEAN_UP_EVERY_S, _KEPT_S = 300, 3600
_WAITING = 20


def build_page(maker: MapMaker, *, model_name: str | None = None) -> gr.Blocks:
    """Return the page.

    Args:
        maker: answers the questions.
        model_name: shown; None = the small model that ships with the package, and a warning that says so.
    """
    vocabulary = maker.predictor.vocabulary
    names = ", ".join(vocabulary.names) if vocabulary is not None else "water, road, forest"
    with gr.Blocks(
        title="mmovseg", analytics_enabled=False, fill_width=True, delete_cache=(_CLEAN_UP_EVERY_S, _KEPT_S)
    ) as page:
        gr.HTML(_HEADER + (_SHIPPED if model_name is None else message_html(f"Model: {model_name}")))
        with gr.Row(elem_id="controls", equal_height=False):
            with gr.Column(scale=3, min_width=340):
                source = gr.Radio([SAMPLE, UPLOAD], value=SAMPLE, label="1. Images", elem_id="source")
                with gr.Group(visible=True) as sample_group:
                    sample = _sample_inputs(maker)
                with gr.Group(visible=False) as upload_group:
                    upload = _upload_inputs(maker)
            with gr.Column(scale=2, min_width=320):
                classes = gr.Textbox(
                    names, label="2. Classes to look for, separated by commas", lines=2, max_lines=4, elem_id="classes"
                )
                modality = gr.Radio(_MODALITIES, value="both", label="3. The model sees", elem_id="modality")
                button = gr.Button("Make the map", variant="primary", elem_id="run")
        status = gr.HTML(elem_id="status")
        results = [status, *_result_views()]
        questions = [source, *sample, *upload, classes, modality]
        source.change(
            lambda chosen: (gr.update(visible=chosen == SAMPLE), gr.update(visible=chosen == UPLOAD)),
            source, [sample_group, upload_group], api_visibility="private", show_progress="hidden",
            concurrency_limit=None,
        )  # fmt: skip
        ask = partial(answer_question, maker)
        settings: dict[str, Any] = {
            "inputs": questions, "outputs": results, "api_visibility": "private", "concurrency_limit": 1,
            "concurrency_id": "model", "trigger_mode": "always_last", "show_progress_on": results[1:5],
        }  # fmt: skip
        gr.on([button.click, classes.submit, page.load], ask, **settings)
        gr.on([item.change for item in sample], ask, **settings, show_progress="hidden")
    page.queue(api_open=False, max_size=_WAITING, default_concurrency_limit=1)
    return page


def mount_page(app: FastAPI, page: gr.Blocks, *, max_bytes: int) -> FastAPI:
    """Put the page at the root of a web application, without anything that needs a network.

    Args:
        app: gets the page.
        page: made by `build_page`.
        max_bytes: of one uploaded file.
    """
    fonts = ("system-ui", "-apple-system", "Segoe UI", "Liberation Sans", "Arial", "sans-serif")
    theme = gr.themes.Default(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        font=fonts,
        font_mono=("ui-monospace", "Consolas", "monospace"),
    )
    return gr.mount_gradio_app(
        app, page, path="/", theme=theme, css=CSS, max_file_size=max_bytes, show_error=False, footer_links=[],
        run_history=False, ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False, allowed_paths=[],
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )  # fmt: skip


def answer_question(maker: MapMaker, *question: Any) -> list[Any]:
    """Return what the page shows for its fields: the answer, or the sentence that says what to mend.

    Args:
        maker: answers.
        question: values of the fields in the order of `build_page`: source, scene, cover, the seven fields of an
            upload, classes, modality.
    """
    source, scene, cover, *upload, classes, modality = question
    try:
        if source == UPLOAD:
            answer = maker.map_upload(read_upload(upload), classes or "", cast(Modality, modality))
        else:
            answer = maker.map_sample(int(scene), float(cover), classes or "", cast(Modality, modality))
    except UserError as error:
        return _refusal(one_line(error))
    except Exception:  # the page must not show a traceback, whatever happens behind it
        logger.exception("the page could not answer")
        return _refusal("Something went wrong on the server; what it was stands in its log.")
    return _show(answer)


def read_upload(fields: Sequence[Any]) -> UploadedPair:
    """Return the upload that the fields describe.

    Args:
        fields: optical file, SAR file, SAR unit, optical bands, optical range, SAR bands, whether to go on.

    Raises:
        UserError: a field is not made of numbers, or of too many or too few.
    """
    optical, sar, unit, optical_bands, optical_range, sar_bands, override = fields
    limits = _numbers(optical_range, "optical range", float)
    if limits is not None and len(limits) != 2:
        raise UserError(f"the optical range must be two numbers, black and white, got '{optical_range}'")
    return UploadedPair(
        optical=optical,
        sar=sar,
        sar_unit=cast(SarUnit, unit) if unit else None,
        optical_bands=_numbers(optical_bands, "optical bands", int),
        optical_range=cast("tuple[float, float] | None", limits),
        sar_bands=_numbers(sar_bands, "SAR bands", int),
        override_contract=bool(override),
    )


def _numbers(text: str | None, field: str, kind: Callable[[str], Any]) -> tuple[Any, ...] | None:
    words = (text or "").replace(",", " ").split()
    try:
        return tuple(kind(word) for word in words) or None
    except ValueError as error:
        raise UserError(f"the {field} must be numbers, got '{one_line(text or '')[:60]}'") from error


def _sample_inputs(maker: MapMaker) -> list[Any]:
    scenes = [(title, index) for index, title in enumerate(maker.gallery.titles)]
    return [
        gr.Dropdown(scenes, value=0, label="Test scene", elem_id="scene", filterable=False),
        gr.Slider(0, 100, value=DEFAULT_COVER, step=5, label="Cloud cover, %", elem_id="cover", buttons=[]),
    ]


def _upload_inputs(maker: MapMaker) -> list[gr.components.Component]:
    limits = maker.limits
    with gr.Row():
        files = [
            local_file(label=label, file_types=_SUFFIXES, elem_id=f"{role}-file", height=120, min_width=160)
            for label, role in (("Optical raster", "optical"), ("SAR raster", "sar"))
        ]
    gr.HTML(
        f"<p class='hint'>GeoTIFF, PNG or JPEG, up to {limits.max_bytes / 1e6:g} MB and {limits.max_pixels / 1e6:g} "
        "million pixels each. One of the two is enough; grids may differ. Files are deleted within "
        f"{(_KEPT_S + _CLEAN_UP_EVERY_S) // 60} minutes and when the page ends.</p>"
    )
    unit = gr.Dropdown(_UNITS, value="", label="SAR unit", elem_id="sar-unit", filterable=False)
    with gr.Accordion("Bands and value ranges", open=False, elem_id="details"):
        with gr.Row():
            bands = gr.Textbox(label="Optical bands (red, green, blue)", placeholder="4, 3, 2", min_width=140)
            limits_field = gr.Textbox(label="Optical range (black, white)", placeholder="0, 3000", min_width=140)
            sar_bands = gr.Textbox(label="SAR bands", placeholder="1, 2", min_width=140)
        override = gr.Checkbox(label="Map it all the same when values are not what the model was trained on")
    return [*files, unit, bands, limits_field, sar_bands, override]


def local_file(**options: Any) -> gr.File:
    """Return a field for an uploaded file; an address in place of a file, which Gradio would fetch, is refused.

    Args:
        options: of `gr.File`.
    """
    field = gr.File(**options)
    keep = field.async_move_resource_to_block_cache

    async def keep_local(path: str | Path | None) -> str | None:
        if path is not None and is_http_url_like(str(path)):
            raise gr.Error("files are uploaded, not fetched", print_exception=False)
        return await keep(path)

    # No subclass: Gradio writes a stub file beside the module of every component class.
    field.async_move_resource_to_block_cache = keep_local  # type: ignore[method-assign, assignment]
    return field


def _result_views() -> list[gr.components.Component]:
    labels = (("Optical", "optical"), ("SAR", "sar"), ("Map over image", "overlay"), ("Map", "prediction"))
    with gr.Row(elem_id="views"):
        images = [
            gr.Image(label=label, elem_id=f"view-{name}", interactive=False, format="png", buttons=["fullscreen"],
                     min_width=240, alt_text=label, height=290)
            for label, name in labels
        ]  # fmt: skip
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=480):
            legend = gr.HTML(elem_id="legend")
        with gr.Column(scale=1, min_width=260):
            download = gr.DownloadButton("Download the map (GeoTIFF)", elem_id="download", interactive=False, size="md")
    return [*images, legend, download]


def _show(answer: Answer) -> list[Any]:
    return [
        message_html(answer.facts),
        answer.optical,
        answer.sar,
        answer.overlay,
        answer.prediction,
        legend_html(answer.vocabulary, answer.shares),
        gr.update(value=str(answer.map_path), interactive=True),
    ]


def _refusal(sentence: str) -> list[Any]:
    """Return the sentence, and nothing that could be taken for its answer."""
    return [message_html(sentence, is_error=True), None, None, None, None, "", gr.update(value=None, interactive=False)]
