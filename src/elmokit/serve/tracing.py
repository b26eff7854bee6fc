"""Traces for OpenTelemetry: a span for each request, sent where the OTEL_* variables of its specification say."""

from __future__ import annotations

from starlette.types import ASGIApp

from elmokit.errors import require

for _package in ("opentelemetry.sdk", "opentelemetry.instrumentation.asgi", "opentelemetry.exporter.otlp.proto.http"):
    require(_package, extra="tracing")

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: E402
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: E402
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: E402


def traced(app: ASGIApp) -> ASGIApp:
    """Return an application whose requests are traced, as parts of the traces that their clients began."""
    provider = TracerProvider(resource=Resource({"service.name": "elmokit"}).merge(Resource.create()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])
