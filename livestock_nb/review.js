// The reviewer's page. The picture fills an SVG whose viewBox is the image's own frame, so every coordinate here is a pixel of the image,
// however much the picture was shrunk. Python decides what is shown (`view`) and saves what is answered. Names are only ever set as text.
const SVG = 'http://www.w3.org/2000/svg'
const BUTTONS = [['keep', 'k'], ['drop', 'd'], ['draw', 'n'], ['skip', 's'], ['undo', 'u'], ['zoom', 'z']]
const KEYS = { Enter: 'keep', Delete: 'drop', Backspace: 'drop', ' ': 'skip', ...Object.fromEntries(BUTTONS.map(([name, key]) => [key, name])) }
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }
const LEAST = 3  // px of the image: a smaller box is a slip of the hand

function node(parent, tag, cls = '', text = '') {
  const made = parent.appendChild(document.createElement(tag))
  made.className = cls
  made.textContent = text
  return made
}

function rect(parent, cls, [x1, y1, x2, y2], box = '') {
  const made = parent.appendChild(document.createElementNS(SVG, 'rect'))
  for (const [k, v] of Object.entries({ class: cls, x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1) })) made.setAttribute(k, v)
  made.dataset.box = box
  return made
}

function render({ model, el }) {
  let view = model.get('view'), chosen = view.target, drawing = false, zoom = false, edit = null, drag = null, waiting = 0, url = ''

  const root = node(el, 'div', 'nb-review')
  root.tabIndex = 0
  root.dataset.lmSuppressShortcuts = 'true'  // JupyterLab leaves keys alone
  const head = node(root, 'div', 'head'), bar = node(head, 'progress'), done = node(head, 'span', 'done')
  const what = node(head, 'span', 'what'), name = node(head, 'span', 'name'), score = node(root, 'div', 'score')
  const svg = root.appendChild(document.createElementNS(SVG, 'svg'))
  const picture = svg.appendChild(document.createElementNS(SVG, 'image')), layer = svg.appendChild(document.createElementNS(SVG, 'g'))
  picture.setAttribute('preserveAspectRatio', 'none')
  const row = node(root, 'div', 'buttons'), buttons = {}
  for (const [action, key] of BUTTONS) {
    buttons[action] = node(row, 'button', action, action)
    node(buttons[action], 'span', 'key', key)
    buttons[action].onclick = () => { act(action); root.focus() }
  }
  const labels = view.labels.map((label, i) => {
    const button = node(row, 'button', 'label', label)
    node(button, 'span', 'key', i + 1)
    button.onclick = () => { relabel(i); root.focus() }
    return button
  })
  const legend = node(root, 'div', 'legend'), said = node(root, 'div', 'said')
  for (const [cls, text] of [['gold', 'gold'], ['silver', 'silver'], ['human', 'by a person'], ['suggested', 'suggested'], ['dropped', 'dropped']])
    node(legend, 'span', cls, text)

  const current = () => view.boxes.find(b => b.box === chosen)
  const corners = () => edit ?? current()?.corners
  const clamp = ([x1, y1, x2, y2]) => [Math.max(0, Math.min(x1, x2)), Math.max(0, Math.min(y1, y2)),
    Math.min(view.width, Math.max(x1, x2)), Math.min(view.height, Math.max(y1, y2))]
  const large = ([x1, y1, x2, y2]) => x2 - x1 >= LEAST && y2 - y1 >= LEAST

  function frame() {  // the part of the image that is shown
    const c = view.boxes.find(b => b.box === view.target)?.corners
    if (!zoom || !c) return [0, 0, view.width, view.height]
    const width = Math.min(view.width, Math.max(2 * (c[2] - c[0]), 2 * (c[3] - c[1]) * view.width / view.height)), height = width * view.height / view.width
    const inside = (middle, size, all) => Math.max(0, Math.min(all - size, middle - size / 2))
    return [inside((c[0] + c[2]) / 2, width, view.width), inside((c[1] + c[3]) / 2, height, view.height), width, height]
  }

  function draw() {
    svg.setAttribute('viewBox', frame().join(' '))
    svg.classList.toggle('drawing', drawing)
    buttons.draw.classList.toggle('on', drawing)
    buttons.zoom.classList.toggle('on', zoom)
    labels.forEach((b, i) => b.classList.toggle('on', view.labels[i] === current()?.label))
    layer.replaceChildren()
    const area = b => (b.corners[2] - b.corners[0]) * (b.corners[3] - b.corners[1])
    const order = [...view.boxes].sort((a, b) => (a.box === chosen) - (b.box === chosen) || area(b) - area(a))  // the chosen one on top, then small ones
    for (const b of order) {
      const at = b.box === chosen && !drawing ? corners() : b.corners
      rect(layer, 'edge', at)
      rect(layer, `${b.state}${b.box === chosen ? ' chosen' : ''}`, at, b.box)
    }
    if (drawing && edit) rect(layer, 'human chosen', clamp(edit))
    const c = !drawing && corners(), size = 9 * frame()[2] / (svg.clientWidth || view.width)
    if (c) for (const [x, y] of [[0, 1], [2, 1], [0, 3], [2, 3]])
      rect(layer, 'handle', [c[x] - size / 2, c[y] - size / 2, c[x] + size / 2, c[y] + size / 2]).dataset.corner = `${x}${y}`
  }

  function send(action, more = {}) {
    if (waiting) return
    root.classList.add('waiting')
    waiting = setTimeout(() => { rest(); said.textContent = 'No answer from the kernel: run the cell again. What was saved is kept.' }, 5000)
    model.send({ action, turn: view.turn, box: chosen, ...more })
  }

  function rest() {
    clearTimeout(waiting)
    waiting = 0
    root.classList.remove('waiting')
  }

  function act(action) {
    if (edit && !drag) return save()  // an arrow key is still down
    if (action === 'zoom') zoom = !zoom
    else if (action === 'draw') { drawing = !drawing; edit = null }
    else if (!view.finished || action === 'undo') return send(action)
    draw()
  }

  function relabel(i) {
    if (current() && view.labels[i]) send('move', { label: view.labels[i], corners: clamp(corners()) })
  }

  function point(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse())
    return [at.x, at.y]
  }

  svg.onpointerdown = event => {
    root.focus()
    if (waiting || event.button) return
    const [x, y] = point(event), { box, corner } = event.target.dataset
    if (drawing) drag = { x, y, from: [x, y, x, y], corner: '23' }
    else if (corner) drag = { x, y, from: corners(), corner }
    else if (box && box === chosen) drag = { x, y, from: corners(), corner: '' }
    else if (box) { chosen = box; edit = null; draw() }
    if (drag) { svg.setPointerCapture(event.pointerId); event.preventDefault() }
  }
  svg.onpointermove = event => {
    if (!drag) return
    const [x, y] = point(event), by = [x - drag.x, y - drag.y, x - drag.x, y - drag.y]
    edit = drag.from.map((v, i) => !drag.corner || drag.corner.includes(i) ? v + by[i] : v)
    draw()
  }
  svg.onpointerup = () => {
    if (drag && edit) save()
    drag = null
    draw()
  }
  svg.onpointercancel = () => { drag = edit = null; draw() }

  function save() {  // a drawn or moved box; a click without a drag is none
    const at = clamp(edit), action = drawing ? 'draw' : 'move', label = drawing ? view.label : current().label
    edit = null
    if (large(at)) send(action, { label, corners: at })
    else said.textContent = `A box has at least ${LEAST} pixels on each side: draw it again.`
  }

  root.onkeydown = event => {
    if (event.altKey || event.metaKey || (event.ctrlKey && event.key !== 'z')) return
    const action = event.ctrlKey ? 'undo' : KEYS[event.key], arrow = ARROWS[event.key], digit = Number(event.key)
    if (event.target.tagName === 'BUTTON' && ['Enter', ' '].includes(event.key)) return  // the button's own
    if (arrow && corners() && !waiting && !drawing) {
      const step = event.shiftKey ? 10 : 1
      edit = clamp(corners().map((v, i) => v + step * arrow[i % 2]))
      draw()
    } else if (event.key === 'Escape') { drag = edit = null; drawing = false; draw() }
    else if (action && !event.repeat) act(action)
    else if (digit >= 1 && digit <= view.labels.length && !event.repeat) relabel(digit - 1)
    else if (!action && !arrow) return
    event.preventDefault()
    event.stopPropagation()
  }
  root.onkeyup = event => { if (ARROWS[event.key] && edit && !drag) save() }

  function show() {
    rest()
    view = model.get('view')
    chosen = view.chosen
    drawing = false
    edit = drag = null
    bar.max = view.total || 1
    bar.value = view.answered
    done.textContent = `${view.answered} of ${view.total} answered` + (view.skipped ? `, ${view.skipped} skipped` : '')
    what.textContent = view.what
    name.textContent = view.image
    score.textContent = view.score
    said.textContent = view.said
    picture.setAttribute('width', view.width)
    picture.setAttribute('height', view.height)
    draw()
  }

  function load() {
    URL.revokeObjectURL(url)
    url = URL.createObjectURL(new Blob([model.get('picture')], { type: 'image/jpeg' }))
    picture.setAttribute('href', url)
  }

  model.on('change:view', show)
  model.on('change:picture', load)
  load()
  show()
  return () => { model.off('change:view', show); model.off('change:picture', load); clearTimeout(waiting); URL.revokeObjectURL(url) }
}

export default { render }
