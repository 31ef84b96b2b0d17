// The trained model out of DATA (page_contents.py), and the exact distribution of its data where that is known.

const scheduler = new NoiseScheduler(doubles(DATA.alpha), doubles(DATA.sigma));
const net = NETWORKS[DATA.net.name](
  Object.fromEntries(Object.entries(DATA.weights).map(([name, part]) => [name, unpacked(part)])),
  DATA.net,
);
const parts = DATA.parts.map(({ centres, variance, weights }) => {
  const shares = halves(weights), sum = shares.reduce((a, b) => a + b);
  return new GaussianMixture(floats(centres), variance, shares.map((share) => share / sum));
});

const guided = (denoise, guidance) => classifier_free(denoise, guidance, scheduler, DATA.sampling.guidance_interval);

function network_denoiser(guidance = 0) {
  const denoise = guided(denoiser(net, scheduler, DATA.target), guidance);
  return DATA.net.dims.length === 3 ? within_range(denoise, scheduler) : denoise;
}

/** The best denoiser; null where the exact distribution is not known. */
function best_denoiser(guidance = 0) {
  return parts.length ? guided(exact_denoiser_of(parts, scheduler), guidance) : null;
}

/** The hook for tests and for the curious: `moonwalk.sample([...noise], {sampler: "ddim", sampling_steps: 20})`. */
const moonwalk = {
  /** Samples from x_T, rows one after the other. label: of all rows, or one each; noise: the normal numbers to use. */
  sample(x_T, { sampler, sampling_steps, label = null, guidance = 0, noise = null, exact = false }) {
    const random = noise ? ((i) => () => noise[i++])(0) : normals(0), rows = x_T.length / size_of(DATA.net.dims);
    const labels = label === null || Array.isArray(label) ? label : Array(rows).fill(label);
    const denoise = exact ? best_denoiser(guidance) : network_denoiser(guidance);
    const options = { sampler, sampling_steps, label: labels, random };
    return Array.from([...sample(denoise, scheduler, Float32Array.from(x_T), options)].at(-1).x_t);
  },
  timesteps: (sampler, sampling_steps) => timesteps_of(scheduler, sampler, sampling_steps),
};

const size_of = (dims) => dims.reduce((size, side) => size * side, 1);
