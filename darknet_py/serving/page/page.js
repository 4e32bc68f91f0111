// The page asks for detections down to a low confidence once; the slider and the classes then filter what came.
const LOWEST = 0.05
const byId = id => document.getElementById(id)
const canvas = byId("canvas"), stage = byId("stage"), video = byId("video"), thresh = byId("thresh")
let model = { thresh: 0.25, nms: 0.45, classes: [], max_bytes: Infinity }
let image = null // what is drawn: an ImageBitmap
let answer = { path: "", width: 0, height: 0, detections: [] }
let stream = null
const unchecked = new Set()

const say = (text, bad = false) => {
  byId("status").textContent = text
  byId("status").classList.toggle("bad", bad)
}

const request = (path, options = {}) => {
  const token = sessionStorage.getItem("token")
  return fetch(path, { ...options, headers: token ? { Authorization: `Bearer ${token}` } : {} })
}

const problem = async response => {
  if (response.status === 401) {
    byId("access").hidden = false
    byId("token").focus()
  }
  const content = await response.json().catch(() => ({}))
  return typeof content.detail === "string" ? content.detail : `the server answered ${response.status}`
}

async function start() {
  const response = await request("model").catch(() => null)
  if (!response || !response.ok) return say(response ? await problem(response) : "the server does not answer", true)
  model = await response.json()
  byId("access").hidden = true
  byId("model").textContent = model.name
  document.title = `${model.name}: object detection`
  thresh.value = Math.round(100 * Math.max(model.thresh, LOWEST))
  byId("curl").textContent = `curl -F image=@photo.jpg '${location.origin}/detect?thresh=${model.thresh}'`
  show()
}

// Colors far apart for classes that follow each other.
const color = id => `hsl(${(id * 137.5) % 360} 85% ${[45, 60, 35][id % 3]}%)`
// Each box in a line of its own.
const asText = value => JSON.stringify(value, null, 1).replace(/\[\s+([-\d.e,\s]+?)\s+\]/g, (_, numbers) => `[${numbers.replace(/\s+/g, " ")}]`)
const confident = () => answer.detections.filter(found => found.confidence > thresh.value / 100)
const shown = () => confident().filter(found => !unchecked.has(found.name))

function show() {
  byId("percent").textContent = `${thresh.value} %`
  thresh.setAttribute("aria-valuetext", `${thresh.value} percent`)
  listClasses()
  const found = shown()
  byId("json").textContent = asText({ ...answer, detections: found })
  draw(found)
  return found
}

function listClasses() {
  const counts = new Map()
  for (const found of confident()) counts.set(found.name, { id: found.class_id, count: (counts.get(found.name)?.count ?? 0) + 1 })
  const focused = document.activeElement?.dataset?.name
  const rows = [...counts].sort(([a], [b]) => a.localeCompare(b)).map(([name, { id, count }]) => {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !unchecked.has(name) })
    box.dataset.name = name
    box.addEventListener("change", () => {
      if (box.checked) unchecked.delete(name)
      else unchecked.add(name)
      show()
    })
    const label = document.createElement("label"), swatch = document.createElement("span"), number = document.createElement("span")
    swatch.className = "swatch"
    swatch.style.background = color(id)
    number.className = "count"
    number.textContent = count
    label.append(box, swatch, name, number)
    const row = document.createElement("li")
    row.append(label)
    if (name === focused) queueMicrotask(() => box.focus())
    return row
  })
  byId("classes").replaceChildren(...rows)
}

function draw(found) {
  canvas.hidden = !image
  byId("hint").hidden = Boolean(image)
  stage.classList.toggle("full", Boolean(image))
  if (!image) return
  canvas.width = image.width
  canvas.height = image.height
  const context = canvas.getContext("2d")
  context.drawImage(image, 0, 0)
  const unit = Math.max(image.width, image.height) / 640
  context.lineWidth = Math.max(2, 2.5 * unit)
  context.font = `600 ${Math.max(12, 14 * unit)}px system-ui, sans-serif`
  context.textBaseline = "top"
  for (const { class_id, name, confidence, box: [x, y, w, h] } of [...found].reverse()) {
    const left = (x - w / 2) * image.width, top = (y - h / 2) * image.height
    context.strokeStyle = context.fillStyle = color(class_id)
    context.strokeRect(left, top, w * image.width, h * image.height)
    const text = `${name} ${Math.round(100 * confidence)} %`, size = Math.max(12, 14 * unit) * 1.3
    const width = context.measureText(text).width + size / 2
    const at = { x: Math.min(Math.max(left, 0), image.width - width), y: Math.max(top - size, 0) }
    context.fillStyle = "#10151d"
    context.fillRect(at.x, at.y, width, size)
    context.fillStyle = "#ffffff"
    context.fillText(text, at.x + size / 4, at.y + size / 8)
  }
  const names = found.map(each => `${each.name} ${Math.round(100 * each.confidence)} %`)
  canvas.setAttribute("aria-label", names.length ? names.join(", ") : "Nothing detected")
}

async function detect(blob, name) {
  if (blob.size > model.max_bytes) return say(`the image is larger than ${model.max_bytes} bytes`, true)
  const form = new FormData()
  form.append("image", blob, name)
  const begin = performance.now()
  const response = await request(`detect?thresh=${LOWEST}`, { method: "POST", body: form }).catch(() => null)
  if (!response) return say("the server does not answer", true)
  if (!response.ok) return say(await problem(response), true)
  answer = await response.json()
  return Math.round(performance.now() - begin)
}

async function open(file) {
  if (!file) return
  stopCamera()
  try {
    image = await createImageBitmap(file)
  } catch {
    image = null // a format that the browser cannot show; the server may still read it
  }
  answer = { path: file.name, width: 0, height: 0, detections: [] }
  unchecked.clear()
  say("Detecting …")
  show()
  const milliseconds = await detect(file, file.name || "image")
  const found = show()
  if (milliseconds !== undefined) say(`${found.length} detections in ${milliseconds} ms${image ? "" : "; the browser cannot show this format"}`)
}

async function startCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } })
  } catch (error) {
    const why = navigator.mediaDevices ? error.message : "browsers allow it on localhost and over https alone"
    return say(`no camera: ${why}`, true)
  }
  byId("camera").textContent = "Stop camera"
  byId("camera").setAttribute("aria-pressed", "true")
  unchecked.clear()
  video.srcObject = stream
  await video.play()
  const own = stream
  while (stream === own) {
    const frame = await createImageBitmap(video)
    const surface = new OffscreenCanvas(frame.width, frame.height)
    surface.getContext("2d").drawImage(frame, 0, 0)
    const milliseconds = await detect(await surface.convertToBlob({ type: "image/jpeg", quality: 0.85 }), "camera.jpg")
    if (stream !== own) return
    if (milliseconds === undefined) {
      await new Promise(resolve => setTimeout(resolve, 1000)) // the queue may be full
      continue
    }
    image = frame
    say(`${show().length} detections in ${milliseconds} ms`)
  }
}

function stopCamera() {
  if (!stream) return
  for (const track of stream.getTracks()) track.stop()
  stream = null
  byId("camera").textContent = "Start camera"
  byId("camera").setAttribute("aria-pressed", "false")
}

const hideAll = hidden => {
  for (const found of confident()) {
    if (hidden) unchecked.add(found.name)
    else unchecked.delete(found.name)
  }
  show()
}

byId("file").addEventListener("change", event => {
  open(event.target.files[0])
  event.target.value = "" // so that the same file can be opened again
})
byId("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()))
byId("all").addEventListener("click", () => hideAll(false))
byId("none").addEventListener("click", () => hideAll(true))
byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("json").textContent)
    say("Copied.")
  } catch {
    getSelection().selectAllChildren(byId("json"))
    say("Selected; copy it with the keyboard.")
  }
})
byId("access").addEventListener("submit", event => {
  event.preventDefault()
  sessionStorage.setItem("token", byId("token").value)
  say("Open, drop or paste an image.")
  start()
})
thresh.addEventListener("input", show)
addEventListener("paste", event => open(event.clipboardData.files[0]))
addEventListener("dragover", event => {
  event.preventDefault()
  stage.classList.add("over")
})
addEventListener("dragleave", () => stage.classList.remove("over"))
addEventListener("drop", event => {
  event.preventDefault()
  stage.classList.remove("over")
  open(event.dataTransfer.files[0])
})
start()
