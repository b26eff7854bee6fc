"""One timed pass in a process of its own; started by embed.py, in elmokit's environment or in a peer's (Python 3.6 on).

Reads a JSON job from stdin: engine, model, text, limit, order, batch_size, threads, save, one_sentence. Writes one JSON
line.
"""

import json
import os
import sys
import time


def main():
    job = json.load(sys.stdin)
    result = ENGINES[job["engine"]](job)
    result["python"] = sys.version.split()[0]
    json.dump(result, sys.stdout)


def matmul(job):
    """The best rate of one big float32 product, by the faster of torch's two libraries: what this machine can do."""
    torch = with_threads(job)
    from elmokit.kernels.product import multiply

    n = 3072
    a, b = torch.randn(n, n), torch.randn(n, n)
    rates = {
        name: 2 * n**3 / fastest(lambda f=f: f(a, b)) / 1e9 for name, f in (("mkl", torch.mm), ("onednn", multiply))
    }
    return {"gflops": max(rates.values()), "rates": rates, "size": n}


def reading(job):
    """The best rate of summing as many float32 values as the layers have weights: how fast they can be read."""
    torch = with_threads(job)
    weights = torch.ones(job["weights"])
    return {"gb_s": 4 * job["weights"] / fastest(weights.sum, times=20) / 1e9}


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
    torch = with_threads(job)
    import elmokit

    start = time.perf_counter()
    elmo = elmokit.load(job["model"], precision=job.get("precision", "float32"))
    loaded = time.perf_counter() - start
    result = timed(lambda sentences: elmo.embed(sentences, layers="all"), job)
    if job.get("one_sentence"):
        words, sentences = elmo.word_vectors(), read(job)
        for _ in ("their words are new", "their words are known"):
            result["latency_kept_ms"] = latency_ms(lambda one: elmo.embed(one, layers="all", words=words), sentences)
    return dict(result, load_seconds=loaded, version=elmokit.__version__, torch=torch.__version__)


def allennlp(job):
    """AllenNLP's `_ElmoBiLm`, with the steps that its `allennlp elmo` command took round it."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch = with_threads(job)
    from allennlp.modules.elmo import _ElmoBiLm, batch_to_ids
    from allennlp.nn.util import remove_sentence_boundaries
    from allennlp.version import VERSION

    start = time.perf_counter()
    files = [os.path.join(job["model"], name) for name in ("options.json", "weights.hdf5")]
    network = _ElmoBiLm(*files).eval()
    loaded = time.perf_counter() - start

    def embed(sentences):
        for batch in batches(sentences, job):
            out = network(batch_to_ids(batch))
            layers = [remove_sentence_boundaries(layer, out["mask"])[0] for layer in out["activations"]]
            for number, sentence in enumerate(batch):
                yield torch.stack([layer[number, : len(sentence)] for layer in layers]).numpy()

    return dict(timed(embed, job), load_seconds=loaded, version=VERSION, torch=torch.__version__)


def fast_elmo(job):
    """pytorch-fast-elmo, which gives one mix of the layers."""
    import warnings

    warnings.filterwarnings("ignore")
    torch = with_threads(job)
    from pytorch_fast_elmo import FastElmo, __version__, batch_to_char_ids

    start = time.perf_counter()
    network = FastElmo(*[os.path.join(job["model"], name) for name in ("options.json", "weights.hdf5")]).eval()
    loaded = time.perf_counter() - start

    def embed(sentences):
        for batch in batches(sentences, job):
            mixed = network(batch_to_char_ids(batch))["elmo_representations"][0].numpy()
            for vectors, sentence in zip(mixed, batch):  # noqa: B905 (not known to Python 3.6)
                yield vectors[: len(sentence)]

    return dict(timed(embed, job), load_seconds=loaded, version=__version__, torch=torch.__version__)


def bilm_tf(job):
    """bilm-tf's graph, in batches: the work of its `dump_bilm_embeddings`."""
    import tempfile
    import warnings

    warnings.filterwarnings("ignore")
    out, sys.stdout = sys.stdout, sys.stderr  # it prints while it builds
    import tensorflow

    v1 = tensorflow.compat.v1
    v1.logging.set_verbosity(v1.logging.ERROR)
    from bilm import Batcher, BidirectionalLanguageModel

    start = time.perf_counter()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as vocabulary:
        vocabulary.write("<S>\n</S>\n<UNK>\n")
        vocabulary.flush()
        batcher = Batcher(vocabulary.name, 50)
    files = [os.path.join(job["model"], name) for name in ("options.json", "weights.hdf5")]
    ids = v1.placeholder("int32", (None, None, 50))
    layers = BidirectionalLanguageModel(*files, max_batch_size=job["batch_size"])(ids)["lm_embeddings"]
    threads = dict.fromkeys(("intra_op_parallelism_threads", "inter_op_parallelism_threads"), job["threads"])
    session = v1.Session(config=v1.ConfigProto(**threads))
    session.run(v1.global_variables_initializer())
    loaded = time.perf_counter() - start
    sys.stdout = out

    def embed(sentences):
        for batch in batches(sentences, job):
            stacks = session.run(layers, {ids: batcher.batch_sentences(batch)})
            for vectors, sentence in zip(stacks, batch):  # noqa: B905 (see above)
                yield vectors[:, : len(sentence)]

    return dict(timed(embed, job), load_seconds=loaded, version="0.1.post5", tensorflow=tensorflow.__version__)


def with_threads(job):
    """torch, with so many threads and no gradients."""
    import torch

    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    return torch


def batches(sentences, job):
    """The sentences in the order given, so many at a time."""
    for first in range(0, len(sentences), job["batch_size"]):
        yield sentences[first : first + job["batch_size"]]


def timed(embed, job):
    """A first batch, to warm up and to save for the comparison; then every sentence, or one at a time, timed."""
    import numpy

    sentences = read(job)
    first = [numpy.array(vectors) for vectors in embed(sentences[: job["batch_size"]])]
    if job.get("save"):
        numpy.savez(job["save"], *first)
    if job.get("one_sentence"):
        return {"latency_ms": latency_ms(embed, sentences)}
    before = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(vectors.shape[-2] for vectors in embed(sentences))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    expected = sum(map(len, sentences))
    if tokens != expected:
        sys.exit(f"vectors came back for {tokens} tokens of {expected}")
    memory = {"peak_mb_before": before, "peak_mb": peak_memory()}
    return dict(memory, seconds=wall, cpu_seconds=cpu)


def latency_ms(embed, sentences):
    """Median time of a call with one sentence of 20 tokens."""
    words = [word for sentence in sentences for word in sentence]
    times = []
    for number in range(30):
        one = words[20 * number : 20 * number + 20]
        start = time.perf_counter()
        list(embed([one]))
        times.append(time.perf_counter() - start)
    return sorted(times[5:])[12] * 1e3


def read(job):
    with open(job["text"], encoding="utf-8") as lines:
        sentences = [line.split() for line in lines if not line.isspace()]
    sentences = sentences[: job["limit"]]
    return sorted(sentences, key=len) if job.get("order") == "sorted" else sentences


def peak_memory():
    """Highest resident size so far, MB. Not getrusage: on Linux that remembers the parent of before the exec."""
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
    except OSError:
        import resource

        unit = 1024**2 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


ENGINES = {engine.__name__: engine for engine in (matmul, reading, elmokit, allennlp, fast_elmo, bilm_tf)}

if __name__ == "__main__":
    main()
