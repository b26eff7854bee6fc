"""Questions answered by a piece of a passage: SQuAD v1.1 with a small form of the paper's network (BiDAF).

    python recipes/question_answering.py --work work/
    python recipes/question_answering.py --work work/ --data squad/

A folder with train-v1.1.json and dev-v1.1.json is used as the paper does. With the dev part alone, its 48 articles are
split: 32 to learn from, every second question of each, 8 for development, 8 to test. Passage and question are read by a
biLSTM, each looks for its like in the other (Seo et al. 2017), a second biLSTM reads what was found, and two linear
layers point at start and end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from command import arguments, run, told_plainly
from data import find
from entailment import attend
from measures import answer_f1
from torch import Tensor, nn
from trainer import SYSTEMS, Encoder, Example, Input, Parts, Recipe, mask_of

TOKEN = re.compile(r"\w+|[^\w\s]")
LONGEST = 15  # words of an answer


@dataclass(frozen=True)
class Answer:
    """What is right of a question: texts; for training the place of the first, from word to word; the passage."""

    texts: tuple[str, ...]
    start: int
    end: int
    passage: str
    spans: tuple[tuple[int, int], ...]


class Pointer(nn.Module):
    """Scores of each word of a passage as the start and the end of the answer."""

    def __init__(self, text: Input, parts: Parts, hidden: int = 64) -> None:  # noqa: ARG002 (there are no labels)
        super().__init__()
        self.text = text
        self.first = Encoder(text.size, hidden)
        self.like = nn.ModuleList([nn.Linear(self.first.size, 1, bias=False) for _ in range(2)])
        self.scale = nn.Parameter(torch.full((self.first.size,), self.first.size**-0.5))
        self.compare = nn.Linear(4 * self.first.size, 2 * hidden)
        self.second = Encoder(2 * hidden, hidden)
        self.output = nn.Linear(self.second.size + text.extra, 2)

    def forward(self, batch: Sequence[Example]) -> Tensor:
        """Return scores of starts and ends (2, B, T)."""
        passages, questions = ([one.sentences[side] for one in batch] for side in (0, 1))
        p_BTD, q_BSD = (self.first(self.text(side), side) for side in (passages, questions))
        mask_BT, mask_BS = mask_of(passages), mask_of(questions)
        product = (p_BTD * self.scale) @ q_BSD.transpose(1, 2)
        like_BTS = self.like[0](p_BTD) + self.like[1](q_BSD).transpose(1, 2) + product
        asked_BTD = attend(like_BTS, q_BSD, mask_BS)
        best_B1T = like_BTS.masked_fill(~mask_BS[:, None, :], -1e4).amax(2)[:, None, :]
        whole_B1D = attend(best_B1T, p_BTD, mask_BT)
        found = torch.cat([p_BTD, asked_BTD, p_BTD * asked_BTD, p_BTD * whole_B1D], dim=-1)
        h_BTD = self.second(self.text.dropout(torch.relu(self.compare(found))), passages)
        scores_BT2 = self.output(self.text.beside(h_BTD, passages))
        return scores_BT2.masked_fill(~mask_BT[:, :, None], -1e4).permute(2, 0, 1)

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return the cross entropy of the right start and of the right end."""
        right = torch.tensor([[one.right.start for one in batch], [one.right.end for one in batch]])
        return sum(nn.functional.cross_entropy(scores, at) for scores, at in zip(self(batch), right, strict=True))

    def predict(self, batch: Sequence[Example]) -> list[str]:
        """Return the piece of each passage whose start and end have the greatest sum."""
        start_BT, end_BT = self(batch)
        pairs_BTT = start_BT[:, :, None] + end_BT[:, None, :]
        allowed_TT = torch.ones(pairs_BTT.shape[1:]).triu().tril(LONGEST - 1).bool()
        best = pairs_BTT.masked_fill(~allowed_TT, -1e5).flatten(1).argmax(1).tolist()
        return [_piece(one.right, *divmod(n, pairs_BTT.shape[2])) for n, one in zip(best, batch, strict=True)]


def _piece(answer: Answer, start: int, end: int) -> str:
    return answer.passage[answer.spans[start][0] : answer.spans[end][1]]


def read(folder: Path) -> Parts:
    """Read the train and dev parts, or split the dev part by article."""
    test = _articles(find(folder, "dev-v1.1.json", "dev-v1.1.rebuilt.json"))
    if train := sorted(folder.rglob("train-v1.1.json")):
        articles = _articles(train[0])
        parts = ([a for n, a in enumerate(articles) if n % 20], articles[::20], test)
    else:
        parts = ([a[::2] for n, a in enumerate(test) if n % 6 > 1], test[1::6], test[::6])
    return Parts(*([one for article in part for one in article] for part in parts))


def _articles(path: Path) -> list[list[Example]]:
    found = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [[one for passage in article["paragraphs"] for one in _questions(passage)] for article in found]


def _questions(passage: dict[str, Any]) -> list[Example]:
    text = passage["context"]
    words = tuple((match[0], match.span()) for match in TOKEN.finditer(text))
    spans = tuple(span for _, span in words)
    return [
        Example(
            (tuple(word for word, _ in words), tuple(TOKEN.findall(asked["question"]))),
            Answer(
                tuple(answer["text"] for answer in asked["answers"]), *_place(asked["answers"][0], spans), text, spans
            ),
        )
        for asked in passage["qas"]
    ]


def _place(answer: dict[str, Any], spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the first and the last word that an answer touches."""
    begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    touched = [n for n, span in enumerate(spans) if span[0] < end and span[1] > begin]
    return touched[0], touched[-1]


def f1(right: Sequence[Answer], found: Sequence[str]) -> float:
    """Return the mean F1 of the answers' words."""
    return answer_f1([answer.texts for answer in right], found)


ANSWERS = Recipe(
    "question-answering",
    "F1 of answers",
    "squad-v1.1-dev.tar.xz",
    read,
    Pointer,
    f1,
    SYSTEMS,
    epochs=6,
    patience=2,
    batch_size=16,
    rate=1e-3,
)

if __name__ == "__main__":
    with told_plainly():
        run(ANSWERS, arguments(__doc__).parse_args())
