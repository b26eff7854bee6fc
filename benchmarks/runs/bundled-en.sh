#!/usr/bin/env bash
# Trains the English model that comes with the package, from the class A corpora of the shared data folder.
#   bundled-en.sh OUT      started again with the same OUT, it continues an interrupted run
# At the end OUT-float16 holds what src/elmokit/models/en holds, but for the model card, which is written by hand.
# The shape (bundled-en.json) is the paper's "small" with half the filters, so that the softmax head fits into 28 MB
# too, and because it learns more in the same time (bundled-shape.sh). EPOCHS is what two shared cores carry in about an
# hour and a half: a fourteenth of one pass. Raise it where there is more machine.
set -euo pipefail
out=${1:?usage: bundled-en.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
data=${ELMOKIT_SHARED:-$here/../../../shared}/data/lm
epochs=${EPOCHS:-0.075}

export OMP_WAIT_POLICY=passive

if [ -e "$out/training/settings.json" ]; then
  elmo train --out "$out" --resume --threads "${THREADS:-2}"
else
  elmo train "$data"/wiki2015/train-0?.txt.xz "$data"/openstax/train.txt.xz "$data"/nltk-gutenberg/train.txt.xz \
    --out "$out" --heldout "$data/wiki2015/valid.txt.xz" --options "$here/bundled-en.json" \
    --max-vocab 50000 --epochs "$epochs" --batch-size 32 --unroll 20 --samples 2048 --learning-rate 0.002 \
    --dropout 0.1 --seed 1 --evaluate-every 1000 --evaluate-places 20000 --save-every 500 --threads "${THREADS:-2}"
fi
elmo convert "$out" "$out-float16" --dtype float16
