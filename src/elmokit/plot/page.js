// Without a graphics card, WebGL is imitated by the processor and many times slower than plain drawing, of which Bokeh
// leaves most points out while the map moves. A browser that would imitate it is made to have none.
function hasGraphicsCard() {
  const gl = document.createElement("canvas").getContext("webgl", { failIfMajorPerformanceCaveat: true })
  const named = gl?.getExtension("WEBGL_debug_renderer_info")?.UNMASKED_RENDERER_WEBGL ?? gl?.RENDERER
  return gl !== null && !/SwiftShader|llvmpipe|softpipe|software|Basic Render/i.test(gl.getParameter(named))
}
if (!hasGraphicsCard()) {
  const getContext = HTMLCanvasElement.prototype.getContext
  HTMLCanvasElement.prototype.getContext = function (kind, ...options) {
    return kind.startsWith("webgl") ? null : getContext.call(this, kind, ...options)
  }
}

// What the page of a map does. Bokeh calls these functions; its models are found by their names.
const elmokit = (() => {
  const SHOWN = 200 // sentences in the panel; all are copied
  const WHOLE = -1 // the place of a point that is a whole sentence

  const model = (name) => Bokeh.documents[0].get_model_by_name(name)
  const points = () => model("points").data
  const view = () => model("layer")?.active ?? 0
  const escaped = (text) => text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`)
  const text = (point) => model("texts").data.text[points().sentence[point]]

  // The sentence of a point as three strings: before its word, the word, after it.
  function cut(point) {
    const place = points().place[point]
    if (place === WHOLE) return ["", text(point), ""]
    const words = text(point).split(" ")
    const before = words.slice(0, place).join(" ")
    const after = words.slice(place + 1).join(" ")
    return [before && before + " ", words[place], after && " " + after]
  }

  function part(point, name) {
    if (name === "group") return model("groups").data.name[points().group[point]]
    return cut(point)[["before", "word", "after"].indexOf(name)]
  }

  function marked(point) {
    const [before, word, after] = cut(point).map(escaped)
    return points().place[point] === WHOLE ? word : `${before}<mark>${word}</mark>${after}`
  }

  // The neighbours of a point in the view that is shown, as [point, cosine].
  function neighbours(point) {
    const near = points()["near" + view()], like = points()["like" + view()]
    const k = near.length / points().x.length
    return Array.from({ length: k }, (_, i) => [near[point * k + i], like[point * k + i] / 100])
  }

  function ring(point, near) {
    const { x, y } = points()
    const all = point === null ? [] : [point, ...near]
    const by = (first, others) => all.map((_, i) => (i ? others : first))
    model("rings").data = { x: all.map((i) => x[i]), y: all.map((i) => y[i]), radius: by(11, 8), width: by(3, 2) }
    select(all)
  }

  let clicked = null

  // Show a point and its neighbours, or, with null, none.
  function show(point) {
    clicked = point
    const near = point === null ? [] : neighbours(point)
    ring(point, near.map(([other]) => other))
    if (point === null) return
    const items = near.map(([other, cosine]) =>
      `<li><a href="#point-${other}">${cosine.toFixed(2)}</a> ${marked(other)} <small>${escaped(part(other, "group"))}</small></li>`)
    model("panel").text = `<p>${marked(point)}<br><small>${escaped(part(point, "group"))}</small></p>
      <p>Nearest uses, with their cosine:</p><ol>${items.join("")}</ol>`
  }

  function selected(geometry) {
    const indices = model("points").selected.indices
    if (geometry === "point") show(indices[0] ?? null)
    else lassoed(indices)
  }

  // Names of points in the panel are links, so that they can be followed and kept.
  function followed() {
    const point = /^#point-(\d+)$/.exec(location.hash)
    if (point && Number(point[1]) < points().x.length) show(Number(point[1]))
  }
  window.addEventListener("hashchange", followed)

  function found(text) {
    model("found").text = escaped(text)
  }

  function select(indices) {
    model("points").selected.indices = indices
  }

  function searched() {
    const wanted = model("search").value_input.trim().toLowerCase()
    if (!wanted) {
      select([])
      return found("")
    }
    const { sentence, place } = points()
    const hits = []
    const inWords = model("where").value === "in words"
    const texts = model("texts").data.text
    const holds = inWords ? null : texts.map((one) => one.toLowerCase().includes(wanted))
    for (let i = 0; i < sentence.length; i++) {
      if (inWords ? cut(i)[1].toLowerCase().includes(wanted) : holds[sentence[i]]) hits.push(i)
    }
    // With nothing selected Bokeh would show all points as if all were found.
    select(hits.length ? hits : [-1])
    found(`${hits.length.toLocaleString("en")} found`)
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text)
      return true
    } catch {
      const area = document.body.appendChild(document.createElement("textarea"))
      area.value = text
      area.select()
      const done = document.execCommand("copy")
      area.remove()
      return done
    }
  }

  async function lassoed(chosen) {
    const { sentence } = points()
    const numbers = [...new Set(chosen.map((i) => sentence[i]))].sort((a, b) => a - b)
    const texts = model("texts").data.text
    const lines = numbers.map((number) => texts[number])
    if (!lines.length) return
    const done = await copy(lines.join("\n") + "\n")
    const more = lines.length > SHOWN ? `<p>and ${lines.length - SHOWN} more</p>` : ""
    model("panel").text = `<p>${chosen.length} points in ${lines.length} sentences, ${done ? "copied" : "not copied: the browser refused"}:</p>
      <ul>${lines.slice(0, SHOWN).map((line) => `<li>${escaped(line)}</li>`).join("")}</ul>${more}`
  }

  function switched() {
    const data = points()
    data.x = data["x" + view()]
    data.y = data["y" + view()]
    model("points").change.emit()
    model("chart").reset.emit()
    if (clicked !== null) show(clicked)
  }

  const hiddenGroups = new Set()

  // Which points have a shape and are not hidden, for Bokeh's filter of what draws that shape.
  function shown(shape) {
    const groups = model("groups").data.shape.map((one, group) => one === shape && !hiddenGroups.has(group))
    return Array.from(points().group, (group) => groups[group])
  }

  // Hide the group of an item of the legend, or show it again.
  function hidden(item) {
    const group = item.index
    const name = model("groups").data.label[group]
    if (!hiddenGroups.delete(group)) hiddenGroups.add(group)
    item.label = { value: hiddenGroups.has(group) ? `${name} (hidden)` : name }
    for (const renderer of model("chart").renderers) renderer.view.filter.change.emit()
  }

  return { part, shown, hidden, selected, searched, switched }
})()
