#!/usr/bin/env bash
# Trains the English model that comes with the package, from the English texts that benchmarks/README.md names.
#   bundled-en.sh OUT      started again with the same OUT, it continues an interrupted run
# At the end OUT-packed holds what src/elmokit/models/en holds, but for the model card, which is written by hand.
# The shape (bundled-en.json) won the comparison of benchmarks/shapes.py. The text is cut into two halves, thousand
# sentences by thousand. OUT-first reads half of the first, which is what one core carries in 80 minutes; from there
# OUT-second reads all of the second, some 90 minutes of two cores, at half the learning rate; from there OUT reads all of
# the text 1.4 times, some three and a half hours of two cores. The words to predict are counted on all of the text.
# Dropout is off as no sentence is read more than three times. A sentence that stands in several sources is in the text
# once, and none of the valid and test parts is.
set -euo pipefail
out=${1:?usage: bundled-en.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
data=${ELMOKIT_SHARED:-$here/../../../shared}/data/lm
text=$out-text.txt

train() { # OUT THREADS OPTION...: starts a stage, or continues it; one that is finished says so and ends
  local stage=$1 threads=$2
  shift 2
  if [ -e "$stage/training/settings.json" ]; then
    elmo train --out "$stage" --resume --threads "$threads"
  else
    elmo train "$@" --out "$stage" --heldout "$data/wiki2015/valid.txt.xz" --batch-size 128 --unroll 20 \
      --samples 4096 --dropout 0 --precision bfloat16 --evaluate-places 20000 --save-every 500 \
      --threads "$threads"
  fi
}

if [ ! -e "$text.vocabulary" ]; then
  xzcat "$data"/*/{valid,test}.txt.xz > "$text.unseen"
  xzcat "$data"/wiki2015/train-0?.txt.xz "$data"/openstax/train.txt.xz "$data"/nltk-gutenberg/train.txt.xz \
    | awk 'NR == FNR { seen[$0] = 1; next } !($0 in seen) { seen[$0] = 1; print }' "$text.unseen" - > "$text"
  awk -v halves="$text" '{ print > (halves (int(NR / 1000) % 2 ? ".second" : ".first")) }' "$text"
  { printf '<S>\n</S>\n<UNK>\n'
    awk '{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (word in n) print n[word] "\t" word }' "$text" \
      | LC_ALL=C sort -t $'\t' -k 1,1nr -k 2,2 | cut -f 2 | sed -n '1,49997p'; } > "$text.words"
  mv "$text.words" "$text.vocabulary"
fi
OMP_WAIT_POLICY=passive train "$out-first" "${THREADS:-1}" "$text.first" --options "$here/bundled-en.json" \
  --vocabulary "$text.vocabulary" --epochs "${EPOCHS:-0.5}" --learning-rate 0.004 --seed 1 \
  --evaluate-every 2500
export GOMP_SPINCOUNT=30000
train "$out-second" "${THREADS:-2}" "$text.second" --from "$out-first" --epochs 1 --learning-rate 0.002 --seed 2 \
  --evaluate-every 2500
train "$out" "${THREADS:-2}" "$text" --from "$out-second" --epochs 1.4 --learning-rate 0.003 --seed 3 \
  --evaluate-every 5000
elmo convert "$out" "$out-packed" --dtype int8
{ printf 'page\ttitle\n'
  xzcat "$data/wiki2015/titles.tsv.xz" | awk -F '\t' '$1 == "train" { print $2 "\t" $3 }' | LC_ALL=C sort -n
} > "$out-packed/wikipedia.tsv" # for the attribution that the licence asks
