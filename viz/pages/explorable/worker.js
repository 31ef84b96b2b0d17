// What runs beside the page, in a worker made from the same script: walks, state by state, and fields.

/** Send every state of a walk; a newer walk ends it. */
async function walk({ id, x_T, label, guidance, seed, sampler, sampling_steps }) {
  newest_walk = id;
  const options = { sampler, sampling_steps, label, random: normals(seed) };
  for (const { t, x_t, x_0 } of sample(network_denoiser(guidance), scheduler, x_T, options)) {
    if (newest_walk !== id) return;
    postMessage({ what: "state", id, t, x_t, x_0 });
    await new Promise((resume) => setTimeout(resume)); // so that messages are read
  }
}
let newest_walk = 0;

/** At step t: eps of the network and the exact one at `points`, and the exact log-density at `pixels`. */
function field({ t, label, guidance, points, pixels }) {
  const labels = label === null ? null : Array(points.length / 2).fill(label), best = best_denoiser(guidance);
  const whole = label === null ? mixed_parts() : parts[label];
  return {
    what: "field",
    t,
    network: network_denoiser(guidance)(points, t, labels).eps,
    exact: best && best(points, t, labels).eps,
    log_density: best && whole.noised(...scheduler.alpha_sigma_at(t)).log_density(pixels),
  };
}
const mixed_parts = () => parts.length && mixed(parts);

function serve() {
  onmessage = ({ data }) => (data.what === "walk" ? walk(data) : postMessage(field(data)));
}
