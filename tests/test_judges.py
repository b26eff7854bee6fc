"""The judges of benchmarks/quality: scores against counting by hand, and each judge quickly from end to end."""

import argparse
import io
import json
import lzma
import math
import os
import subprocess
import sys
import tarfile
import warnings
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_checkpoint
from elmokit.checkpoint import write_native

QUALITY = Path(__file__).parents[1] / "benchmarks" / "quality"
if not QUALITY.is_dir():
    pytest.skip("the benchmarks are not beside the tests", allow_module_level=True)
sys.path.insert(0, str(QUALITY))

import bias  # noqa: E402 (the folder above is on the path only now)
import contextuality  # noqa: E402
import judged_collections  # noqa: E402
import judging  # noqa: E402
import perplexity  # noqa: E402
import pos  # noqa: E402
import probe  # noqa: E402
import relatedness  # noqa: E402
import search  # noqa: E402
import senses  # noqa: E402
import state  # noqa: E402
import static_vectors  # noqa: E402
import tables  # noqa: E402
import wic  # noqa: E402
import words  # noqa: E402
import wsd  # noqa: E402

WORDS = "<S> </S> <UNK> the he she bank river money old a said was late".split()


def table_of(vectors):
    """A system that looks words up, as static vectors are."""

    class Table(dict):
        vector_size = len(next(iter(vectors.values())))

    return judging.lookup_system(Table({word: np.array(v, np.float32) for word, v in vectors.items()}))


def cos(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


# ---------------------------------------------------------------- scores


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-0.5, 0.0, 0.2, 0.3, 0.9]), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_is_right_more_often(pairs):
    """Against all thresholds that tell these cosines apart."""
    cosines, same = np.array([c for c, _ in pairs]), np.array([s for _, s in pairs])

    def right(limit):
        return ((cosines >= limit) == same).sum()

    assert right(wic.threshold(cosines, same)) == max(right(limit) for limit in (-1, -0.2, 0.1, 0.25, 0.6, 1.5))


def test_a_threshold_lies_between_what_it_parts():
    assert wic.threshold(np.array([0.9, 0.1, 0.5, 0.3]), np.array([True, False, True, False])) == pytest.approx(0.4)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(0, 99))
def test_mean_cosine_is_that_of_all_pairs(n, seed):
    vectors = np.random.default_rng(seed).normal(0.3, 1, (n, 5))
    assert contextuality.mean_cosine(vectors) == pytest.approx(
        np.mean([cos(a, b) for a, b in combinations(vectors, 2)])
    )


def test_what_one_direction_explains():
    assert contextuality.explained(np.outer([1.0, -2, 3], [1, 1])) == pytest.approx(1)
    assert contextuality.explained(np.diag([3.0, 1.0])) == pytest.approx(0.9)


def test_what_chance_explains_does_not_hang_on_a_draw():
    random = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    random[:5] = 1.0  # what stands first in the text is no sample of it
    found = contextuality.explained_by_chance(random, {5, 400})
    draws = [contextuality.explained(random[5 + n : 10 + n]) for n in range(0, 350, 5)]
    assert found[5] == pytest.approx(np.mean(draws), abs=0.03)
    assert found[400] == pytest.approx(contextuality.explained(random))


def test_statistics_of_words_without_context():
    """Uses of a word are equal, so self-similarity is 1 and one direction explains all of them."""
    system = table_of({"a": [1, 0], "b": [0, 1]})
    (found,) = contextuality.judge(system, [["a", "b"]] * 6, {"a", "b"}, seed=1)
    assert found["self_similarity"] == found["explained"] == 1
    assert found["intra_sentence"] == round(math.sqrt(0.5), 3)
    assert found["self_similarity_adjusted"] == pytest.approx(1 - found["anisotropy"])


def test_words_that_are_repeated_stand_in_five_sentences():
    assert contextuality.repeated([["a", "a", "b"]] * 4 + [["b"]]) == {"b"}


def test_nearest_uses_by_hand():
    """The first two are each other's nearest and agree; the third is nearest to the second, which does not."""
    vectors = np.array([[1, 0.0], [1, 0.1], [0.6, 0.5], [-1, -1]])
    np.testing.assert_array_equal(words.same_sense(vectors, ["x", "x", "y", "y"]), [1, 1, 0, 0])


def test_without_context_the_share_is_chance():
    uses = words.read()
    system = table_of({use.word: [1.0, 2.0] for use in uses} | {"<other>": [0.0, 0.0]})
    assert words.judge(system, uses)[0]["same_sense"] == judging.percent(words.chance(uses))


def test_the_twenty_words_are_as_they_are_described():
    uses = words.read()
    assert len({use.word for use in uses}) == 20
    assert len({tuple(use.sentence) for use in uses}) == len(uses)
    for use in uses:
        assert use.sentence.count(use.word) == 1
        assert sum((other.word, other.sense) == (use.word, use.sense) for other in uses) >= 4


def test_unknown_words_cost_what_their_bytes_cost():
    """With one word "ab" counts are 1 for a, b and the end: 2 of 260 each, any other byte 1 of 260."""
    bits = perplexity.speller_bits(["ab"])
    assert bits("ab") == pytest.approx(3 * math.log2(130))
    assert bits("c") == pytest.approx(math.log2(260) + math.log2(130))


def test_bits_per_character_count_spaces_and_ends_of_lines():
    found = perplexity.Perplexity(forward=4.0, backward=16.0, places=6)  # mean 8: 3 bits a place
    sentences = [["ab", "c"], ["d", "e"]]  # "ab c\n" and "d e\n"
    bits = perplexity.bits_per_character(found, sentences, spelling=9.0)
    assert bits == {"bits_per_character": 18 / 9, "bits_per_character_open": 27 / 9}


def test_a_probe_finds_what_is_linear():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(300, 3)).astype(np.float32)
    labels = np.where(vectors @ [1, 2, -1] > 0, "up", "down").tolist()
    fitted, strength = probe.chosen((vectors[:200], labels[:200]), (vectors[200:], labels[200:]))
    assert strength in probe.STRENGTHS
    assert fitted.score(vectors[200:], labels[200:]) > 0.95


def test_cosines_of_zeros_are_zero():
    assert judging.cosine(np.zeros(3), np.ones(3)) == 0


# ---------------------------------------------------------------- word senses


def test_words_of_several_parts_are_cut():
    record = {"tokens": ["``", "New_York", "grew"], "sense": [None, ["new_york%1:15:00::"], ["grow%2:30:00::"]]}
    found = wsd.from_semcor(record)
    assert found.words == ['"', "New", "York", "grew"]
    assert [(use.word, use.start, use.end) for use in found.uses] == [(("new_york", "1"), 1, 3), (("grow", "2"), 3, 4)]


def test_tokens_are_those_of_the_training_text():
    """Dashes but not minus signs, the letters of an abbreviation together, quotation marks and brackets in ASCII."""
    tokens = ["It", "-", "the", "U._S.", "won", "3", "-", "2", "\u201c", "-LRB-", "it\u2019s", "a", "b_c", "-"]
    found = wsd.from_semcor({"tokens": tokens, "sense": [None] * len(tokens)})
    assert " ".join(found.words) == "It -- the U.S. won 3 - 2 \" ( it's a b c --"


def test_satellites_are_adjectives():
    assert wsd.word_of("recent%5:00:00:past:00") == ("recent", "3")


def use_of(sense, word="bank", place=1):
    return wsd.Use((word, "1"), place, place + 1, (f"{word}%1:{sense}::",))


def test_senses_by_hand():
    """Three of money, one of river: a test word gets the nearer centroid, an unseen word no answer."""
    system = table_of({"money": [1, 0], "cash": [1, 0.2], "water": [0, 1], "wet": [0.2, 1], "x": [0, 0]})
    train = [wsd.Sentence(["x", w], [use_of(s)]) for w, s in [("money", 1), ("money", 1), ("cash", 1), ("water", 2)]]
    test = [
        wsd.Sentence(["x", "wet"], [use_of(2)]),
        wsd.Sentence(["x", "cash"], [use_of(1)]),
        wsd.Sentence(["x", "wet"], [use_of(1)]),
        wsd.Sentence(["x", "wet"], [use_of(1, word="tree")]),
    ]
    candidates = wsd.by_frequency(train)
    assert candidates == {("bank", "1"): ["bank%1:1::", "bank%1:2::"]}
    first = wsd.scores(wsd.first_senses({"ALL": test}, candidates))
    (found,) = wsd.judge(system, train, {"ALL": test}, candidates)
    # Of four, three are answered and two are right, by every rule.
    assert (found["precision"], found["recall"], found["ALL"]) == (66.67, 50.0, 57.14)
    assert (found["by distance"], found["nearest use"]) == (57.14, 57.14)
    assert first == {"ALL": 57.14, "precision": 66.67, "recall": 50.0}
    senses = wsd.learn(system, train, {("bank", "1")})
    asked = [wsd.question(use, v, senses, candidates) for use, v in wsd.uses_of(system, test)]
    assert [one.answer("centroid", 0) for one in asked] == ["bank%1:2::", "bank%1:1::", "bank%1:2::", None]


def test_the_nearest_use_may_be_of_a_sense_whose_centroid_is_farther():
    """One use of the first sense is beside what is asked for, the other far off; that of the second is between."""
    system = table_of({"money": [1, 0], "till": [0.2, 1], "water": [0.7, 1], "wet": [0.3, 1], "x": [0, 0]})
    train = [wsd.Sentence(["x", w], [use_of(s)]) for w, s in [("money", 1), ("till", 1), ("water", 2)]]
    (found,) = wsd.judge(system, train, {"ALL": [wsd.Sentence(["x", "wet"], [use_of(1)])]}, wsd.by_frequency(train))
    assert (found["ALL"], found["nearest use"]) == (0, 100)


def test_by_distance_the_length_of_a_centroid_counts():
    """The two uses of the first sense, alike in part, have a mean that is shorter, and nearer for that."""
    system = table_of({"money": [1, 1], "till": [1, -1], "water": [1.4, 0.3], "wet": [1, 0.3], "x": [0, 0]})
    train = [wsd.Sentence(["x", w], [use_of(s)]) for w, s in [("money", 1), ("till", 1), ("water", 2)]]
    (found,) = wsd.judge(system, train, {"ALL": [wsd.Sentence(["x", "wet"], [use_of(1)])]}, wsd.by_frequency(train))
    assert (found["ALL"], found["by distance"]) == (0, 100)


def test_of_equals_the_most_frequent_sense_is_the_answer():
    """Rounding does not choose: the mean of many uses of one vector is that vector."""
    system = table_of({"bank": [17.123, -3.3 / 7], "x": [0, 0]})
    train = [wsd.Sentence(["x", "bank"], [use_of(s)]) for s in (1, *[2] * 3000)]
    (found,) = wsd.judge(system, train, {"ALL": [wsd.Sentence(["x", "bank"], [use_of(2)])]}, wsd.by_frequency(train))
    assert (found["ALL"], found["by distance"], found["nearest use"]) == (100, 100, 100)


def test_words_that_semcor_lacks_get_the_first_sense_of_wordnet(tmp_path):
    lines = ["bank%1:2:: 7 1 20", "tree%1:9:: 8 2 3", "tree%1:1:: 9 1 0", "oak%1:1:: 5 1 1", "tree%2:1:: 4 1 0"]
    (tmp_path / "index.sense").write_text("\n".join(lines) + "\n")
    system = table_of({"money": [1, 0], "wet": [0.2, 1], "x": [0, 0]})
    train = [wsd.Sentence(["x", "money"], [use_of(1)])]
    asked = [wsd.Sentence(["x", "wet"], [use_of(1)]), wsd.Sentence(["x", "wet"], [use_of(1, word="tree")])]
    tests = {"ALL": asked}
    found = wsd.back_off(tmp_path / "index.sense", tests)
    assert found == {("bank", "1"): ["bank%1:2::"], ("tree", "1"): ["tree%1:1::"]}
    candidates = found | wsd.by_frequency(train)
    assert candidates["bank", "1"] == ["bank%1:1::"]  # SemCor knows better
    assert wsd.judge(system, train, tests, candidates)[0]["ALL"] == 100
    assert wsd.scores(wsd.first_senses(tests, candidates))["ALL"] == 100


def test_several_senses_are_all_right():
    use = wsd.Use(("a", "1"), 0, 1, ("a%1:1::", "a%1:2::"))
    assert wsd.precision_recall([(use, "a%1:2::"), (use, "a%1:3::")]) == (0.5, 0.5)


# ---------------------------------------------------------------- data and systems


def test_conllu_without_ranges_and_empty_nodes():
    rows = ["1-2\tdon't\t_\t_\t_", "1\tdo\tdo\tAUX\tVBP", "2\tn't\tnot\tPART\tRB", "2.1\tgo\tgo\tVERB\tVB"]
    text = "# sent_id = 1\n" + "\n".join(rows) + "\n\n\n1\tYes\tyes\tINTJ\tUH\n"
    assert list(pos.conllu(text)) == [
        pos.Tagged(["do", "n't"], ["AUX", "PART"], ["VBP", "RB"]),
        pos.Tagged(["Yes"], ["INTJ"], ["UH"]),
    ]


def test_sentences_of_sick_are_split_as_the_training_text_is():
    assert relatedness.TOKENS.findall("The man isn't near somebody's dog, it seems") == (
        "The man is n't near somebody 's dog , it seems".split()
    )


def test_pairs_of_wic():
    assert wic.pair("spring\tN\t1-2\tA spring .\tOne more spring .", "F") == wic.Pair(
        (["A", "spring", "."], ["One", "more", "spring", "."]), (1, 2), False
    )


def test_random_weights_have_the_shape_and_the_seed(tiny):
    elmo = judging.Elmo(tiny)
    first, again, other = (judging.untrained(elmo, seed=seed).network.arrays() for seed in (1, 1, 2))
    assert {name: a.shape for name, a in first.items()} == {name: a.shape for name, a in elmo.network.arrays().items()}
    np.testing.assert_array_equal(first["char_embed"], again["char_embed"])
    assert not np.array_equal(first["char_embed"], other["char_embed"])


def test_the_last_layer_of_a_system_is_the_mean(tiny):
    elmo = judging.Elmo(tiny)
    system = judging.elmo_system("ELMo", elmo)
    (stack,) = system.embed([["a", "cat"]])
    assert len(stack) == len(system.layers) == elmo.n_layers + 1
    np.testing.assert_allclose(stack[-1], next(elmo.embed([["a", "cat"]])), atol=1e-6)


def test_a_pronoun_is_weighed_from_both_sides(tmp_path):
    """The share of `she` is what the substitutes of the place say."""
    model = bias.LanguageModel(judging.Elmo(make_checkpoint(vocabulary=tuple(WORDS))))
    share = bias.share_of_she(model, "bank")
    wanted = []
    for sentence in (one.format("bank").split() for one in bias.SENTENCES):
        found = {s.word: s.probability for s in model.substitutes(sentence, sentence.index("he"), k=len(WORDS))}
        wanted.append(found["she"] / (found["she"] + found["he"]))
    assert share == pytest.approx(np.mean(wanted))


def test_a_ranking_is_scored_as_by_hand():
    gains = {5: 3, 2: 1, 9: 2}
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert search.ndcg([2, 7, 5], gains) == pytest.approx((1 / math.log2(2) + 3 / math.log2(4)) / ideal)
    assert search.ndcg([5, 9, 2, 1], gains) == pytest.approx(1)
    assert search.ndcg([1] * 10 + [5], gains) == 0  # beyond the tenth
    assert search.recall([2, 7, 5], gains) == pytest.approx(2 / 3)


def test_questions_of_cranfield_are_counted_as_the_judgements_do(tmp_path):
    given = make_told(tmp_path)
    found = judged_collections.cranfield(given)
    assert found.documents[:2] == [[["the", "old", "bank", "."]], [["a", "river", "late", "."]]]
    assert found.documents[2] == []
    assert list(found.questions) == [[["old", "bank", "."]]]
    assert found.gains == [{0: 3}]  # judged 2; what is judged -1 does not answer


def test_questions_are_misspelt_as_people_do(tmp_path):
    told = make_told(tmp_path)
    plain = judged_collections.squad(told)
    wrong = judged_collections.misspelt(told, plain)
    assert {question[0][0] for question in plain.questions} == {"which"}
    assert {question[0][0] for question in wrong.questions} <= {"witch", "wich"}
    assert wrong.documents is plain.documents
    assert all(
        plain.documents[n] == [["the", "river", q[0][1], "."]]
        for q, g in zip(plain.questions, plain.gains, strict=True)
        for n in g
    )


def make_told(folder):
    make_data(folder)
    return argparse.Namespace(data=folder, quick=False)


def test_groups_are_compared_with_marked_senses():
    marked = ["a", "a", "a", "b", "b"]
    assert senses.right(marked, np.array([0, 0, 1, 1, 1])) == 4 / 5
    apart = np.array([[1, 0.01], [1, 0], [1, 0.02], [0, 1], [0.01, 1]])
    assert senses.scores(apart, marked, seed=0)[:2] == (100, 100)
    assert senses.scores(np.ones((5, 2)), marked, seed=0) == (0, 60, 0, 60, 1)


def test_rare_senses_are_left_out():
    uses = [senses.Use(("a",), 0, sense) for sense in "aaaaabbbbbc"]
    assert {use.sense for use in senses.without_rare(uses)} == {"a", "b"}
    assert senses.without_rare(uses[:9]) == []


# ---------------------------------------------------------------- from end to end


def archive(path, files):
    """A tar.xz of texts by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))


def make_data(folder):
    """A little of everything that the judges read, in the layout of the real data."""
    tasks = folder / "tasks"
    tree = "".join(
        f"{i}\t{w}\t{w}\t{u}\t{x}\n"
        for i, (w, u, x) in enumerate(zip("the old bank".split(), "DAN", "dan", strict=True))
    )
    parts = {f"ud-english-ewt/raw/en_ewt-ud-{part}.conllu": (tree + "\n") * 5 for part in pos.PARTS}
    archive(tasks / "ud-english-ewt.tar.xz", parts)
    tokens = {"tokens": ["the", "bank"], "sense": [None, ["bank%1:1::"]]}
    semcor = "\n".join(json.dumps({**tokens, "sense": [None, [f"bank%1:{n}::"]]}) for n in (1, 2) * 5)
    archive(tasks / "wsd-semcor.tar.xz", {f"wsd-semcor/semcor-{part}.jsonl": semcor for part in ("brown12", "brownv")})
    xml = '<c><sentence><wf>a</wf><instance id="1" lemma="bank" pos="NOUN">bank</instance></sentence></c>'
    archive(
        tasks / "wsd-eval.tar.xz",
        {
            f"wsd-eval/raw/{name}/{name}.{kind}": text
            for name, (kind, text) in product(wsd.SETS, {"data.xml": xml, "gold.key.txt": "1 bank%1:1::\n"}.items())
        },
    )
    sick = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\n" + "".join(
        f"{n}\tthe old bank\ta {'old ' * n}river\t{n}\n" for n in (1, 2, 3)
    )
    archive(tasks / "sick.tar.xz", {"sick/raw/SICK_test_annotated.txt": sick})
    texts = ".I 1\n.T\na\n.W\nthe old bank .\n.I 2\n.T\nb\n.W\na river late .\n.I 3\n.W\n\n" * 40
    cranfield = {"cran.all.1400": texts, "cran.qry": ".I 001\n.W\nold bank .\n", "cranqrel": "1 1 2 \n1 2 -1\n"}
    archive(tasks / "cranfield.tar.xz", {f"cranfield/raw/{name}": text for name, text in cranfield.items()})
    asked = [{"context": f"the river {n} .", "qas": [{"question": f"which {n} ?"}]} for n in "abcdefghij" * 12]
    archive(
        tasks / "squad-v1.1-dev.tar.xz",
        {"squad-v1.1-dev/dev-v1.1.rebuilt.json": json.dumps({"data": [{"paragraphs": asked}]})},
    )
    archive(tasks / "natural-noise.tar.xz", {"natural-noise/raw/en.natural": "which witch wich\n"})
    lines, gold = "bank\tN\t1-0\tthe bank\tbank .\n" * 4, "T\nF\n" * 2
    pairs = {f"wic/raw/{p}/{p}.{k}.txt": t for p in ("dev", "test") for k, t in (("data", lines), ("gold", gold))}
    archive(tasks / "wic.tar.xz", pairs)
    for name in perplexity.TEXTS.values():
        (folder / "lm" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "lm" / name).write_bytes(lzma.compress(b"the old bank was a river .\nhe said she was late .\n" * 20))
    (folder / "lm" / "wiki2015" / "train-00.txt.xz").write_bytes(lzma.compress(b"the old bank was late .\n" * 40))


@pytest.fixture(scope="module")
def given_data(tmp_path_factory):
    """The data, and a tiny model with a head."""
    folder = tmp_path_factory.mktemp("given")
    make_data(folder / "shared" / "data")
    write_native(make_checkpoint(vocabulary=tuple(WORDS)), folder / "model")
    return folder


def run(module, monkeypatch, *arguments):
    """Run a script's `main` in this process."""
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
    module.main()


@pytest.fixture(scope="module")
def judged(given_data):
    """What all judges write with --quick."""
    out, model = (
        given_data / "out",
        ["--model", given_data / "model", "--data", given_data / "shared" / "data", "--quick"],
    )
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a correlation of so few numbers
        train = given_data / "shared" / "data" / "lm" / "wiki2015" / "train-00.txt.xz"
        run(static_vectors, patch, train, "--out", given_data / "static.kv", "--size", 8, "--epochs", 1)
        for judge in (pos, wsd, words, senses, relatedness, wic, contextuality):
            name = Path(judge.__file__).stem
            run(judge, patch, *model, "--static", given_data / "static.kv", "--out", out / f"{name}.json")
        for judge in (state, perplexity, bias, search):
            run(judge, patch, *model, "--out", out / f"{Path(judge.__file__).stem}.json")
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


@pytest.mark.parametrize("name", [name for _, name, _ in tables.TABLES])
def test_every_judge_writes_what_its_table_needs(judged, name):
    lines = {found: make for _, found, make in tables.TABLES}[name](judged[name.removeprefix("quality/")])
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) > 2, lines
    assert "benchmarks/quality/" in lines[-1]
    assert "SHA-256" in lines[-1]


def test_every_system_is_judged_on_every_layer(judged):
    wanted = {"ELMo": ["0", "1", "2", "average"], "random weights": ["0", "1", "2", "average"]}
    wanted["static vectors"] = ["static"]
    for name in ("pos", "wsd", "words", "relatedness", "wic", "contextuality"):
        systems = judged[name]["systems"]
        assert {k: [one["layer"] for one in v] for k, v in systems.items() if k != "first sense"} == wanted, name
    assert set(judged["state"]["systems"]) == {"fresh", "carry"}  # this model has no warmed state


def test_results_name_no_place_of_this_machine(judged, given_data):
    assert not any(str(given_data) in json.dumps(result) for result in judged.values())


@pytest.mark.slow
def test_run_all_runs_all(given_data):
    """Each judge in a process of its own, as the shell file starts it."""
    path = os.pathsep.join(p for p in sys.path if p and p != str(QUALITY))
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "QUICK": "1", "PYTHON": sys.executable}
    environment |= {**os.environ, **environment, "ELMOKIT_SHARED": str(given_data / "shared")}
    command = ["bash", str(QUALITY / "run-all.sh"), str(given_data / "model"), str(given_data / "all")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    written = {f"quality/{path.stem}" for path in (given_data / "all").glob("*.json")}
    assert written == {name for _, name, _ in tables.TABLES}


def test_data_that_is_missing_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"sick\.tar\.xz with --data"):
        relatedness.sick(argparse.Namespace(data=tmp_path, quick=True))
