// diffusion.py and steering/guidance.py: what the network's output means; denoisers; guidance.
// A denoiser is denoise(x_t, t, label) -> {eps, x_0}: rows of x_t one after the other in a Float32Array, one t for all
// of them, label null or one number for each row.

/** (output, x_t, alpha, sigma) -> {eps, x_0}, both straight from the output. */
const TARGETS = {
  eps: (eps, x_t, alpha, sigma) => ({ eps, x_0: sum_of([1 / alpha, x_t], [-sigma / alpha, eps]) }),
  v: (v, x_t, alpha, sigma) => {
    const total = alpha ** 2 + sigma ** 2, a = alpha / total, s = sigma / total;
    return { eps: sum_of([s, x_t], [a, v]), x_0: sum_of([a, x_t], [-s, v]) };
  },
  x0: (x_0, x_t, alpha, sigma) => ({ eps: sum_of([1 / sigma, x_t], [-alpha / sigma, x_0]), x_0 }),
  velocity: (u, x_t, alpha, sigma) => {
    const total = alpha + sigma;
    return { eps: sum_of([1 / total, x_t], [alpha / total, u]), x_0: sum_of([1 / total, x_t], [-sigma / total, u]) };
  },
};

function denoiser(net, scheduler, target) {
  return (x_t, t, label) => TARGETS[target](net(x_t, t, label), x_t, ...scheduler.alpha_sigma_at(t));
}

/** The best denoiser of labelled data, parts[k] for label k, or without a label of them all. */
function exact_denoiser_of(parts, scheduler) {
  const whole = mixed(parts);
  return (x_t, t, label) => whole.denoise(x_t, ...scheduler.alpha_sigma_at(t), label && ((row) => parts[label[row]]));
}

/** eps = (1 + w) eps - w eps_unconditional, w = guidance (Ho and Salimans 2022, eq. 6). interval: only where the noise
 * sigma / alpha lies within it (Kynkaanniemi et al. 2024, eq. 5); null: everywhere. */
function classifier_free(denoise, guidance, scheduler, interval) {
  return (x_t, t, label) => {
    const strong = denoise(x_t, t, label), [alpha, sigma] = scheduler.alpha_sigma_at(t), noise = sigma / alpha;
    if (!guidance || !label || (interval && !(interval[0] <= noise && noise <= interval[1]))) return strong;
    const weak = denoise(x_t, t, null), w = guidance;
    return { eps: sum_of([1 + w, strong.eps], [-w, weak.eps]), x_0: sum_of([1 + w, strong.x_0], [-w, weak.x_0]) };
  };
}

/** A denoiser of images, whose prediction is kept within [-1, 1], where all pixels are; eps moves along. */
function within_range(denoise, scheduler) {
  return (x_t, t, label) => {
    const { eps, x_0 } = denoise(x_t, t, label), [alpha, sigma] = scheduler.alpha_sigma_at(t);
    const inside = x_0.map((pixel) => Math.min(Math.max(pixel, -1), 1)), ratio = alpha / sigma;
    return { eps: sum_of([1, eps], [ratio, x_0], [-ratio, inside]), x_0: inside };
  };
}
