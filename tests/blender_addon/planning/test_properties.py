from __future__ import annotations

import json

from blender_addon.planning.properties import DOCUMENT, reconstruction_properties


def test_all_parameters_come_along(answer):
    document = answer.result.faces[0].document
    properties = reconstruction_properties(document, 0, 1.5)
    assert json.loads(properties[DOCUMENT]) == document
    assert properties["focus_photo_sha256"] == document["photo"]["sha256"]
    assert properties["focus_method"] == document["method"]
    assert properties["focus_model"] == "tiny"
    assert properties["focus_model_sha256"] == document["model"]["sha256"]
    assert properties["focus_software"] == f"focus_backend {document['versions']['focus_backend']}"
    assert (properties["focus_face"], properties["focus_seconds"], properties["focus_weights"]) == (0, 1.5, "")


def test_weights_and_misfit(answer):
    document = answer.result.faces[0].document | {"misfit": True, "weights": {"sha256": "ab" * 32}}
    properties = reconstruction_properties(document, 2, 1)
    assert (properties["focus_misfit"], properties["focus_weights"], properties["focus_face"]) == (1, "ab" * 32, 2)


def test_every_value_is_one_blender_keeps():
    document = {"photo": {"name": "\udc80\0.jpg", "width": 2**40}, "model": None, "versions": {"focus_backend": 3}, "misfit": "yes"}
    properties = reconstruction_properties(document, 0, 1)
    assert all(type(value) in (str, int, float) for value in properties.values())
    assert all(abs(value) < 2**31 for value in properties.values() if isinstance(value, int))
    for text in (value for value in properties.values() if isinstance(value, str)):
        assert "\0" not in text.encode("utf-8").decode()
    assert properties["focus_photo"] == "?.jpg"
    assert json.loads(properties[DOCUMENT]) == document
