"""The network of ELMo, whole: character CNN, bidirectional LSTM with projections and clips, mix of layers.

Peters et al. 2018, "Deep contextualized word representations", sections 3.1 to 3.4, as bilm-tf trained it and AllenNLP
runs it. `tests/reference.py` says the same in NumPy.

Axes: U distinct words of a batch, C characters of a word, E character width, N filters, B sentences, T places,
Z directions (0 forward, 1 backward), P projection, D cells, G = 4D gates in the order i, j, f, o, L layers, where
layer 0 is the word vector without context. Streams are time-major, x_TZBP, so that one step is one block of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elmokit.checkpoint import Arrays, CharCNN, Config
from elmokit.errors import MismatchError, expect, expect_count, expect_number, shown
from elmokit.kernels import (
    FilterTables,
    Weights,
    affine,
    filter_tables,
    forget_kept,
    kept,
    lstmp,
    recurring_rows,
    whole_rows,
    window_maxima,
)
from elmokit.mirror import Streams, side_by_side
from elmokit.text import Batch, Ids

# Words convolved together: few enough that their windows stay in cache, sorted so that they are of like length.
_WORDS_PER_CONVOLUTION = 256


class Affine(nn.Module):
    """x @ weight + bias, with the weight as the files keep it: (in, out)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return affine(x, self.weight, self.bias)


class Convolution(nn.Module):
    """One filter width over the characters of words, and the maximum over places."""

    def __init__(self, width: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x_UCE: Tensor) -> Tensor:
        """Return the maxima (U, n_out) over all windows of x (U, C, E)."""
        return window_maxima(x_UCE, self.weight.flatten(0, 1)) + self.bias

    def widened(self, width: int) -> Tensor:
        """Return the weight (width E, n_out) of a window of more characters, of which it reads the first."""
        return nn.functional.pad(self.weight, (0, 0, 0, 0, 0, width - len(self.weight))).flatten(0, 1)


class Highway(nn.Module):
    """y = g * relu(transform(x)) + (1 - g) * x, g = sigmoid(carry(x)): bilm-tf's names, where "carry" is the gate of
    the new value."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.carry = Affine(size, size)
        self.transform = Affine(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (U, N) to (U, N)."""
        new = torch.relu(self.transform(x))
        return torch.lerp(x.to(new.dtype), new, torch.sigmoid(self.carry(x)))


class WordEncoder(nn.Module):
    """Spelling to word vector, without context: layer 0 (paper section 3.4).

    With a table of `n_words` by `word_dim` a word's row in it stands before what its characters give.
    """

    def __init__(
        self, cnn: CharCNN, projection_dim: int, *, n_words: int = 0, word_dim: int = 0, always_project: bool = False
    ) -> None:
        super().__init__()
        E, N = cnn.embedding.dim, cnn.n_filters
        self.embedding = nn.Parameter(torch.empty(n_words, word_dim)) if word_dim else None
        self.char_embed = nn.Parameter(torch.empty(cnn.n_symbols, E))
        self.cnn = nn.ModuleList(Convolution(width, E, count) for width, count in cnn.filters)
        self.activation = torch.relu if cnn.activation == "relu" else torch.tanh
        self.highway = nn.ModuleList(Highway(N) for _ in range(cnn.n_highway))
        projects = always_project or word_dim + N != projection_dim
        self.projection = Affine(word_dim + N, projection_dim) if projects else None
        self.widest = max(width for width, _ in cnn.filters)

    def forward(self, chars_UC: Tensor) -> Tensor:
        """Return word vectors (U, P) of words spelled as ids (U, C) int64, with a table after their rows (U, 1 + C)."""
        if self.embedding is None:
            x = self._from_characters(chars_UC)
        else:
            x = torch.cat([self.embedding[chars_UC[:, 0]], self._from_characters(chars_UC[:, 1:])], dim=1)
        return self.projection(x) if self.projection else x

    def _from_characters(self, chars_UC: Tensor) -> Tensor:
        x = self.activation(self._maxima(chars_UC))
        for highway in self.highway:
            x = highway(x)
        return x

    def _maxima(self, chars_UC: Tensor) -> Tensor:
        """Return what all filters give, (U, N)."""
        places_C = torch.arange(1, chars_UC.shape[1] + 1, device=chars_UC.device)
        lengths_U = ((chars_UC != len(self.char_embed) - 1) * places_C).amax(1)  # the last symbol is the padding
        tables = self._tables(chars_UC)
        return tables.maxima(chars_UC.contiguous(), lengths_U) if tables else self._convolved(chars_UC, lengths_U)

    def _tables(self, chars_UC: Tensor) -> FilterTables | None:
        """Return what the filters make of every character, made once; None where they learn or it cannot be used."""
        filters, biases = ([getattr(one, name) for one in self.cnn] for name in ("weight", "bias"))
        weights = [self.char_embed, *filters, *biases]
        forget_kept(weights)
        learns = torch.is_grad_enabled() or any(weight.requires_grad for weight in weights)
        if learns or torch.is_autocast_enabled(chars_UC.device.type):
            return None
        if not filter_tables.can_run(chars_UC, self.char_embed, filters):
            return None
        tables = kept(weights, "filter tables", lambda: FilterTables(self.char_embed, filters, torch.cat(biases)))
        return tables if tables.finite else None

    def _convolved(self, chars_UC: Tensor, lengths_U: Tensor) -> Tensor:
        """Convolve words of like length together, over few padding characters.

        Padding is one id, so every window that lies wholly in it gives the same value: one such window is enough. A
        group is cut to its longest word plus the widest filter, which leaves every word all its windows but copies.
        """
        if len(chars_UC) <= _WORDS_PER_CONVOLUTION:
            return self._group_maxima(chars_UC, lengths_U.amax())
        order = torch.argsort(lengths_U, stable=True)
        parts = order.split(_WORDS_PER_CONVOLUTION)
        groups = [self._group_maxima(chars_UC[part], lengths_U[part[-1]]) for part in parts]
        return torch.cat(groups)[torch.argsort(order)]

    def _group_maxima(self, chars_UC: Tensor, longest: Tensor) -> Tensor:
        """Return what all filters give, (U, N).

        Where every word has padding for a whole window behind it, all filters can read windows of the widest one's
        size: it is one product then, and each meets the same values.
        """
        cut = int(longest) + self.widest
        x_UCE = nn.functional.embedding(chars_UC[:, :cut], self.char_embed)
        filters: list[Convolution] = list(self.cnn)  # type: ignore[arg-type]  # modules are untyped
        if cut > chars_UC.shape[1]:
            return torch.cat([convolution(x_UCE) for convolution in filters], dim=-1)
        weight_KN = torch.cat([convolution.widened(self.widest) for convolution in filters], dim=-1)
        return window_maxima(x_UCE, weight_KN) + torch.cat([convolution.bias for convolution in filters])


class WordTable(nn.Module):
    """Word id to word vector: models without characters, and cached word vectors."""

    def __init__(self, n_words: int, word_dim: int, *, projection_dim: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(n_words, word_dim))
        self.projection = Affine(word_dim, projection_dim) if projection_dim else None

    def forward(self, chars_UC: Tensor) -> Tensor:
        """Return word vectors (U, P) of word ids (U, 1) int64."""
        x = self.embedding[chars_UC[:, 0]]
        return self.projection(x) if self.projection else x


class Layer(nn.Module):
    """One LSTM layer with projection and clips, both directions; they never meet.

    Gates z = [x, h] @ kernel + bias; c = clip(sigmoid(f + 1) c + sigmoid(i) tanh(j)); h = clip(sigmoid(o) tanh(c) @
    projection). The clipped c and h are the state. Without a projection h is not clipped.
    """

    def __init__(self, config: Config, *, layer: int) -> None:
        super().__init__()
        lstm, P, D = config.lstm, config.lstm.projection_dim, config.lstm.dim
        self.kernel = nn.Parameter(torch.empty(2, lstm.input_dim(layer) + lstm.state_dim, 4 * D))
        self.bias = nn.Parameter(torch.empty(2, 4 * D))
        self.projection = nn.Parameter(torch.empty(2, D, P)) if config.projects_cells else None
        self.cell_clip = lstm.cell_clip or None
        self.proj_clip = (lstm.proj_clip or None) if config.projects_cells else None

    def forward(
        self, x_TZBP: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run over T steps; at step t only the first rows[t] sentences are still there (non-increasing).

        Returns outputs (T, Z, B, P), whose rows beyond rows[t] mean nothing, and the last h and c of every row.
        """
        D = self.bias.shape[1] // 4
        bias_ZG = self.bias + nn.functional.pad(self.bias.new_ones(D), (2 * D, D))
        weights = Weights(self.kernel, bias_ZG, self.projection, self.cell_clip, self.proj_clip)
        return lstmp(weights, x_TZBP, h_ZBP, c_ZBD, rows)


@dataclass(frozen=True)
class State:
    """LSTM state: h (L, Z, B, P) and c (L, Z, B, D), one row a sentence."""

    h: Tensor
    c: Tensor

    @property
    def rows(self) -> int:
        """Number of rows B."""
        return self.h.shape[2]

    def select(self, rows: Tensor) -> State:
        """Return the rows at these indices (B',) int64."""
        return State(self.h[:, :, rows], self.c[:, :, rows])

    @classmethod
    def joined(cls, states: Sequence[State]) -> State:
        """Return the rows of several states, one after the other."""
        return cls(torch.cat([state.h for state in states], dim=2), torch.cat([state.c for state in states], dim=2))

    def to(self, device: torch.device) -> State:
        """Return the same values on a device."""
        return State(self.h.to(device), self.c.to(device))

    def detach(self) -> State:
        """Return the same values, cut from the graph of gradients."""
        return State(self.h.detach(), self.c.detach())

    def repeated(self, rows: int) -> State:
        """Return the only row so many times."""
        return State(*(a.expand(-1, -1, rows, -1) for a in (self.h, self.c)))

    def grown(self, rows: int) -> State:
        """Return a state of at least `rows` rows, zeros added."""
        missing = max(0, rows - self.rows)
        return State(*(nn.functional.pad(a, (0, 0, 0, missing)) for a in (self.h, self.c)))

    def replaced(self, other: State) -> State:
        """Return this state with its first rows replaced by those of `other`; rows beyond keep what they hold."""
        pairs = ((self.h, other.h), (self.c, other.c))
        return State(*(torch.cat([new, old[:, :, other.rows :]], dim=2) for old, new in pairs))


class BiLM(nn.Module):
    """The bidirectional language model without its softmax head."""

    def __init__(self, config: Config, *, n_words: int = 0) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config, n_words)
        self.lstm = nn.ModuleList(Layer(config, layer=k) for k in range(config.lstm.n_layers))
        self.output = Affine(config.lstm.dim, config.lstm.projection_dim) if config.lstm.joined else None

    @classmethod
    def from_arrays(cls, config: Config, arrays: Arrays) -> BiLM:
        """Build the network around copies of a checkpoint's arrays (those of a head or a state are left alone)."""
        with torch.device("meta"):
            network = cls(config, n_words=len(arrays.get("embedding", ())))
        state = {name: torch.tensor(np.ascontiguousarray(arrays[_array_name(name)])) for name in network.state_dict()}
        network.load_state_dict(state, assign=True)
        return network

    def arrays(self) -> Arrays:
        """Return the weights under the names of `checkpoint`."""
        return {_array_name(name): as_array(t) for name, t in self.state_dict().items()}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._any_weight.device

    @property
    def _any_weight(self) -> Tensor:
        layer: Layer = self.lstm[0]  # type: ignore[assignment]  # modules are untyped
        return layer.bias  # `parameters` would go through all modules

    def zero_state(self, rows: int) -> State:
        """Return the state before any text."""
        lstm = self.config.lstm
        shape = (lstm.n_layers, 2, rows)
        weight = self._any_weight
        cells = torch.promote_types(weight.dtype, torch.float32)  # bfloat16 is too coarse to sum up in
        return State(weight.new_zeros(*shape, lstm.state_dim), weight.new_zeros(*shape, lstm.dim, dtype=cells))

    def run(
        self,
        x_TZBP: Tensor,
        state: State,
        *,
        rows: Sequence[int] | None = None,
        dropout: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[list[Tensor], State]:
        """Run the layers over two streams, each in its own reading order.

        x_TZBP: word vectors; rows: how many sentences are still there at each step (default: all, always); dropout:
        what the input of each layer goes through.
        Returns the outputs of layers 1..L, (T, Z, B, P) each, and the state after each row's last step. Of layers that
        are joined only the last one's output is returned, and one stream must be the other's mirror.
        """
        _check_rows(state, x_TZBP.shape[2])
        rows = [x_TZBP.shape[2]] * x_TZBP.shape[0] if rows is None else rows
        layers, h, c = [], [], []
        for k, layer in enumerate(self.lstm):
            if k and self.output:
                x_TZBP = side_by_side(x_TZBP, rows)
            x_TZBP = dropout(x_TZBP) if dropout else x_TZBP
            y_TZBP, h_ZBP, c_ZBD = layer(x_TZBP, state.h[k], state.c[k], rows)
            x_TZBP = y_TZBP + x_TZBP if k and self.config.lstm.use_skip_connections else y_TZBP
            layers.append(x_TZBP)
            h.append(h_ZBP)
            c.append(c_ZBD)
        layers = [self.output(layers[-1])] if self.output else layers
        return layers, State(torch.stack(h), torch.stack(c))

    def forward(self, batch: Batch, state: State | None = None) -> tuple[list[Tensor], State]:
        """Embed a batch; results as those of `contextualize`."""
        return self.contextualize(self.encode(batch.chars_UC), batch.words_BT, batch.lengths_B, state)

    def encode(self, chars_UC: Ids) -> Tensor:
        """Return layer 0, (U, P), of words spelled as ids."""
        rows = recurring_rows(whole_rows(len(chars_UC), self._any_weight))
        fill = np.repeat(chars_UC[:1], rows - len(chars_UC), axis=0)
        ids_UC = torch.from_numpy(np.concatenate([chars_UC, fill]).astype(np.int64)).to(self.device)
        return self.encoder(ids_UC)[: len(chars_UC)]

    def contextualize(
        self,
        words_UP: Tensor,
        words_BT: NDArray[np.int64],
        lengths_B: NDArray[np.int64],
        state: State | None = None,
    ) -> tuple[list[Tensor], State]:
        """Put word vectors into context: the layers 0..L, (M, 2P) each, and the new state, rows in the order given.

        words_BT: which row of `words_UP` stands where, <S> and </S> among them; lengths_B: places of each sentence. M
        counts the places of all sentences, one sentence after the other, without padding. The forward direction is the
        first half of a vector, the backward direction the second.
        """
        view = Streams(words_BT, lengths_B)
        order_B = torch.from_numpy(view.order_B).to(self.device)
        state = state or self.zero_state(len(lengths_B))
        _check_rows(state, len(lengths_B))
        state = state.select(order_B)
        x_TZBP = words_UP[torch.from_numpy(view.words_TZB).to(self.device)]
        layers, state = self.run(x_TZBP, state, rows=view.rows_T)
        places_MZ = torch.from_numpy(view.places_MZ).to(self.device)
        flat = [y_TZBP.reshape(-1, y_TZBP.shape[-1])[places_MZ].flatten(1) for y_TZBP in (x_TZBP, *layers)]
        return flat, state.select(torch.argsort(order_B))


def _encoder(config: Config, n_words: int) -> WordEncoder | WordTable:
    P = config.lstm.projection_dim
    if config.char_cnn is None:
        return WordTable(n_words, config.word_dim, projection_dim=P if config.projects_words else None)
    return WordEncoder(
        config.char_cnn, P, n_words=n_words, word_dim=config.word_dim, always_project=config.always_project
    )


class Mix(nn.Module):
    """The task's mix of the layers, gamma * sum_k softmax(w)_k layer_k (paper equation 1).

    `weights`: w before the softmax, zeros by default; `layer_norm` first normalises each layer over all its unmasked
    elements together, as AllenNLP's `do_layer_norm`.
    """

    def __init__(
        self, n_layers: int, weights: Sequence[float] | None = None, *, gamma: float = 1.0, layer_norm: bool = False
    ) -> None:
        super().__init__()
        expect_count(n_layers, "n_layers")
        expect_number(gamma, "gamma")
        given = [0.0] * n_layers if weights is None else _mix_weights(weights, n_layers)
        self.weights = nn.Parameter(torch.tensor(given))
        self.gamma = nn.Parameter(torch.tensor([float(gamma)]))
        self.layer_norm = layer_norm

    def forward(self, layers: Sequence[Tensor] | Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix layers of one shape (..., D); `mask` (...) bool or 0/1 says which places count for the layer norm."""
        expect((Sequence, Tensor), layers, "layers", "tensors")
        found = len(layers) if not isinstance(layers, Tensor) or layers.dim() else 0
        if found != len(self.weights):
            raise MismatchError(f"expected {len(self.weights)} layers to mix, found {found}")
        for layer in layers:
            expect(Tensor, layer, "layers", "tensors")
        shapes = {tuple(layer.shape) for layer in layers}
        if len(shapes) > 1 or (mask is not None and mask.shape != layers[0].shape[:-1]):
            seen = f"{sorted(shapes)}" + (f" with a mask of {tuple(mask.shape)}" if mask is not None else "")
            raise MismatchError(f"expected layers of one shape (..., D), and a mask (...), found {seen}")
        if self.layer_norm:
            layers = [_layer_norm(layer, mask) for layer in layers]
        weights = torch.softmax(self.weights, dim=0)
        return self.gamma * sum(w * layer for w, layer in zip(weights, layers, strict=True))


def _mix_weights(weights: Sequence[float], n_layers: int) -> list[float]:
    """Return weights, one a layer, as plain numbers. Raises `MismatchError` for what cannot weigh."""
    try:
        given = [float(weight) for weight in weights]
    except (TypeError, ValueError):
        raise MismatchError(f"mix weights: expected {n_layers} numbers, one a layer, found {shown(weights)}") from None
    if len(given) != n_layers:
        raise MismatchError(f"expected {n_layers} mix weights, one a layer, found {len(given)}")
    if any(map(math.isnan, given)) or not math.isfinite(max(given)):
        raise MismatchError(f"mix weights: expected numbers, or -inf for a layer left out, found {given}")
    return given


def _layer_norm(layer: Tensor, mask: Tensor | None) -> Tensor:
    kept = torch.ones_like(layer) if mask is None else mask.to(layer.dtype).unsqueeze(-1).expand_as(layer)
    n = kept.sum()
    mean = (layer * kept).sum() / n
    variance = (((layer - mean) * kept) ** 2).sum() / n
    return (layer - mean) / torch.sqrt(variance + 1e-12)


def as_array(tensor: Tensor) -> NDArray[np.floating]:
    """Return the values as NumPy has them, which knows no bfloat16."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def _check_rows(state: State, rows: int) -> None:
    if state.rows != rows:
        raise MismatchError(f"the state has {state.rows} rows, the batch {rows}; they must be equal")


def _array_name(parameter: str) -> str:
    return parameter.removeprefix("encoder.")
