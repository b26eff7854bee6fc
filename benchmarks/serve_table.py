"""The table of results/serve.json, for table.py."""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"(.*), (\d+) clients, (\d+) sentences")


def serve_lines(found: dict[str, Any]) -> list[str]:
    """A row for each load of each server: medians of the rounds; throughput as parts of offline embedding."""
    rows = [
        "| clients | sentences a request | server | throughput, of offline | for the same processor time | p50, ms "
        "| p95 | p99 | failed |",
        "|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, run in sorted(found["summary"].items(), key=_order):
        if match := _NAME.fullmatch(name):
            server, clients, size = match.groups()
            shares = (f"{run[key]:.0%}" for key in ("tokens_per_s_of_offline", "tokens_per_cpu_s_of_offline"))
            times = (f"{run[key]:,.0f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
            rows.append(f"| {' | '.join([clients, size, server, *shares, *times, format(run['failed'], '.0f')])} |")
    return [*rows, "", _note(found)]


def _order(item: tuple[str, Any]) -> tuple[int, ...]:
    match = _NAME.fullmatch(item[0])
    return (int(match[3]), int(match[2]), len(match[1])) if match else ()


def _note(found: dict[str, Any]) -> str:
    text, machine, offline = found["text"], found["machine"], found["summary"]["offline"]
    rates = [run["tokens_per_s"] for run in found["rounds"]["offline"]]
    return (
        f"Shape {found['shape']}; {text['sentences']:,} sentences, {text['tokens']:,} tokens; {machine['processor']}, "
        f"one thread; load average {machine['load']:.0f}; {len(rates)} runs offline between them, {min(rates):,.0f} to "
        f"{max(rates):,.0f} tokens a second, {offline['tokens_per_cpu_s']:,.0f} a second of processor time."
    )
