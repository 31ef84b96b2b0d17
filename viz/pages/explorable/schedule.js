// schedule.py and samplers/spacing.py: alpha and sigma of a process, and which of its steps a sampler takes.

const CLEAN = -1; // the t of clean data

/** A process x_t = alpha[t] x_0 + sigma[t] eps, t = 0 .. T-1. */
class NoiseScheduler {
  constructor(alpha, sigma) {
    this.alpha = alpha;
    this.sigma = sigma;
    this.num_timesteps = alpha.length;
    this.log_snr = alpha.map((a, t) => Math.log(a / sigma[t]));
  }

  /** [alpha, sigma]; [1, 0] at CLEAN. */
  alpha_sigma_at(t) {
    return t === CLEAN ? [1, 0] : [this.alpha[t], this.sigma[t]];
  }

  /** [a, b] of x_t = a x_s + b eps, s < t. */
  transition(s, t) {
    const [alpha_s, sigma_s] = this.alpha_sigma_at(s), [alpha_t, sigma_t] = this.alpha_sigma_at(t);
    const a = alpha_t / alpha_s;
    return [a, Math.sqrt(Math.max(sigma_t ** 2 - (a * sigma_s) ** 2, 0))];
  }

  /** [c_t, c_0, std] of x_s given x_t and x_0, s < t: Ho et al. 2020, eq. 6 and 7. */
  posterior(t, s) {
    const [alpha_s, sigma_s] = this.alpha_sigma_at(s), sigma_t = this.sigma[t], [a, b] = this.transition(s, t);
    return [a * (sigma_s / sigma_t) ** 2, alpha_s * (b / sigma_t) ** 2, (b * sigma_s) / sigma_t];
  }

  /** `count` distinct steps that fall from T-1, even on a clock of SPACINGS. */
  timesteps(count, spacing) {
    if (spacing === "even") return linspace(this.num_timesteps - 1, 0, count).map(half_to_even);
    return even_on(spacing, this.alpha, this.sigma, count);
  }
}

const SPACINGS = {
  trailing: (alpha, sigma, t) => t + 1,
  log_snr: (alpha, sigma) => Math.log(alpha / sigma),
  karras: (alpha, sigma) => (sigma / alpha) ** (1 / 7),
  angle: (alpha, sigma) => Math.atan2(sigma, alpha) ** (1 / 2.5),
};
const TO_CLEAN = ["trailing", "angle"]; // which count the transition to clean data, at 0, among the equal ones
const ENDLESS = ["log_snr", "karras"]; // which are even where sigma / alpha lies between these two only

function even_on(spacing, alpha, sigma, count) {
  const clock = Array.from(alpha, (a, t) => SPACINGS[spacing](a, sigma[t], t));
  const noise = Array.from(alpha, (a, t) => sigma[t] / a), to_clean = TO_CLEAN.includes(spacing);
  let first = 0, last = clock.length - 1;
  if (ENDLESS.includes(spacing)) {
    first = Math.min(noise.filter((ratio) => ratio < DATA.least_noise).length, last);
    last = Math.max(noise.filter((ratio) => ratio <= DATA.most_noise).length - 1, first);
  }
  const wanted = linspace(clock[last], to_clean ? 0 : clock[first], count, !to_clean).reverse();
  const nearest = wanted.map((place) => argmin(clock.map((hand) => Math.abs(hand - place))));
  nearest[count - 1] = clock.length - 1;
  let most = -Infinity; // each above the one before it, with room for those after it
  const rising = nearest.map((t, i) => (most = Math.max(most, t - i)) + i);
  return rising.map((t, i) => Math.min(t, clock.length - count + i)).reverse();
}

/** NumPy's linspace, to the bit. */
function linspace(first, last, count, endpoint = true) {
  const parts = endpoint ? count - 1 : count, step = (last - first) / parts;
  return Array.from({ length: count }, (_, i) => (endpoint && i > 0 && i === parts ? last : first + (parts > 0 ? i * step : 0)));
}

/** NumPy's round. */
function half_to_even(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

const argmin = (values) => values.reduce((best, value, i) => (value < values[best] ? i : best), 0);
