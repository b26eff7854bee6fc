"""Train bilm-tf by its own recipe and measure exact held-out perplexity; started by train_peer.py.

Runs inside the environment that holds bilm-tf (Python 3.6, TensorFlow 1.15), so it keeps to that Python.
The only argument is a JSON file: train, heldout, vocabulary, out (paths), options (bilm-tf's own options.json), seed.
"""

import json
import os
import random
import re
import resource
import sys
import time
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
warnings.filterwarnings("ignore")

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from bilm.data import BidirectionalLMDataset  # noqa: E402
from bilm.training import LanguageModel, dump_weights, load_options_latest_checkpoint, load_vocab, train  # noqa: E402


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    options, out = job["options"], job["out"]
    vocabulary = load_vocab(job["vocabulary"], options["char_cnn"]["max_characters_per_token"])
    checkpoints = os.path.join(out, "bilm_tf")
    os.makedirs(checkpoints, exist_ok=True)
    log = os.path.join(out, "bilm_tf.log")

    clock = run_training(job, vocabulary, checkpoints, log)
    heldout = heldout_losses(job["heldout"], vocabulary, checkpoints)
    export(checkpoints, log)
    result = {
        "versions": {
            "python": sys.version.split()[0],
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "h5py": h5py.__version__,
        },
        "threads": len(os.sched_getaffinity(0)),
        "seed": job["seed"],
        "training": clock,
        "curve": curve(log),
        "heldout": heldout,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    with open(os.path.join(out, "bilm_tf.json"), "w") as file:
        json.dump(result, file, indent=1)


def run_training(job: dict, vocabulary: object, checkpoints: str, log: str) -> dict:
    """Its train() as its own script calls it; 'gpu 0' falls back to the CPU by TensorFlow's soft placement."""
    random.seed(job["seed"])
    tf.compat.v1.set_random_seed(job["seed"])
    wall, cpu = time.time(), time.process_time()
    with Redirected(log):
        data = BidirectionalLMDataset(job["train"], vocabulary, test=False, shuffle_on_load=True)
        train(job["options"], data, 1, checkpoints, checkpoints)
    wall, cpu = time.time() - wall, time.process_time() - cpu
    tf.compat.v1.reset_default_graph()

    options, checkpoint = load_options_latest_checkpoint(checkpoints)
    updates = int(checkpoint.rsplit("-", 1)[1])
    tokens = options["batch_size"] * options["unroll_steps"]
    return {
        "updates": updates,
        "tokens_per_update": tokens,
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "tokens_per_s": round(updates * tokens / wall, 1),
    }


def heldout_losses(path: str, vocabulary: object, checkpoints: str) -> dict:
    """Full softmax over every place of the text, one stream, state carried from the first sentence to the last.

    The same graph, feeding and averaging as its test(), with a batch of one so that nothing at the end is dropped, and
    with the losses of the two directions kept apart (test() gives only their mean).
    """
    options, checkpoint = load_options_latest_checkpoint(checkpoints)
    options = dict(options, batch_size=1, unroll_steps=1)
    losses, start = [], time.time()
    with tf.compat.v1.Session() as session:
        with tf.compat.v1.variable_scope("lm"):
            model = LanguageModel(options, False)
        tf.compat.v1.train.Saver().restore(session, checkpoint)
        state = None
        data = BidirectionalLMDataset(path, vocabulary, test=True, shuffle_on_load=False)
        for batch in data.iter_batches(1, 1):
            feed = {
                model.tokens_characters: batch["tokens_characters"],
                model.tokens_characters_reverse: batch["tokens_characters_reverse"],
                model.next_token_id: batch["next_token_id"],
                model.next_token_id_reverse: batch["next_token_id_reverse"],
            }
            # The first time the zero state of the graph itself is used.
            if state is not None:
                feed.update(zip(model.init_lstm_state, state))  # noqa: B905 (Python 3.6)
            loss, state = session.run([model.individual_losses, model.final_lstm_state], feed)
            losses.append(loss)
    tf.compat.v1.reset_default_graph()
    forward, backward = np.mean(np.asarray(losses, np.float64), axis=0)
    return {
        "batch_size": 1,
        "predictions": len(losses),
        "forward": float(np.exp(forward)),
        "backward": float(np.exp(backward)),
        "mean": float(np.exp((forward + backward) / 2)),
        "seconds": round(time.time() - start, 1),
    }


def export(checkpoints: str, log: str) -> None:
    """Its own weight dump, and beside it the softmax weights, which that dump leaves out."""
    with Redirected(log):
        dump_weights(checkpoints, os.path.join(checkpoints, "weights.hdf5"))
    _, checkpoint = load_options_latest_checkpoint(checkpoints)
    reader = tf.compat.v1.train.NewCheckpointReader(checkpoint)
    np.savez(
        os.path.join(checkpoints, "softmax.npz"),
        W=reader.get_tensor("lm/softmax/W"),
        b=reader.get_tensor("lm/softmax/b"),
    )


def curve(log: str) -> list:
    """Pairs (update, training perplexity) that its loop printed every hundred batches."""
    with open(log, encoding="utf-8") as file:
        found = re.findall(r"^Batch (\d+), train_perplexity=(\S+)", file.read(), re.MULTILINE)
    return [[int(update), round(float(perplexity), 2)] for update, perplexity in found]


class Redirected:
    """Its functions print a great deal: send that to the end of a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.kept, sys.stdout = sys.stdout, open(self.path, "a", encoding="utf-8", buffering=1)

    def __exit__(self, *_: object) -> None:
        sys.stdout.close()
        sys.stdout = self.kept


if __name__ == "__main__":
    main()
