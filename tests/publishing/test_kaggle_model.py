"""Kaggle's own client takes the packed model and sends the files that were packed."""

import pytest
from kaggle_server import Answer, KaggleServer, json_answer, point_client_at

from nuclei.publishing.kaggle_model import pack_model
from nuclei.submission.kaggle_client import connect

CREATE, VARY = (f"POST /v1/models.ModelApiService/{call}" for call in ("CreateModel", "CreateModelInstance"))
START, STORAGE = "POST /v1/blobs.BlobApiService/StartBlobUpload", "PUT /storage/upload"


def test_the_clients_own_checks_take_model_and_variation_and_send_the_files(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    (tmp_path / "model.pt").write_bytes(b"weights")
    pack_model([tmp_path / "model.onnx", tmp_path / "model.pt"], tmp_path / "model", "Some-User", "unet_small")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with KaggleServer() as server:
        server.routes[CREATE] = server.routes[VARY] = lambda _: json_answer({"id": 1, "url": "/models/1"})
        server.routes[START] = lambda _: json_answer(
            {"token": "blob", "createUrl": f"{server.url}/storage/upload"}
        )
        server.routes[STORAGE] = lambda _: Answer(200)
        point_client_at(server, monkeypatch, tmp_path, server.token)
        client = connect("upload the folder by hand")
        client.model_create_new(str(tmp_path / "model"))
        client.model_instance_create(str(tmp_path / "model/variation"), quiet=True)
        assert server.seen(CREATE)[0].json()["slug"] == "nuclei-segmentation"
        body = server.seen(VARY)[0].json()["body"]
        stored = {request.body for request in server.seen(STORAGE)}
    assert body["instanceSlug"] == "unet-small"
    assert body["framework"] == "MODEL_FRAMEWORK_ONNX"
    assert {b"a graph", b"weights"} == stored


def test_a_file_that_was_not_exported_is_named_with_the_command(tmp_path):
    with pytest.raises(ValueError, match=r"model.onnx: no such file; run `make export EXP=unet_small` first"):
        pack_model([tmp_path / "model.onnx"], tmp_path / "model", "me", "unet_small")
