"""A server for models: the protocols of OpenAI, TensorFlow Serving and Open Inference, our own, and a page.

`run` starts it; `make_app` returns the application alone, for another server of ASGI.
"""

from __future__ import annotations

from elmokit.errors import require

for _package in ("fastapi", "uvicorn", "orjson", "prometheus_client"):
    require(_package, extra="serve")

from elmokit.serve.app import make_app as make_app  # noqa: E402 - a plain error must come first
from elmokit.serve.hosted import Hosted as Hosted  # noqa: E402
from elmokit.serve.run import run as run  # noqa: E402
from elmokit.serve.settings import Limits as Limits  # noqa: E402
from elmokit.serve.settings import Settings as Settings  # noqa: E402
from elmokit.serve.watch import JsonLines as JsonLines  # noqa: E402

__all__ = ["Hosted", "JsonLines", "Limits", "Settings", "make_app", "run"]
