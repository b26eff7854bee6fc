"""One timed pass in a process of its own; started by embed.py, in elmokit's environment or in the peer's.

Reads a JSON job from stdin: engine, model, text, limit, order, batch_size, threads, save. Writes one JSON line.
"""

import json
import os
import sys
import time


def main():
    job = json.load(sys.stdin)
    import torch

    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    result = ENGINES[job["engine"]](job)
    result["torch"] = torch.__version__
    result["python"] = sys.version.split()[0]
    json.dump(result, sys.stdout)


def matmul(job):
    """The best rate of one big float32 product, by the faster of torch's two libraries: what this machine can do."""
    import torch

    from elmokit.kernels.product import multiply

    n = 3072
    a, b = torch.randn(n, n), torch.randn(n, n)
    rates = {
        name: 2 * n**3 / fastest(lambda f=f: f(a, b)) / 1e9 for name, f in (("mkl", torch.mm), ("onednn", multiply))
    }
    return {"gflops": max(rates.values()), "rates": rates, "size": n}


def fastest(call, times=6):
    """Seconds of the fastest of some calls."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def elmokit(job):
    """elmokit as a user calls it: its own batches, fresh state."""
    import elmokit

    start = time.perf_counter()
    elmo = elmokit.load(job["model"])
    loaded = time.perf_counter() - start
    result = timed(lambda sentences: elmo.embed(sentences, layers="all"), job)
    return dict(result, load_seconds=loaded, version=elmokit.__version__)


def allennlp(job):
    """AllenNLP's `_ElmoBiLm`, with the steps that its `allennlp elmo` command took round it."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import torch
    from allennlp.modules.elmo import _ElmoBiLm, batch_to_ids
    from allennlp.nn.util import remove_sentence_boundaries
    from allennlp.version import VERSION

    start = time.perf_counter()
    files = [os.path.join(job["model"], name) for name in ("options.json", "weights.hdf5")]
    network = _ElmoBiLm(*files).eval()
    loaded = time.perf_counter() - start

    def embed(sentences):
        for first in range(0, len(sentences), job["batch_size"]):
            batch = sentences[first : first + job["batch_size"]]
            out = network(batch_to_ids(batch))
            layers = [remove_sentence_boundaries(layer, out["mask"])[0] for layer in out["activations"]]
            for vectors, sentence in zip(torch.stack(layers, 1).numpy(), batch, strict=True):
                yield vectors[:, : len(sentence)]

    return dict(timed(embed, job), load_seconds=loaded, version=VERSION)


def timed(embed, job):
    """A first batch, to warm up and to save for the comparison; then every sentence, against the clock."""
    import numpy

    sentences = read(job)
    first = [numpy.array(vectors) for vectors in embed(sentences[: job["batch_size"]])]
    if job["save"]:
        numpy.savez(job["save"], *first)
    before = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(vectors.shape[1] for vectors in embed(sentences))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    expected = sum(map(len, sentences))
    if tokens != expected:
        sys.exit(f"vectors came back for {tokens} tokens of {expected}")
    return {"seconds": wall, "cpu_seconds": cpu, "peak_mb_before": before, "peak_mb": peak_memory()}


def read(job):
    with open(job["text"], encoding="utf-8") as lines:
        sentences = [line.split() for line in lines if not line.isspace()]
    sentences = sentences[: job["limit"]]
    return sorted(sentences, key=len) if job["order"] == "sorted" else sentences


def peak_memory():
    """Highest resident size so far, MB. Not getrusage: on Linux that remembers the parent of before the exec."""
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
    except OSError:
        import resource

        unit = 1024**2 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


ENGINES = {"matmul": matmul, "elmokit": elmokit, "allennlp": allennlp}

if __name__ == "__main__":
    main()
