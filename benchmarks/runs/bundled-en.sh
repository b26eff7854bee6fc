#!/usr/bin/env bash
# Trains the English model that comes with the package, from the class A corpora of the shared data folder.
#   bundled-en.sh OUT      started again with the same OUT, it continues an interrupted run
# At the end OUT-packed holds what src/elmokit/models/en holds, but for the model card, which is written by hand.
# The shape (bundled-en.json) won the comparison of benchmarks/shapes.py; EPOCHS is what one core carries in five hours.
# Dropout is off as no sentence is read twice. A sentence that stands in several sources is read once, and none of the
# valid and test parts is.
set -euo pipefail
out=${1:?usage: bundled-en.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
data=${ELMOKIT_SHARED:-$here/../../../shared}/data/lm
text=$out-text.txt

export OMP_WAIT_POLICY=passive

if [ -e "$out/training/settings.json" ]; then
  elmo train --out "$out" --resume --threads "${THREADS:-1}"
else
  xzcat "$data"/*/{valid,test}.txt.xz > "$text.unseen"
  xzcat "$data"/wiki2015/train-0?.txt.xz "$data"/openstax/train.txt.xz "$data"/nltk-gutenberg/train.txt.xz \
    | awk 'NR == FNR { seen[$0] = 1; next } !($0 in seen) { seen[$0] = 1; print }' "$text.unseen" - > "$text"
  elmo train "$text" --out "$out" --heldout "$data/wiki2015/valid.txt.xz" --options "$here/bundled-en.json" \
    --max-vocab 50000 --epochs "${EPOCHS:-1}" --batch-size 128 --unroll 20 --samples 4096 --learning-rate 0.004 \
    --dropout 0 --precision bfloat16 --seed 1 --evaluate-every 2500 --evaluate-places 20000 --save-every 500 \
    --threads "${THREADS:-1}"
fi
elmo convert "$out" "$out-packed" --dtype int8
