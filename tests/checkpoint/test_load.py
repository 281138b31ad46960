import pickle

import pytest
import torch
from torch import nn

from mmovseg.checkpoint import file_sha256, load_weights, read_metadata, read_state, save_weights
from mmovseg.errors import UserError


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def make_model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def filled(value):
    model = make_model()
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def saved(tmp_path, state, name="w.safetensors", **kwargs):
    save_weights(state, tmp_path / name, **kwargs)
    return tmp_path / name


def test_report_and_cast_from_fp16(tmp_path):
    path = saved(tmp_path, filled(0.5), dtype=torch.float16)
    model = make_model()
    report = load_weights(model, path)
    assert len(report.used) == len(model.state_dict())
    assert report.missing == report.unexpected == []
    assert report.summary() == f"checkpoint '{path}': 7 tensors used, 0 missing, 0 unexpected"
    assert model[0].weight.dtype is torch.float32
    assert torch.equal(model[0].weight, torch.full((4, 3, 1, 1), 0.5))


def test_missing_and_unexpected_are_errors_unless_allowed(tmp_path):
    state = {**filled(1.0).state_dict(), "extra.a": torch.ones(1)}
    del state["1.bias"]
    path = saved(tmp_path, state)
    with pytest.raises(UserError, match=r"lacks 1 tensor\(s\) that the model needs: 1\.bias"):
        load_weights(make_model(), path)
    with pytest.raises(UserError, match=r"holds 1 tensor\(s\) that the model does not have: extra\.a"):
        load_weights(make_model(), path, allow_missing=["1.*"])
    report = load_weights(make_model(), path, allow_missing=["1.*"], allow_unexpected=["extra.*"])
    assert (report.missing, report.unexpected) == (["1.bias"], ["extra.a"])
    assert "missing: 1.bias" in str(report)


def test_shape_mismatch_names_both_shapes_and_changes_nothing(tmp_path):
    state = filled(1.0).state_dict()
    state["0.weight"] = torch.ones(5, 3, 1, 1)
    model = filled(0.0)
    with pytest.raises(UserError, match=r"has 0\.weight of shape \(5, 3, 1, 1\) but the model needs \(4, 3, 1, 1\)"):
        load_weights(model, saved(tmp_path, state))
    assert float(model[0].bias.detach().sum()) == 0.0


def test_many_wrong_shapes_are_counted(tmp_path):
    state = {name: torch.ones(9) for name in make_model().state_dict()}
    with pytest.raises(UserError, match=r"\(and 4 more\)"):
        load_weights(make_model(), saved(tmp_path, state))


def test_another_architecture(tmp_path):
    path = saved(tmp_path, {"visual.proj": torch.ones(1)})
    with pytest.raises(
        UserError, match="of another architecture: none of its 1 tensors fits .*'visual.proj', the model"
    ):
        load_weights(make_model(), path)


def test_corrupt_files(tmp_path):
    path = saved(tmp_path, filled(1.0))
    whole = path.read_bytes()
    for name, content in [("half", whole[: len(whole) // 2]), ("header", b"\xff" * 64), ("empty", b"")]:
        broken = tmp_path / f"{name}.safetensors"
        broken.write_bytes(content)
        with pytest.raises(UserError, match=f"'{broken}' is corrupt or truncated"):
            load_weights(make_model(), broken)
    torch.save(make_model().state_dict(), tmp_path / "w.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:300])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for name in ("half.pth", "text.pth"):
        with pytest.raises(UserError, match=f"{name}' is corrupt"):
            load_weights(make_model(), tmp_path / name)
    with pytest.raises(UserError, match="none.pth' does not exist"):
        load_weights(make_model(), tmp_path / "none.pth")


def test_pickled_code_is_refused_and_not_run(tmp_path):
    flag = tmp_path / "executed"
    torch.save({"model": make_model().state_dict(), "hook": Evil(flag)}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": Evil(flag)}))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(UserError, match="pickled Python objects|corrupt"):
            load_weights(make_model(), tmp_path / name)
    assert not flag.exists()


def test_entry_is_chosen_when_unique_and_asked_for_otherwise(tmp_path):
    state = filled(1.0).state_dict()
    torch.save({"model": state, "iteration": 3}, tmp_path / "one.pth")
    torch.save({"model": state, "teacher": filled(2.0).state_dict()}, tmp_path / "two.pth")
    torch.save({"weights": state}, tmp_path / "odd.pth")
    torch.save(state, tmp_path / "flat.pth")
    assert load_weights(make_model(), tmp_path / "one.pth").entry == "model"
    assert load_weights(make_model(), tmp_path / "flat.pth").entry == ""
    with pytest.raises(UserError, match=r"more than one entry with weights \(model, teacher\)"):
        load_weights(make_model(), tmp_path / "two.pth")
    model = make_model()
    assert load_weights(model, tmp_path / "two.pth", key="teacher").entry == "teacher"
    assert float(model[0].bias.detach()[0]) == 2.0
    with pytest.raises(UserError, match=r"no entry with weights \(it has: weights\)"):
        load_weights(make_model(), tmp_path / "odd.pth")
    with pytest.raises(UserError, match="has no entry 'student'"):
        load_weights(make_model(), tmp_path / "two.pth", key="student")


def test_wrapper_prefix_is_taken_off(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in filled(3.0).state_dict().items()}
    model = make_model()
    load_weights(model, saved(tmp_path, state))
    assert float(model[0].bias.detach()[0]) == 3.0


def test_metadata_and_hash(tmp_path):
    path = saved(tmp_path, filled(1.0), metadata={"seed": "7"})
    assert read_metadata(path)["seed"] == "7"
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert set(read_state(path)[0]) == set(make_model().state_dict())


@pytest.mark.parametrize("content", [b"junk\n", b"h\x01.", b"(.", b""])
def test_a_file_of_another_kind_gets_a_sentence_without_numbers_of_the_unpickler(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint '.*a\.pth' is corrupt or [a-z ]+(: [A-Za-z ]+.*)?$"):
        read_state(path)


def test_a_part_of_a_larger_checkpoint(tmp_path):
    source = filled(0.5)
    state = {f"encoder.{name}": tensor for name, tensor in source.state_dict().items()}
    whole = saved(tmp_path, state | {"head.0.weight": torch.ones(1)})
    model = make_model()
    report = load_weights(model, whole, part="encoder")
    assert torch.equal(model[0].weight, source[0].weight)
    assert report.outside == ["head.0.weight"] and report.summary().endswith("0 unexpected, 1 of other parts")
    own = saved(tmp_path, filled(0.25), "own.safetensors")  # a file of the part alone is read whole
    assert load_weights(model, own, part="encoder").outside == []
    assert torch.equal(model[0].weight, torch.full((4, 3, 1, 1), 0.25))
    with pytest.raises(UserError, match="of another architecture"):
        load_weights(model, whole, part="encode")  # a part is a whole word
