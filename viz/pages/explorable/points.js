// The page of points: 2,000 of them walk back, one can be dragged, and beside them stands the exact answer.

const COUNT = 2000, REACH = 3.2; // points, and how far the panels reach, in standard deviations of the data
const ARROWS = 15; // along each side
const EXACT_PATH = { sampler: "adams", sampling_steps: Math.min(50, scheduler.num_timesteps) }; // nearly the exact flow
const FINEST = 112; // pixels of the density along each side, fewer where it has many centres

const points = {
  seed: 1,
  labels: null,
  drag: Float32Array.from([1.7, 1.9]),
  paths: {}, // of the dragged point, by the network and by the exact denoiser
  field: null,
  asked: null, // the field that was asked for last, and whether it is still on its way
  waiting: false,
  shade: null,
};

function begin() {
  fill_controls();
  DATA.classes.forEach((name, k) => element("label").append(new Option(name, k)));
  if (DATA.classes.length <= DATA.colours.classes.length) DATA.classes.forEach(add_key);
  element("exact").hidden = !parts.length;
  element("no_exact").hidden = parts.length > 0;
  element("panels").classList.toggle("single", !parts.length);
  for (const id of ["network_canvas", "exact_canvas"]) draggable(element(id));
  element("arrows").addEventListener("input", () => (stage.dirty = true));
  begin_stage({ draw: draw_points, restart, on_state: () => {}, on_field: take_field, lasts: 8 });
  restart(false);
}

/** The colour of a label, beside the other signs. */
function add_key(name, k) {
  const sign = Object.assign(document.createElement("span"), { className: "key of_label" });
  sign.style.background = DATA.colours.classes[k];
  element("key").append("\u2002 ", sign, ` label ${name}`);
}

/** Another walk; from new noise if wanted. */
function restart(new_noise) {
  if (new_noise) points.seed++;
  const { label } = settings(), all = DATA.classes.length;
  points.labels = all ? Array.from({ length: COUNT }, (_, i) => label ?? i % all) : null;
  start_walk({ x_T: noise_like(new Float32Array(2 * COUNT), normals(points.seed)), label: points.labels, seed: points.seed });
  retrace();
}

/** The path of the dragged point, by the network and by the exact denoiser. */
function retrace() {
  const { label, guidance, sampler, sampling_steps } = settings(), best = best_denoiser(guidance);
  const trace = (denoise, steps) => {
    const walk = new Walk(), options = { ...steps, label: label === null ? null : [label], random: normals(points.seed) };
    for (const state of sample(denoise, scheduler, points.drag, options)) walk.add(state);
    return walk;
  };
  const chosen = { sampler, sampling_steps };
  points.paths = { network: trace(network_denoiser(guidance), chosen), exact: best && trace(best, EXACT_PATH) };
  stage.dirty = true;
}

// ---------------------------------------------------------------- dragging

function draggable(canvas) {
  const move = (event) => {
    const { left, top, width } = canvas.getBoundingClientRect(), scale = (2 * REACH) / width;
    place((event.clientX - left) * scale - REACH, REACH - (event.clientY - top) * scale);
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    move(event);
  };
  canvas.onpointermove = (event) => canvas.hasPointerCapture(event.pointerId) && move(event);
  canvas.onkeydown = (event) => {
    const step = event.shiftKey ? 0.5 : 0.1;
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [0, 0];
    if (event.key === " ") play(!stage.playing);
    else if (dx || dy) place(points.drag[0] + step * dx, points.drag[1] + step * dy);
    else return;
    event.preventDefault();
  };
}

function place(x, y) {
  const inside = (value) => Math.min(Math.max(value, -REACH), REACH);
  points.drag = Float32Array.from([inside(x), inside(y)]);
  retrace();
}

// ---------------------------------------------------------------- fields

/** `side` x `side` places over a panel, rows from the top. */
function grid(side) {
  const at = (i) => ((i + 0.5) / side) * 2 * REACH - REACH;
  return Float32Array.from({ length: 2 * side * side }, (_, i) => {
    const cell = i >> 1;
    return i & 1 ? -at(Math.floor(cell / side)) : at(cell % side);
  });
}

function pixels_a_side() {
  const centres = parts.reduce((sum, part) => sum + part.weights.length, 1);
  return Math.max(40, Math.min(FINEST, Math.floor(Math.sqrt(6e6 / centres))));
}

/** Ask for the field of this moment, once the one before has come. */
function want_field() {
  const { label, guidance } = settings(), t = t_at(stage.position), wanted = `${t} ${label} ${guidance}`;
  if (points.waiting || points.asked === wanted) return;
  points.waiting = true;
  points.asked = wanted;
  const request = { what: "field", t, label, guidance, points: grid(ARROWS), pixels: grid(pixels_a_side()) };
  stage.worker.postMessage(request);
}

function take_field(field) {
  points.waiting = false;
  points.field = field;
  if (!field.log_density) return;
  const side = pixels_a_side(), most = field.log_density.reduce((a, b) => Math.max(a, b));
  points.shade = Float32Array.from(field.log_density, (log_p) => Math.exp(0.5 * (log_p - most)));
  points.shade_side = side;
  points.shade_t = field.t;
}

// ---------------------------------------------------------------- pictures

function draw_points() {
  if (!stage.walk?.states.length) return;
  want_field();
  const { network, exact } = points.paths;
  draw_panel(element("network_canvas"), draw_samples, points.field?.network, "network", network);
  if (exact) draw_panel(element("exact_canvas"), draw_density, points.field?.exact, "exact", exact);
  draw_readout();
}

function draw_panel(canvas, draw_ground, eps, name, path) {
  const [context, side] = ready(canvas), to = (x, y) => [((x + REACH) / 2 / REACH) * side, ((REACH - y) / 2 / REACH) * side];
  draw_ground(context, side, to);
  if (element("arrows").checked && eps) draw_arrows(context, to, eps, themed(name));
  draw_path(context, to, path);
  draw_axis_names(context, side);
}

/** The names of a table's columns: the first along the lower edge, the second along the left one. */
function draw_axis_names(context, side) {
  context.font = "13px system-ui, sans-serif";
  context.textAlign = "right";
  DATA.axes.forEach((name, i) => {
    const text = `${shortened(name, 36)} \u2192`, width = context.measureText(text).width, line = i ? 18 : side - 8;
    context.save();
    if (i) context.transform(0, -1, 1, 0, 0, side); // upwards, from the lower left corner
    context.fillStyle = themed("paper"); // behind the name, which arrows would cross
    context.fillRect(side - 12 - width, line - 13, width + 8, 18);
    context.fillStyle = themed("faint");
    context.fillText(text, side - 8, line);
    context.restore();
  });
}

const shortened = (text, letters) => (text.length <= letters ? text : `${text.slice(0, letters - 1)}…`);

function draw_samples(context, side, to) {
  if (computing()) return say_computing(context, side);
  const x = stage.walk.x_t(stage.position), colour = noise_colour(noise_at(stage.position)), dot = side > 400 ? 2.6 : 2;
  context.globalAlpha = 0.8;
  for (let i = 0; i < COUNT; i++) {
    const [left, top] = to(x[2 * i], x[2 * i + 1]), label = points.labels?.[i];
    context.fillStyle = label === undefined ? colour : DATA.colours.classes[label % DATA.colours.classes.length];
    context.fillRect(left - dot / 2, top - dot / 2, dot, dot);
  }
  context.globalAlpha = 1;
}

function say_computing(context, side) {
  context.fillStyle = themed("faint");
  context.font = "16px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText("computing …", side / 2, side - 14);
}

function draw_density(context, side) {
  const late = points.shade_t !== t_at(stage.position) && !stage.playing; // while it plays, by a moment only
  if (!points.shade || late) return say_computing(context, side);
  const n = points.shade_side, image = new ImageData(n, n), small = new OffscreenCanvas(n, n);
  const ink = themed("density").split(" ").map(Number);
  points.shade.forEach((p, i) => image.data.set([...ink, 235 * p], 4 * i));
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, side, side);
}

/** The score times sigma, which is -eps; beyond a length of 1 arrows hardly grow. */
function draw_arrows(context, to, eps, colour) {
  const origins = grid(ARROWS), longest = (0.9 * 2 * REACH) / ARROWS;
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 1;
  for (let i = 0; i < origins.length; i += 2) {
    const size = Math.hypot(eps[i], eps[i + 1]), scale = (-longest * Math.tanh(size)) / (size || 1);
    const [x, y] = to(origins[i], origins[i + 1]), [x1, y1] = to(origins[i] + scale * eps[i], origins[i + 1] + scale * eps[i + 1]);
    const turn = Math.atan2(y1 - y, x1 - x), head = Math.min(5, Math.hypot(x1 - x, y1 - y) / 2);
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x1, y1);
    context.stroke();
    context.beginPath();
    context.moveTo(x1, y1);
    for (const side of [-0.45, 0.45]) context.lineTo(x1 - head * Math.cos(turn + side), y1 - head * Math.sin(turn + side));
    context.fill();
  }
}

/** The path of the dragged point, where it is now, and the prediction of where it will end. */
function draw_path(context, to, path) {
  const tracked = DATA.colours.tracked, ink = themed("ink"), paper = themed("paper");
  const line = (dashes, width, colour, places) => {
    context.setLineDash(dashes);
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.beginPath();
    for (const [x, y] of places) context.lineTo(...to(x, y));
    context.stroke();
    context.setLineDash([]);
  };
  const states = path.states.map((state) => state.x_t);
  const now = path.x_t(stage.position), prediction = prediction_of(path);
  line([], 4.5, paper, states);
  line([], 2.5, tracked, states);
  line([3, 4], 1.5, ink, [now, prediction]);
  mark(context, to(...states[0]), 9, "circle", paper, tracked, 4);
  mark(context, to(...now), 6, "circle", tracked, ink, 1.5);
  mark(context, to(...prediction), 7, "diamond", paper, ink, 2);
}

const prediction_of = (path) => path.between(stage.position)[0].x_0;

function mark(context, [x, y], size, shape, fill, edge, width) {
  context.beginPath();
  if (shape === "circle") context.arc(x, y, size, 0, 2 * Math.PI);
  else for (const [dx, dy] of [[0, -1], [1, 0], [0, 1], [-1, 0]]) context.lineTo(x + size * dx, y + size * dy);
  context.closePath();
  [context.fillStyle, context.strokeStyle, context.lineWidth] = [fill, edge, width];
  context.fill();
  context.stroke();
}

/** A point in the units of the data; the columns of a table by their names. */
function words_of(x) {
  const values = Array.from(x, (value, i) => (value * DATA.std[i] + DATA.mean[i]).toFixed(digits_of(DATA.std[i])).replace("-", "\u2212"));
  if (!DATA.axes.length) return `(${values.join(", ")})`;
  return values.map((value, i) => `${DATA.axes[i]} ${value}`).join(", ");
}

/** How many decimals show a hundredth of a standard deviation; synthetic sets always have 2. */
const digits_of = (std) => (DATA.axes.length ? Math.min(Math.max(2 - Math.floor(Math.log10(std)), 0), 12) : 2);

function draw_readout() {
  for (const [name, path] of Object.entries(points.paths)) {
    if (!path) continue;
    element(`${name}_prediction`).textContent = words_of(prediction_of(path));
    element(`${name}_end`).textContent = words_of(path.states.at(-1).x_t);
  }
  for (const cell of document.querySelectorAll(".of_exact")) cell.hidden = !points.paths.exact;
  const end = words_of(points.paths.network.states.at(-1).x_t);
  const words = `Your point starts at ${words_of(points.drag)}; the network takes it to ${end}.`;
  if (element("said").textContent !== words) element("said").textContent = words;
}
