#!/usr/bin/env bash
# Draws the pictures of docs/gallery.md.
#   examples/gallery.sh [OUT]     OUT: a folder; default docs/images
# The first need nothing but the bundled model and sentences of this repository. The others read data
# that benchmarks/README.md names (UD English EWT, the SMS Spam Collection, Wikipedia) and are left as they are without.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-docs/images}
words=benchmarks/quality/words.tsv
data=${ELMOKIT_SHARED:-../shared}/data
work=build/gallery
mkdir -p "$out" "$work"

elmo plot "$words" "$out/map-senses.png" --word cell --label sense --layer top --projection pca
elmo plot "$words" "$out/map-layers.svg" --word spring --label sense --layer 0 --layer 1 --layer 2 \
  --projection pca --labels 12
elmo plot "$words" "$out/map-words.png" --word bank --word bat --word cell --word spring --by word \
  --layer 1 --labels 20
elmo plot "$words" "$work/page.html" --word bank --word bat --word cell --word spring --by word
${PYTHON:-python} examples/screenshot.py "$work/page.html" "$out/map-page.png" cell || echo "no screenshot without Chromium"

if [ ! -d "$data" ]; then
  echo "$data is not there: the pictures of larger texts stay as they are"
  exit
fi
tar -xf "$data/tasks/ud-english-ewt.tar.xz" -C "$work"
tar -xf "$data/tasks/sms-spam.tar.xz" -C "$work"
elmo plot "$work/ud-english-ewt/raw/en_ewt-ud-dev.conllu" "$out/map-pos.png" --layer 1 --points 1200
sms=$(find "$work/sms-spam" -name 'SMSSpamCollection*' | head -1)
cp "$sms" "$work/sms.tsv"
elmo plot "$work/sms.tsv" "$out/map-spam.png" --column 2 --label 1 --sentences --points 1000 --labels 0
elmo plot "$data/lm/wiki2015/valid.txt.xz" "$out/map-clusters.png" --word cell --clusters 3 --labels 24
