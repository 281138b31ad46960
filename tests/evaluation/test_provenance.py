from mmovseg.evaluation.provenance import collect_provenance, manifest_sha256


def test_facts_win_over_what_is_collected():
    facts = collect_provenance(device="something", seed=4)
    assert (facts["device"], facts["seed"]) == ("something", 4)
    assert facts["versions"]["python"].count(".") == 2


def test_manifest_hash_ignores_order_and_sees_every_fact():
    a = {"image_id": "1", "file_name": "a.tif", "world": {"x": [1, 2]}}
    b = {"image_id": "2", "file_name": "b.tif"}
    assert manifest_sha256([a, b]) == manifest_sha256([b, a])
    assert manifest_sha256([a, b]) != manifest_sha256([a, {**b, "height": 4}])
