"""Seconds that bilm-tf's own train() takes; started by train_speed.py, inside the environment that holds bilm-tf."""

import json
import os
import sys

from peer_bilm_tf import load_vocab, run_training

with open(sys.argv[1], encoding="utf-8") as file:
    job = json.load(file)
checkpoints = os.path.join(job["out"], "bilm_tf")
os.makedirs(checkpoints)
vocabulary = load_vocab(job["vocabulary"], job["options"]["char_cnn"]["max_characters_per_token"])
print(json.dumps(run_training(job, vocabulary, checkpoints, os.path.join(job["out"], "bilm_tf.log"))))
