#!/usr/bin/env bash
# Judges a model with everything that is here and writes one JSON for each judge.
#   run-all.sh MODEL OUT     then benchmarks/table.py, if OUT is benchmarks/results/quality, fills docs/bundled-model.md
# The data are named in benchmarks/README.md (ELMOKIT_SHARED). Static vectors are trained first, or taken from STATIC.
# WORDNET: index.sense of WordNet 3.0, for the words that SemCor lacks. QUICK=1 takes little of everything.
set -euo pipefail
model=${1:?usage: run-all.sh MODEL OUT}
out=${2:?usage: run-all.sh MODEL OUT}
here=$(cd "$(dirname "$0")" && pwd)
data=${ELMOKIT_SHARED:-$here/../../../shared}/data
static=${STATIC:-$out/static${QUICK:+-quick}.kv}
python=${PYTHON:-python}
quick=${QUICK:+--quick}

mkdir -p "$out"
[ -e "$static" ] || "$python" "$here/static_vectors.py" "$data/lm/wiki2015/train-00.txt.xz" --out "$static" \
  --tokens "$([ -n "$quick" ] && echo 100000 || echo 10000000)"
for judge in pos words senses relatedness wic contextuality; do
  "$python" "$here/$judge.py" --model "$model" --static "$static" --data "$data" --out "$out/$judge.json" $quick
done
"$python" "$here/wsd.py" --model "$model" --static "$static" --data "$data" --out "$out/wsd.json" $quick \
  ${WORDNET:+--wordnet "$WORDNET"}
for judge in state perplexity bias search; do
  "$python" "$here/$judge.py" --model "$model" --data "$data" --out "$out/$judge.json" $quick
done
