"""A Ray Serve application that scores rows over HTTP (`pip install 'diet-ray[serve]'`).

serve run actors.serving.http:application model=models/best
curl localhost:8000 -d '[{"user_id": "u1", "item_id": 7, "ts": "2017-10-01 12:00"}]'
"""

from typing import Any

import torch
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from diet_ray.errors import DataError
from diet_ray.evaluation.exported_model import load_model
from diet_ray.storage import absolute
from diet_ray.training.device import default_device


class Predictor:
    """Answers a JSON list of rows with a list of probabilities, and a malformed one with code 400."""

    def __init__(self, model: str) -> None:
        torch.set_num_threads(1)
        self.model = load_model(model, default_device())

    async def __call__(self, request: Request) -> JSONResponse:
        try:
            rows = await request.json()
        except ValueError as wrong:
            return JSONResponse({"error": f"the body is not JSON ({wrong}): POST a list of rows"}, 400)
        try:
            scores = self.model.predict(rows)
        except (DataError, ValueError) as wrong:
            return JSONResponse({"error": str(wrong)}, 400)
        return JSONResponse(scores.astype(object).where(scores.notna(), None).to_dict("records"))


def application(args: dict[str, str]) -> serve.Application:
    """The application for `serve run` and a Serve config: `model` is the directory of an exported model."""
    deployment: Any = serve.deployment(Predictor)
    return deployment.bind(absolute(args["model"]))
