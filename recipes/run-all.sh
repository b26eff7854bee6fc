#!/usr/bin/env bash
# Runs the recipes on the data sets that are here, and writes docs/what-elmo-adds.md from what came out, and, of the
# bundled model, a table of docs/bundled-model.md. That takes hours; with --seeds 1 a third of them, and another call with
# --seeds 3 adds the other two seeds to what is there.
#   run-all.sh WORK [OPTION...]     options go to all recipes: --model MODEL, --vectors FILE, --seeds N, --quick
# The layer test is that of benchmarks/quality, with the same --model and --quick; MODEL and FILE are paths or names.
# A result that is in RESULTS (default recipes/results) is not computed again, so a run that was stopped goes on.
# The data are named in benchmarks/README.md (ELMOKIT_SHARED, WORDNET). JOBS recipes run at a time (default 2), a thread
# each.
# Without --vectors, word vectors begin random; recipes/word_vectors.py makes some. PAGE: another copy of the page, for
# results of --quick, which do not belong into the documentation.
set -euo pipefail
work=${1:?usage: run-all.sh WORK [OPTION...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
results=${RESULTS:-$here/results}
export OMP_NUM_THREADS=1

run() { # arguments of bash: recipes, each with its data set, one a line on standard input
  # shellcheck disable=SC2016 (the inner shell expands these)
  tr '\n' '\0' | xargs -0 -P "${JOBS:-2}" -I RECIPE \
    bash -c '"$0" "$1"/$2 --work "$3" --results "$4" "${@:5}"' "$python" "$here" RECIPE "$work" "$results" "$@"
}
judge() { # pos, wsd or wic: what each layer knows
  local out=$results/judges/$1.json of_judges=()
  [ "$1" != wsd ] || of_judges+=(${WORDNET:+--wordnet "$WORDNET"})
  [ -e "$out" ] && return # of another model, what_elmo_adds.py says so
  for ((n = 2; n <= $#; n++)); do
    case ${!n} in
    --quick) of_judges+=(--quick) ;;
    --model) ((n += 1)) && of_judges+=(--model "${!n}") ;;
    --model=*) of_judges+=("${!n}") ;;
    esac
  done
  "$python" "$here/../benchmarks/quality/$1.py" "${of_judges[@]}" --out "$out" >/dev/null
}
printf '%s\n' question_answering.py parts_of_speech.py ner.py chunking.py entailment.py documents.py stored_vectors.py words_in_context.py \
  "classification.py "{trec,sst-5,sst-2,mr,subj,sms,hate} | run "$@"
printf '%s\n' robustness.py sample_efficiency.py | run "$@" # these take what the others have computed already
for name in pos wsd wic; do judge "$name" "$@"; done
"$python" "$here/what_elmo_adds.py" --results "$results" ${PAGE:+--page "$PAGE"}
