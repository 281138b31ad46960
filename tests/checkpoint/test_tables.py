import ast
import functools
import hashlib
import json

import pytest
import torch

from mmovseg.checkpoint.contract import contract_from_dict
from mmovseg.checkpoint.rules import ASIDE, KeyTable, copy, split, swap
from mmovseg.checkpoint.tables import SOURCES
from mmovseg.checkpoint.tables.clip import ClipDims, clip_rules
from mmovseg.checkpoint.tables.dinov3 import bias_mask
from mmovseg.checkpoint.tables.mmovseg import window_mask
from mmovseg.config import get_config, instantiate
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.testing.realdata import realdata_root

# Count and sha256 of the lines "<key>\t<shape>\n", sorted, of a complete listing of an official checkpoint.
LISTINGS = {
    "mmovseg_vitb16": (804, "76594e795b5bcf34f6db4699f3af379d5c50c99eef195a8da991b28ff645c641"),
    "mmovseg_vitl14": (1412, "b9566ce3b12c4632616114f078e3289a8ff81ab448c5c07ecb0dfcda76e55e91"),
    "codemae": (646, "6980369d3ffa73b0d24f3dbc84a952d7e6f8d3dbbd1ac42ea4a107b732567679"),
}

SMALL = ClipDims("small", embed=4, width=4, depth=1, patch=2, grid=2, text_width=4, text_depth=1, context=4, words=9)


def listing_of(shapes):
    return "".join(sorted(f"{name}\t{tuple(shape)}\n" for name, shape in shapes.items()))


@pytest.mark.parametrize("source", LISTINGS)
def test_the_table_covers_an_official_checkpoint_exactly(source):
    table = SOURCES[source]()[0]
    listing = listing_of(table.shapes("theirs"))
    count, digest = LISTINGS[source]
    assert (listing.count("\n"), hashlib.sha256(listing.encode()).hexdigest()) == (count, digest)


@pytest.mark.realdata
@pytest.mark.parametrize("source", [name for name in LISTINGS if name.startswith("mmovseg_")])
def test_the_table_covers_the_complete_listing(source):
    file = (realdata_root() or "").parent / "specs" / f"mm-ovseg-keys-{source[-3:]}.txt" if realdata_root() else None
    if file is None or not file.is_file():
        pytest.skip("the listing of the official keys is not here")
    rows = (line.split("\t") for line in file.read_text().splitlines())
    (table,) = SOURCES[source]()
    assert listing_of(table.shapes("theirs")) == listing_of({name: ast.literal_eval(size) for name, size, _ in rows})


@pytest.mark.parametrize("source", SOURCES)
def test_tables_of_a_source_differ_and_set_aside_under_the_reserved_prefix(source):
    tables = SOURCES[source]()
    assert len({(table.architecture, table.naming) for table in tables}) == len(tables)
    for table in tables:
        assert table.source == source
        for rule in table.rules:
            assert (rule.kind == "aside") <= all(name.startswith(ASIDE) for name in rule.ours)
            assert bool(rule.ours) != (rule.kind == "constant")


def test_a_name_with_two_rules_is_refused():
    rules = (copy("a", "x", (1,)), copy("a", "y", (1,)))
    with pytest.raises(ValueError, match="two rules for 'a'"):
        KeyTable(source="s", architecture="t", rules=rules)
    with pytest.raises(ValueError, match="two rules for 'x'"):
        KeyTable(source="s", architecture="t", rules=(copy("a", "x", (1,)), copy("b", "x", (1,))))


def test_rules_check_their_own_sizes():
    with pytest.raises(ValueError, match="add up to 3, not to 4"):
        split("a", {"x": 1, "y": 2}, (4,), dim=0)
    with pytest.raises(ValueError, match="no two halves"):
        swap("a", "x", (2, 3), dim=1)


def test_packing_keeps_the_order_query_key_value():
    (rule,) = (
        r for r in clip_rules(SMALL, packed=False) if r.ours.keys() == {"transformer.resblocks.0.attn.in_proj_weight"}
    )
    state = {name: torch.full((4, 4), float(index)) for index, name in enumerate(rule.theirs)}
    assert [name[-13:-7] for name in state] == ["q_proj", "k_proj", "v_proj"]
    (packed,) = rule.convert(state).values()
    assert packed[:, 0].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


def test_swapping_moves_the_second_half_to_the_front():
    rule = swap("a", "x", (1, 4), dim=1)
    assert rule.convert({"a": torch.tensor([[0, 1, 2, 3]])})["x"].tolist() == [[2, 3, 0, 1]]


def test_constants():
    assert bias_mask(2).tolist() == [1, 1, 0, 0, 1, 1]
    mask = window_mask(4, 2)  # 4 windows of 2x2, shifted by 1
    assert mask.shape == (4, 4, 4)
    assert not mask[0].any()  # the first window does not wrap
    assert mask[1].tolist() == [[0, -100, 0, -100], [-100, 0, -100, 0], [0, -100, 0, -100], [-100, 0, -100, 0]]
    assert mask[3].tolist() == [[0 if row == column else -100 for column in range(4)] for row in range(4)]
    assert not torch.signbit(mask[mask == 0]).any()


@functools.cache
def timm_shapes(name):
    import timm

    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("source", ["dino", "dinov3", "dinov3_hf"])
def test_encoders_are_timm_models(source):
    for table in SOURCES[source]():
        if not table.naming:
            ours = {n: s for n, s in table.shapes("ours").items() if not n.startswith(ASIDE) and n != "rope.periods"}
            assert ours == timm_shapes(table.architecture.split(".")[0]), table.architecture


def clip_facts(name):
    import open_clip

    facts = open_clip.get_model_config(name)
    return {key: facts[key] for key in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}


def test_clips_are_open_clip_models():
    import open_clip

    for table in SOURCES["openai_clip"]():
        with torch.device("meta"):
            model = open_clip.CLIP(**clip_facts(table.architecture))
        assert table.shapes("ours") == {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("source", [name for name in LISTINGS if name.startswith("mmovseg_")])
def test_every_tensor_of_the_released_models_is_filled(source):
    config = get_config(f"common/models/{source.replace('mmovseg', 'released')}.py").model
    forget_foundation_weights(config)
    # open_clip moves a model made by name to the CPU, which one without memory refuses; as data it stays where it is.
    config.clip.architecture, config.clip.name = clip_facts(config.clip.name), None
    with torch.device("meta"):
        model = instantiate(config)
    (table,) = SOURCES[source]()
    ours = {name: shape for name, shape in table.shapes("ours").items() if not name.startswith(ASIDE)}
    assert ours == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    # The header says what the config says.
    assert contract_from_dict(json.loads(json.dumps(model.input_contract))) == table.contract
