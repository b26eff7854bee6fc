#!/usr/bin/env bash
# The choice of the bundled model's shape: the paper's "small" and the same with half its filters (bundled-en.json), each
# trained on one core for as many updates as take the same processor time; a part of the corpus, as little was read.
#   bundled-shape.sh OUT      then OUT/half and OUT/small; `elmo train` prints the held-out perplexity
# UPDATES of "small" per update of "half": measured here, 388 to 600.
set -euo pipefail
out=${1:?usage: bundled-shape.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
data=${ELMOKIT_SHARED:-$here/../../../shared}/data/lm/wiki2015
mkdir -p "$out"

train() { # name, shape, share of an epoch
  # shellcheck disable=SC2086
  OMP_NUM_THREADS=1 bash -c 'time elmo "$@"' elmo train "$data/train-00.txt.xz" --out "$out/$1" \
    --heldout "$data/valid.txt.xz" $2 --max-vocab 50000 --epochs "$3" --batch-size 32 --unroll 20 --samples 2048 \
    --learning-rate 0.002 --dropout 0.1 --seed 1 --evaluate-every 1000000 --evaluate-places 20000 \
    --save-every 100000 --threads 1
}
train half "--options $here/bundled-en.json" 0.0370 &
train small "--preset small" 0.0239 &
wait
