// What both kinds of page have: the clock, the controls, and the walk as it arrives from the worker.

const element = (id) => document.getElementById(id);

// The clock of films and recordings (metrics/scene.py): 0 is pure noise, 1 clean data, even in log-SNR between them.
const hands = floats(DATA.clock);
const position_of = (t) => (hands[t + 1] - hands.at(-1)) / (hands[0] - hands.at(-1));

/** The step nearest to a place on the clock; 0 also for clean data. */
function t_at(position) {
  let low = 0, high = scheduler.num_timesteps - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((position_of(middle) + position_of(middle + 1)) / 2 <= position) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The share of x_t's amplitude that is noise, 0 to 1. */
function noise_at(position) {
  if (position >= 1) return 0;
  const [alpha, sigma] = scheduler.alpha_sigma_at(t_at(position));
  return sigma / Math.hypot(alpha, sigma);
}

/** States of a reverse process on the clock, as they arrive. */
class Walk {
  states = [];
  positions = [];

  add(state) {
    this.states.push(state);
    this.positions.push(this.states.length === 1 ? 0 : position_of(state.t));
  }

  get reach() {
    return this.positions.at(-1) ?? 0;
  }

  /** [the state before a place on the clock, the one after it, how far between them it is]. */
  between(position) {
    let i = this.positions.length - 1;
    while (i > 0 && this.positions[i] > position) i--;
    const j = Math.min(i + 1, this.positions.length - 1), room = this.positions[j] - this.positions[i];
    const share = room > 0 ? Math.min((position - this.positions[i]) / room, 1) : 0;
    return [this.states[i], this.states[j], share];
  }

  /** Where the points are; between two evaluations of the network on the straight line that joins them. */
  x_t(position) {
    const [from, to, share] = this.between(position);
    return sum_of([1 - share, from.x_t], [share, to.x_t]);
  }
}

// ---------------------------------------------------------------- the clock of the page

const stage = { position: 0, playing: false, before: 0, walk: null, id: 0, worker: null, lasts: 8, dirty: true };

/** Begin: `draw` is called when something has changed, `restart` when the controls ask for another walk. */
function begin_stage({ draw, restart, on_state, on_field, lasts }) {
  stage.lasts = lasts;
  const source = new Blob([document.currentScript.textContent], { type: "text/javascript" });
  stage.worker = new Worker(URL.createObjectURL(source));
  stage.worker.onmessage = ({ data }) => {
    stage.dirty = true;
    if (data.what === "field") on_field(data);
    else if (data.id === stage.id) {
      stage.walk.add(data);
      on_state(data);
    }
  };
  element("play").onclick = () => play(!stage.playing);
  element("moment").oninput = () => {
    play(false);
    stage.position = element("moment").value / 1000;
  };
  element("again").onclick = () => restart(true);
  element("controls").onsubmit = () => false;
  element("controls").addEventListener("input", (event) => {
    if (event.target.dataset.restarts !== undefined) restart(false);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (stage.dirty = true));
  addEventListener("resize", () => (stage.dirty = true));
  const frame = (now) => {
    tick(now);
    if (stage.dirty) draw();
    stage.dirty = false;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

function tick(now) {
  const elapsed = (now - stage.before) / 1000;
  stage.before = now;
  if (!stage.playing) return show_clock();
  stage.position = Math.min(stage.position + Math.min(elapsed, 0.1) / stage.lasts, stage.walk.reach);
  stage.dirty = true;
  if (stage.position >= 1) play(false);
  show_clock();
}

function play(wanted) {
  if (wanted && stage.position >= 1) stage.position = 0;
  stage.playing = wanted;
  stage.dirty = true;
  element("play").textContent = wanted ? "❚❚ Pause" : "▶ Play";
}

/** Whether the walk has not come as far as the clock: then no state of that moment is known yet. */
const computing = () => stage.walk.reach < stage.position;

function show_clock() {
  const noise = computing() ? "computing …" : `${Math.round(100 * noise_at(stage.position))} % noise`;
  if (element("noise").textContent === noise && +element("moment").value === Math.round(1000 * stage.position)) return;
  element("noise").textContent = noise;
  element("moment").value = Math.round(1000 * stage.position);
  element("moment").setAttribute("aria-valuetext", noise);
}

/** Ask the worker for a walk from x_T, and watch it from the beginning; page.html#0.7 stands at that moment. */
function start_walk(request) {
  stage.walk = new Walk();
  stage.id++;
  stage.worker.postMessage({ what: "walk", id: stage.id, ...settings(), ...request });
  const asked = stage.id === 1 ? parseFloat(location.hash.slice(1)) : NaN;
  stage.position = Math.min(Math.max(asked, 0), 1) || 0;
  play(Number.isNaN(asked) && !matchMedia("(prefers-reduced-motion: reduce)").matches);
}

// ---------------------------------------------------------------- the controls

/** What the controls say: label is null for all of them together. */
function settings() {
  const label = element("controls").elements.label?.value ?? "";
  return {
    sampler: element("sampler").value,
    sampling_steps: +element("evaluations").value,
    label: label === "" ? null : +label,
    guidance: DATA.classes.length ? +element("guidance").value : 0,
  };
}

function fill_controls() {
  for (const [name, row] of Object.entries(DATA.samplers))
    element("sampler").append(new Option(row.noisy ? `${name} (adds noise)` : name, name));
  element("sampler").value = DATA.sampling.sampler;
  element("evaluations").max = Math.min(50, scheduler.num_timesteps);
  element("evaluations").value = DATA.sampling.sampling_steps;
  element("guidance").value = DATA.sampling.guidance;
  for (const hidden of document.querySelectorAll(".labelled")) hidden.hidden = !DATA.classes.length;
  for (const name of ["evaluations", "guidance"]) {
    const show = () => (element(`${name}_now`).textContent = element(name).value);
    element(name).addEventListener("input", show);
    show();
  }
}

/** An RGB colour between the stops of viz/colours.py, green at 0 and red at 1. */
function noise_colour(share) {
  const stops = DATA.colours.noise, place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(place), stops.length - 2);
  return `rgb(${stops[i].map((low, c) => Math.round(low + (place - i) * (stops[i + 1][c] - low))).join(" ")})`;
}

/** The value of a colour of style.css, on the light or the dark ground. */
const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** The context of a canvas that is as fine as the screen, and its side in CSS pixels. */
function ready(canvas) {
  const side = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(side * ratio)) canvas.width = canvas.height = Math.round(side * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, side, side);
  return [context, side];
}
