"""An exported model as a server: what it answers, and that it does over HTTP."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from ray import serve
from starlette.requests import Request

import diet_ray
from actors.serving.http import Predictor
from diet_ray.errors import ConfigError
from pipelines.options.predict import Serve
from pipelines.serve import check_port, request_text, serving
from tests.exported_shop import export_model
from tests.shop_log import shop_rows

ROOT = Path(__file__).parents[1]
ROW = {"ts": "2017-09-03 12:00", "user_id": "u40", "item_id": 31, "brand": None}


@pytest.fixture(scope="module")
def shop_model(shop_log: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served") / "model"
    export_model(shop_log / "out", folder)
    return str(folder)


def posted(predictor: Predictor, body: bytes) -> tuple[int, Any]:
    """Status and content of the answer to a POST, without a server."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    answer = asyncio.run(predictor(Request({"type": "http", "method": "POST", "headers": []}, receive)))
    return answer.status_code, json.loads(answer.body)


def test_rows_are_answered_with_their_probabilities(shop_model: str) -> None:
    expected = diet_ray.load_model(shop_model).predict([ROW, {**ROW, "user_id": "u1"}])
    code, content = posted(Predictor(shop_model), json.dumps([ROW, {**ROW, "user_id": "u1"}]).encode())
    assert code == 200
    pd.testing.assert_frame_equal(pd.DataFrame(content), expected)
    assert content[0] != content[1]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "Expecting property name"),
        (b"", "the body is not JSON (Expecting value: line 1 column 1 (char 0)): POST a list of rows"),
        (json.dumps(ROW).encode(), "a list of dicts, but this is a dict"),
        (json.dumps([{"user_id": "u1"}]).encode(), "no column ts, item_id, brand"),
        (json.dumps([{**ROW, "ts": "soon"}]).encode(), "row 1: ts is missing or not a time"),
        (b"\xff", "decode"),
    ],
)
def test_what_is_no_row_is_a_bad_request(shop_model: str, body: bytes, says: str) -> None:
    code, content = posted(Predictor(shop_model), body)
    assert code == 400 and says in content["error"]


def test_rows_that_cannot_be_read_are_null(shop_log: Path, tmp_path: Path) -> None:
    export_model(shop_log / "out", tmp_path)
    schema = tmp_path / "schema.yaml"
    schema.write_text(schema.read_text().replace("malformed: error", "malformed: quarantine"))
    code, content = posted(Predictor(str(tmp_path)), json.dumps([{**ROW, "ts": "soon"}, ROW]).encode())
    assert code == 200 and content[0] == {"clicked": None, "bought": None} and content[1]["clicked"] > 0


def test_a_request_is_shown_with_the_columns_of_the_model(shop_model: str) -> None:
    row = '{"ts": ..., "user_id": ..., "item_id": ..., "brand": ...}'
    text = request_text(diet_ray.load_model(shop_model), "http://127.0.0.1:80/")
    assert text == f"a request: curl http://127.0.0.1:80/ -d '[{row}]'"


@pytest.mark.long
def test_requests_over_http(ray_here: None, shop_model: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(Serve(shop_model, port=port)) as url:
        rows = shop_rows().astype({"ts": "str"})
        body = rows.astype(object).where(rows.notna(), None).to_dict("records")
        answer = requests.post(url, json=body, timeout=60)
        expected = diet_ray.load_model(shop_model).predict(shop_rows())
        pd.testing.assert_frame_equal(pd.DataFrame(answer.json()), expected, atol=1e-6)
        refused = requests.post(url, json=[{"user_id": 1}], timeout=60)
        assert refused.status_code == 400 and "no column" in refused.json()["error"]
        with pytest.raises(ConfigError, match=f"--port {port} on 127.0.0.1: Address already in use"):
            check_port("127.0.0.1", port)
    serve.shutdown()


@pytest.mark.long
def test_the_command_ends_as_a_service_should(shop_model: str) -> None:
    """SIGTERM, which service managers send, is no crash; what it says leads to a first request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "pipelines.cli", "serve", "--model", shop_model, "--port", str(port)]
    own = {**os.environ, "RAY_ADDRESS": "local"}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=own, cwd=ROOT) as server:
        assert server.stderr
        said = [next(line for line in server.stderr if "answers at" in line), server.stderr.readline()]
        assert f'curl http://127.0.0.1:{port}/ -d \'[{{"ts": ...' in said[1]
        assert requests.post(f"http://127.0.0.1:{port}/", json=[ROW], timeout=60).status_code == 200
        server.terminate()
        rest = server.stderr.read()
    assert server.returncode == 0 and "ended" in rest and "SIGTERM" not in rest
