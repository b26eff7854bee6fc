// The page of `elmo serve`. It asks the server once for all layers of all words; what is near and the map are computed
// here, so that the layer slider answers at once.
"use strict";

const NEAREST = 10;
const $ = (id) => document.getElementById(id);
const state = { models: [], words: [], layers: 0, layer: 0, chosen: 0, asked: 0 };

// ---------------------------------------------------------------- asking the server

async function ask(path, content) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  const options = content ? { method: "POST", headers, body: JSON.stringify(content) } : { headers };
  const reply = await fetch(path, options);
  if (reply.status === 401) {
    $("key-field").hidden = false;
    $("key").focus();
  }
  const found = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(found.error?.message || found.error || `the server answered ${reply.status}`);
  return found;
}

async function loadModels() {
  if (state.models.length) return;
  state.models = (await ask("/v1/models")).data;
  $("model").replaceChildren(...state.models.map((model) => new Option(model.id, model.id)));
}

const model = () => state.models.find((one) => one.id === $("model").value).elmokit;

async function show() {
  const texts = $("text").value.split("\n").filter((line) => line.trim());
  if (!texts.length) return tell("Type a sentence first.", true);
  $("go").disabled = true;
  tell("Reading…");
  try {
    await loadModels();
    const question = { model: $("model").value, texts };
    const [embedded, scored] = await Promise.all([
      ask("/embed", { ...question, layers: "all", format: "base64" }),
      model().predicts ? ask("/perplexity", question) : null,
    ]);
    state.words = wordsOf(embedded.sentences);
    if (!state.words.length) return tell("There is no word in this text.", true);
    state.layers = embedded.sentences[0].shape[0];
    drawSentences(embedded.sentences, scored);
    $("layer").max = state.layers - 1;
    $("layer").value = state.layer = state.layers - 1;
    $("results").hidden = false;
    choose(0);
    tell(`${state.words.length} words in ${embedded.sentences.length} sentences.`);
  } catch (error) {
    tell(error.message, true);
  } finally {
    $("go").disabled = false;
  }
}

function tell(text, isError = false) {
  $("status").textContent = text;
  $("status").className = isError ? "error" : "";
}

// ---------------------------------------------------------------- words and their vectors

// One entry a word: its sentence, place, and a unit vector for each layer.
function wordsOf(sentences) {
  return sentences.flatMap((sentence, s) => {
    const bytes = Uint8Array.from(atob(sentence.vectors), (c) => c.charCodeAt(0));
    const values = new Float32Array(bytes.buffer); // little-endian, as every browser is
    const [layers, places, width] = sentence.shape;
    return sentence.tokens.map((token, place) => ({
      token, place, sentence: s, tokens: sentence.tokens,
      vectors: Array.from({ length: layers }, (_, l) => unit(values.subarray((l * places + place) * width, (l * places + place + 1) * width))),
    }));
  });
}

function unit(vector) {
  const length = Math.hypot(...vector) || 1;
  return vector.map((value) => value / length);
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

function nearest(chosen, layer) {
  const { vectors } = state.words[chosen];
  return state.words
    .map((word, n) => ({ n, cosine: dot(word.vectors[layer], vectors[layer]) }))
    .filter(({ n }) => n !== chosen)
    .sort((a, b) => b.cosine - a.cosine)
    .slice(0, NEAREST);
}

// Principal components by power iteration, each found in what the one before leaves.
function plane(vectors) {
  const mean = vectors[0].map((_, i) => vectors.reduce((sum, v) => sum + v[i], 0) / vectors.length);
  let rest = vectors.map((v) => v.map((value, i) => value - mean[i]));
  return [0, 1].map(() => {
    let axis = unit(rest[0].map((_, i) => Math.sin(i + 1)));
    for (let round = 0; round < 60; round++) {
      const next = new Float32Array(axis.length);
      for (const v of rest) {
        const share = dot(v, axis);
        for (let i = 0; i < next.length; i++) next[i] += share * v[i];
      }
      axis = unit(next);
    }
    const places = rest.map((v) => dot(v, axis));
    rest = rest.map((v, n) => v.map((value, i) => value - places[n] * axis[i]));
    return places;
  });
}

// ---------------------------------------------------------------- drawing

function element(name, attributes = {}, ...children) {
  const svg = ["g", "circle", "text"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawSentences(sentences, scored) {
  let n = 0;
  const lines = sentences.map((sentence, s) => {
    const scores = scored?.sentences[s];
    const words = sentence.tokens.map((token, place) => {
      const button = element("button", { type: "button", class: "word", "aria-pressed": "false", "data-n": n++, tabindex: -1 }, token);
      if (scores) shade(button, (scores.forward[place] + scores.backward[place]) / 2);
      return button;
    });
    const line = element("li", {}, ...words);
    if (scores?.perplexity.mean) line.append(element("span", { class: "hint" }, ` perplexity ${Math.round(scores.perplexity.mean)}`));
    return line;
  });
  $("sentences").replaceChildren(...lines);
  $("legend").hidden = !scored;
}

function shade(button, bits) {
  button.classList.add(`s${[3, 6, 9, 12].filter((limit) => bits >= limit).length}`);
  button.title = `${bits.toFixed(1)} bits: perplexity ${Math.round(2 ** bits)}`;
  button.setAttribute("aria-description", button.title);
}

function choose(n, focus = false) {
  state.chosen = n;
  document.querySelectorAll(".word").forEach((button, i) => {
    button.setAttribute("aria-pressed", String(i === n));
    button.tabIndex = i === n ? 0 : -1;
    if (focus && i === n) button.focus();
  });
  drawLayer();
  drawSubstitutes();
  drawCorpus();
}

function drawLayer() {
  const name = state.layer === 0 ? "0, the spelling" : state.layer === state.layers - 1 ? `${state.layer}, the top` : `${state.layer}`;
  $("layer-name").textContent = name;
  $("layer").setAttribute("aria-valuetext", name);
  $("near").replaceChildren(...nearest(state.chosen, state.layer).map(({ n, cosine }) => use(state.words[n], cosine.toFixed(3))));
  drawMap();
}

function use({ tokens, place }, value) {
  const before = tokens.slice(0, place).join(" ");
  const after = tokens.slice(place + 1).join(" ");
  return element("li", {}, element("span", { class: "value" }, value), element("span", {}, `${before} `, element("b", {}, tokens[place]), ` ${after}`));
}

// A row of the corpus: a use of a word, or, without a place, a text.
function found(one) {
  if (one.place !== null) return use({ tokens: one.text.split(" "), place: one.place }, one.score.toFixed(3));
  return element("li", {}, element("span", { class: "value" }, one.score.toFixed(3)), element("span", {}, one.text));
}

function drawMap() {
  const [xs, ys] = plane(state.words.map((word) => word.vectors[state.layer]));
  const scaled = (values, low, high) => {
    const least = Math.min(...values);
    const range = Math.max(...values) - least || 1;
    return values.map((value) => low + ((value - least) / range) * (high - low));
  };
  const [left, top] = [scaled(xs, 30, 570), scaled(ys, 24, 380)];
  const chosen = state.words[state.chosen].token.toLowerCase();
  const many = state.words.length > 60;
  const dots = state.words.map((word, n) => {
    const same = word.token.toLowerCase() === chosen;
    const kind = n === state.chosen ? "same chosen" : same ? "same" : "";
    const dot = element("g", { class: kind, "data-n": n }, element("circle", { cx: left[n], cy: top[n], r: same ? 6 : 4 }));
    if (same || !many) dot.append(element("text", { x: left[n] + 8, y: top[n] + 4 }, same ? `${word.token} (${word.sentence + 1})` : word.token));
    return dot;
  });
  $("map").replaceChildren(...dots.filter((dot) => !dot.classList.contains("same")), ...dots.filter((dot) => dot.classList.contains("same")));
}

// What else could stand in the place, and uses in the corpus. An answer that comes after a later choice is dropped.
async function draw(section, list, wanted, path, content, rows) {
  $(section).hidden = !wanted;
  $(list).replaceChildren(); // what is there is of another word
  if (!wanted) return;
  const number = (draw.numbers[list] = (draw.numbers[list] || 0) + 1);
  try {
    const found = await ask(path, content);
    if (number === draw.numbers[list]) $(list).replaceChildren(...rows(found));
  } catch (error) {
    if (number === draw.numbers[list]) $(list).replaceChildren(element("li", {}, error.message));
  }
}
draw.numbers = {};

function drawSubstitutes() {
  const { tokens, place } = state.words[state.chosen];
  const content = { model: $("model").value, sentence: tokens, place, k: NEAREST };
  const rows = (found) => found.substitutes.map((one) => {
    const percent = `${(100 * one.probability).toPrecision(2)} %`;
    return element("li", {}, element("span", { class: "value" }, percent), element("span", {}, one.word));
  });
  draw("substitutes-section", "substitutes", model().predicts, "/substitutes", content, rows);
}

function drawCorpus() {
  const { tokens, place } = state.words[state.chosen];
  const content = { model: $("model").value, sentence: tokens, k: NEAREST };
  if (model().searches === "word") content.place = place;
  draw("corpus-section", "corpus", model().searches, "/search", content, (reply) => reply.found.map(found));
}

// ---------------------------------------------------------------- what people do

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
$("layer").addEventListener("input", () => {
  state.layer = Number($("layer").value);
  drawLayer();
});
$("sentences").addEventListener("click", ({ target }) => target.dataset.n && choose(Number(target.dataset.n)));
$("map").addEventListener("click", ({ target }) => target.parentNode.dataset.n && choose(Number(target.parentNode.dataset.n)));
$("sentences").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  choose((state.chosen + step + state.words.length) % state.words.length, true);
});
loadModels().catch((error) => tell(error.message, true));
