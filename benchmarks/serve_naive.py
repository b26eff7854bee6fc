"""A server as one writes it first, to compare with: each request is one run of the model, one after the other.

    python benchmarks/serve_naive.py MODEL PORT

HTTP is handled by the same libraries as in `elmo serve`, and the reply to `POST /embed` is the same.
"""

from __future__ import annotations

import base64
import sys
from threading import Lock

import numpy as np
import orjson
import torch
import uvicorn
from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import elmokit


def main() -> None:
    torch.set_num_threads(1)
    elmo, lock = elmokit.load(sys.argv[1]), Lock()

    def compute(wanted: dict) -> list[np.ndarray]:
        with lock:
            return list(elmo.embed(wanted["sentences"], pool=wanted["pool"]))

    async def embed(request: Request) -> Response:
        wanted = orjson.loads(await request.body())
        vectors = await to_thread.run_sync(compute, wanted)
        found = [
            {"text": n, "tokens": tokens, "vectors": base64.b64encode(v.tobytes()).decode(), "shape": v.shape}
            for n, (tokens, v) in enumerate(zip(wanted["sentences"], vectors, strict=True))
        ]
        reply = {"model": "model", "dim": elmo.dim, "sentences": found}
        return Response(orjson.dumps(reply), media_type="application/json")

    app = Starlette(routes=[Route("/embed", embed, methods=["POST"])])
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error")


if __name__ == "__main__":
    main()
