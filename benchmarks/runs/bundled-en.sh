#!/usr/bin/env bash
# Trains the English model that comes with the package, from the class A corpora of the shared data folder.
#   bundled-en.sh OUT      started again with the same OUT, it continues an interrupted run
# At the end OUT-packed holds what src/elmokit/models/en holds, but for the model card, which is written by hand.
# The shape (bundled-en.json) won the comparison of benchmarks/shapes.py. The text is cut into two halves, thousand
# sentences by thousand, so that a later run can go on (--from) with what this one has not read; the words to predict are
# counted on all of it. EPOCHS, of the first half, is what one core carries in 80 minutes.
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
  awk 'int(NR / 1000) % 2 == 0' "$text" > "$text.first"
  { printf '<S>\n</S>\n<UNK>\n'
    awk '{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (word in n) print n[word] "\t" word }' "$text" \
      | LC_ALL=C sort -t $'\t' -k 1,1nr -k 2,2 | cut -f 2 | sed -n '1,49997p'; } > "$text.vocabulary"
  elmo train "$text.first" --out "$out" --heldout "$data/wiki2015/valid.txt.xz" --options "$here/bundled-en.json" \
    --vocabulary "$text.vocabulary" --epochs "${EPOCHS:-0.5}" --batch-size 128 --unroll 20 --samples 4096 \
    --learning-rate 0.004 --dropout 0 --precision bfloat16 --seed 1 --evaluate-every 2500 --evaluate-places 20000 \
    --save-every 500 --threads "${THREADS:-1}"
fi
elmo convert "$out" "$out-packed" --dtype int8
