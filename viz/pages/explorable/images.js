// The page of images: one is drawn out of noise while the network shows what it predicts beneath the noise.

const FRAMES = 10; // states in the strip
const KEPT = 12; // finished images at the bottom

const images = { seed: 1, started: 0 };

function begin() {
  fill_controls();
  fill_labels();
  begin_stage({ draw: draw_images, restart, on_state, on_field: () => {}, lasts: 3 });
  restart(false);
}

/** One button for each label, or a list where there are many. */
function fill_labels() {
  const names = DATA.classes;
  if (names.length > 12) {
    const list = Object.assign(document.createElement("select"), { name: "label" });
    names.forEach((name, k) => list.append(new Option(name, k)));
    list.dataset.restarts = "";
    return element("labels").append(list);
  }
  names.forEach((name, k) => {
    const button = Object.assign(document.createElement("input"), { type: "radio", name: "label", value: k });
    button.checked = k === Math.min(3, names.length - 1);
    button.dataset.restarts = "";
    const around = document.createElement("label");
    around.append(button, Object.assign(document.createElement("span"), { textContent: name }));
    element("labels").append(around);
  });
}

function restart(new_noise) {
  if (new_noise) images.seed++;
  const { label } = settings(), x_T = noise_like(new Float32Array(size_of(DATA.net.dims)), normals(images.seed));
  images.started = performance.now();
  start_walk({ x_T, label: label === null ? null : [label], seed: images.seed });
}

function on_state({ t, x_t }) {
  if (t !== CLEAN) return;
  const { sampler, sampling_steps, label, guidance } = settings(), steps = timesteps_of(scheduler, sampler, sampling_steps);
  const evaluations = DATA.samplers[sampler].a_step * (steps.length - 1) + 1, seconds = (performance.now() - images.started) / 1000;
  const interval = DATA.sampling.guidance_interval, where = interval ? ` where sigma/alpha lies in ${interval.join(" .. ")}` : "";
  const twice = guidance && label !== null ? `, twice${where}: with and without the label` : "";
  element("said").textContent = `Drawn in ${seconds.toFixed(1)} s: ${evaluations} evaluations of the network${twice}.`;
  const what = label === null ? "an image" : DATA.classes[label], kept = document.createElement("canvas");
  kept.setAttribute("role", "img");
  kept.setAttribute("aria-label", `${what}, drawn by the network`);
  paint(kept, x_t);
  element("kept").prepend(kept);
  while (element("kept").children.length > KEPT) element("kept").lastChild.remove();
}

// ---------------------------------------------------------------- pictures

function draw_images() {
  const { walk } = stage;
  if (!walk?.states.length) return;
  const [state] = walk.between(stage.position);
  paint(element("now"), state.x_t);
  paint(element("prediction"), state.x_0);
  const strip = Array.from({ length: FRAMES }, (_, i) => i / (FRAMES - 1));
  while (element("strip").children.length < FRAMES) element("strip").append(document.createElement("canvas"));
  strip.forEach((place, i) => {
    const small = element("strip").children[i], reached = place <= walk.reach;
    small.classList.toggle("future", !reached);
    small.classList.toggle("current", Math.round(stage.position * (FRAMES - 1)) === i);
    if (reached) paint(small, walk.between(place)[0].x_0);
  });
}

/** An image (C, H, W) of numbers in [-1, 1], one pixel of the canvas each; what is beyond is cut off. */
function paint(canvas, x) {
  const [C, H, W] = DATA.net.dims;
  if (canvas.width !== W || canvas.height !== H) [canvas.width, canvas.height] = [W, H];
  const image = new ImageData(W, H);
  for (let i = 0; i < H * W; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 127.5 * (x[(C === 3 ? c : 0) * H * W + i] + 1);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
