// samplers/: reverse processes by name, generators that yield every state {t, x_t, x_0}.

/** How each runs; Python's registry/sampler_rows.py, in DATA.samplers, says what steps it takes. */
const SAMPLERS = {
  ddpm,
  ddim,
  dpmpp_2m: (...given) => dpmpp(...given, 2, false),
  dpmpp_3m: (...given) => dpmpp(...given, 3, false),
  dpmpp_2m_sde: (...given) => dpmpp(...given, 2, true),
  unipc,
  heun: (...given) => heun(...given, 0),
  heun_sde: (...given) => heun(...given, DATA.churn),
  adams,
};

/** The falling steps for `sampling_steps` evaluations of the network. */
function timesteps_of(scheduler, sampler, sampling_steps) {
  const row = DATA.samplers[sampler], most = row.a_step * (scheduler.num_timesteps - 1) + 1;
  const evaluations = Math.min(Math.max(Math.round(sampling_steps), 1), most);
  const spare = (row.a_step - 1) * !corrected(scheduler, scheduler.num_timesteps - 1, 0);
  return scheduler.timesteps(Math.floor((evaluations - 1 + spare) / row.a_step) + 1, row.spacing);
}

/** From noise x_T to data. random: gives a standard normal number, to samplers that add noise. */
function* sample(denoise, scheduler, x_T, { sampler, sampling_steps, label = null, random = normals(0) }) {
  const predict = (x_t, t) => denoise(x_t, t, label);
  yield* SAMPLERS[sampler](predict, scheduler, x_T, timesteps_of(scheduler, sampler, sampling_steps), random);
}

/** [t, the next t] down to CLEAN. */
const transitions = (timesteps) => timesteps.map((t, i) => [t, i + 1 < timesteps.length ? timesteps[i + 1] : CLEAN]);

/** Ho et al. 2020, algorithm 2, with the posterior variance of eq. 7. */
function* ddpm(denoise, scheduler, x, timesteps, random) {
  for (const [t, s] of transitions(timesteps)) {
    const { x_0 } = denoise(x, t);
    yield { t, x_t: x, x_0 };
    const [c_t, c_0, std] = scheduler.posterior(t, s);
    x = sum_of([c_t, x], [c_0, x_0]);
    if (s !== CLEAN) x = sum_of([1, x], [std, noise_like(x, random)]);
  }
  yield { t: CLEAN, x_t: x, x_0: x };
}

/** Song, Meng and Ermon 2021, eq. 12, without noise; on a flow Euler's method. */
function* ddim(denoise, scheduler, x, timesteps) {
  for (const [t, s] of transitions(timesteps)) {
    const { eps, x_0 } = denoise(x, t), [alpha_s, sigma_s] = scheduler.alpha_sigma_at(s);
    yield { t, x_t: x, x_0 };
    x = sum_of([alpha_s, x_0], [sigma_s, eps]);
  }
  yield { t: CLEAN, x_t: x, x_0: x };
}

/** Heun's method (Karras et al. 2022, algorithms 1 and 2): two evaluations a step, one for the last. */
function* heun(denoise, scheduler, x, timesteps, random, churn) {
  const gamma = Math.min(churn / timesteps.length, Math.SQRT2 - 1);
  for (let [t, s] of transitions(timesteps)) {
    const again = corrected(scheduler, t, s), higher = churned(scheduler, t, gamma);
    if (higher > t) {
      const [a, b] = scheduler.transition(t, higher);
      x = sum_of([a, x], [b, noise_like(x, random)]);
      t = higher;
    }
    const { eps, x_0 } = denoise(x, t);
    yield { t, x_t: x, x_0 };
    const [alpha_t, sigma_t] = scheduler.alpha_sigma_at(t), [alpha_s, sigma_s] = scheduler.alpha_sigma_at(s);
    x = sum_of([alpha_s, x_0], [sigma_s, eps]);
    if (again) {
      const half = (sigma_s - (sigma_t * alpha_s) / alpha_t) / 2;
      x = sum_of([1, x], [half, denoise(x, s).eps], [-half, eps]);
    }
  }
  yield { t: CLEAN, x_t: x, x_0: x };
}

/** Whether Heun's rule applies to a step: not to the last, nor at noise far above the data. */
function corrected(scheduler, t, s) {
  const [alpha, sigma] = scheduler.alpha_sigma_at(t);
  return s !== CLEAN && sigma <= DATA.most_noise * alpha;
}

/** The step whose sigma / alpha is nearest to 1 + gamma times that of t. */
function churned(scheduler, t, gamma) {
  if (!gamma) return t;
  const wanted = scheduler.log_snr[t] - Math.log1p(gamma);
  return argmin(Array.from(scheduler.log_snr, (log_snr) => Math.abs(log_snr - wanted)));
}

// ---------------------------------------------------------------- samplers/covariance.py, of points in the plane

/** {x_0, covariance}: what the denoiser predicts, and [xx, xy, yy] of Cov[x_0 | x_t], one a row each, by differences. */
function with_covariance(denoise, scheduler, x, t) {
  const [alpha, sigma] = scheduler.alpha_sigma_at(t), step = DATA.nearby * sigma, { x_0 } = denoise(x, t);
  if (alpha === 0) return { x_0, covariance: Array(x.length / 2).fill([1, 0, 1]) };
  const [along_x, along_y] = [0, 1].map((axis) => denoise(x.map((c, i) => (i % 2 === axis ? c + step : c)), t).x_0);
  const slope = (moved, i) => (sigma ** 2 / alpha / step) * (moved[i] - x_0[i]), covariance = [];
  for (let i = 0; i < x.length; i += 2)
    covariance.push([slope(along_x, i), (slope(along_x, i + 1) + slope(along_y, i)) / 2, slope(along_y, i + 1)]);
  return { x_0, covariance };
}

/** x_s out of N(c_t x_t + c_0 x_0, std^2 + c_0^2 covariance). */
function drawn(scheduler, x, t, s, x_0, covariance, random) {
  const [c_t, c_0, std] = scheduler.posterior(t, s), z = noise_like(x, random), noise = new Float32Array(x.length);
  covariance.forEach(([xx, xy, yy], row) => {
    const total = [std ** 2 + c_0 ** 2 * xx, c_0 ** 2 * xy, std ** 2 + c_0 ** 2 * yy], [a, b, c] = root(...total), i = 2 * row;
    noise.set([a * z[i] + b * z[i + 1], b * z[i] + c * z[i + 1]], i);
  });
  return sum_of([c_t, x], [c_0, x_0], [1, noise]);
}

/** The symmetric root of [[xx, xy], [xy, yy]], eigenvalues below 0 taken for 0: a line through both of their roots. */
function root(xx, xy, yy) {
  const middle = (xx + yy) / 2, half = Math.hypot((xx - yy) / 2, xy);
  const [high, low] = [middle + half, middle - half].map((value) => Math.sqrt(Math.max(value, 0)));
  const slope = half > 0 ? (high - low) / (2 * half) : 0, offset = (high + low) / 2 - slope * middle;
  return [offset + slope * xx, slope * xy, offset + slope * yy];
}

// ---------------------------------------------------------------- solvers that remember

function log_snr_at(scheduler, t) {
  return t === CLEAN ? Infinity : scheduler.log_snr[t];
}

/** [r, D] of each prediction but the newest: its place, in steps from the newest, and the slope between the two. */
function slopes_of(predictions, log_snr) {
  const [newest, ...others] = predictions, h = log_snr - newest.log_snr;
  const placed = others.filter((prediction) => Number.isFinite(prediction.log_snr));
  return placed.map((prediction) => {
    const r = (prediction.log_snr - newest.log_snr) / h;
    return [r, sum_of([1 / r, prediction.x_0], [-1 / r, newest.x_0])];
  });
}

/** DPM-Solver++ (Lu et al. 2022): 2M (algorithm 2), 3M as in its authors' code, 2M SDE (eq. 18), drawn near its end. */
function* dpmpp(denoise, scheduler, x, timesteps, random, order, stochastic) {
  const near = log_snr_at(scheduler, timesteps.at(-1)) - DATA.near_the_end;
  const draw = stochastic && DATA.net.dims.length === 1;
  let predictions = [];
  for (const [t, s] of transitions(timesteps)) {
    if (draw && log_snr_at(scheduler, t) >= near) {
      const { x_0, covariance } = with_covariance(denoise, scheduler, x, t);
      yield { t, x_t: x, x_0 };
      x = drawn(scheduler, x, t, s, x_0, covariance, random);
      continue;
    }
    const { x_0 } = denoise(x, t);
    yield { t, x_t: x, x_0 };
    predictions = [{ log_snr: log_snr_at(scheduler, t), x_0 }, ...predictions].slice(0, order);
    if (s === CLEAN) {
      x = x_0;
      break;
    }
    const sigma_t = scheduler.sigma[t], [alpha_s, sigma_s] = scheduler.alpha_sigma_at(s);
    const h = log_snr_at(scheduler, s) - predictions[0].log_snr, mean = mean_of(predictions, h);
    if (stochastic) {
      const fresh = sigma_s * Math.sqrt(-Math.expm1(-2 * h)), kept = (sigma_s / sigma_t) * Math.exp(-h);
      x = sum_of([kept, x], [-alpha_s * Math.expm1(-2 * h), mean], [fresh, noise_like(x, random)]);
    } else {
      x = sum_of([sigma_s / sigma_t, x], [-alpha_s * Math.expm1(-h), mean]);
    }
  }
  yield { t: CLEAN, x_t: x, x_0: x };
}

/** The mean of x_0 over a step h from the newest prediction, as exp(log-SNR) weighs it. */
function mean_of(predictions, h) {
  const newest = predictions[0].x_0, slopes = slopes_of(predictions, predictions[0].log_snr + h);
  if (!slopes.length || !Number.isFinite(h)) return newest;
  const [[r, slope], more] = slopes;
  if (!more) return sum_of([1, newest], [1 / 2, slope]);
  const [r_2, slope_2] = more, weight = -Math.expm1(-h);
  const first = (1 - weight / h) / weight, second = (0.5 - (h - weight) / h ** 2) / weight;
  const bend = (second - first * r) / (r - r_2); // of the curvature, (slope - slope_2) / (r - r_2)
  return sum_of([1, newest], [first + bend, slope], [-bend, slope_2]);
}

/** UniPC (Zhao et al. 2023, algorithms 1 and 2, B_2(h) = exp(h) - 1), of third order. */
function* unipc(denoise, scheduler, x, timesteps) {
  const steps = transitions(timesteps), order = 3;
  let begin = null, predictions = [], used = 0;
  for (const [i, [t, s]] of steps.entries()) {
    const prediction = { log_snr: log_snr_at(scheduler, t), x_0: denoise(x, t).x_0 };
    yield { t, x_t: x, x_0: prediction.x_0 };
    if (begin) x = uni_step(scheduler, begin, steps[i - 1], predictions.slice(0, used), prediction);
    predictions = [prediction, ...predictions].slice(0, order);
    begin = x;
    used = Math.min(order, i + 1, steps.length - i);
    x = uni_step(scheduler, begin, [t, s], predictions.slice(0, used), null);
  }
  yield { t: CLEAN, x_t: x, x_0: x };
}

function uni_step(scheduler, x, [t, s], predictions, at_end) {
  const sigma_t = scheduler.sigma[t], [alpha_s, sigma_s] = scheduler.alpha_sigma_at(s);
  const newest = predictions[0], log_snr = log_snr_at(scheduler, s), h = log_snr - newest.log_snr;
  const scale = -alpha_s * Math.expm1(-h);
  x = sum_of([sigma_s / sigma_t, x], [scale, newest.x_0]);
  if (!Number.isFinite(h)) return x;
  const slopes = slopes_of(predictions, log_snr);
  if (at_end) slopes.push([1, sum_of([1, at_end.x_0], [-1, newest.x_0])]);
  const weights = uni_weights(slopes.map(([r]) => r), h);
  return sum_of([1, x], ...slopes.map(([, slope], i) => [scale * weights[i], slope]));
}

/** The a of eq. 5: with them the step is exact for polynomials in log-SNR. */
function uni_weights(places, h) {
  if (places.length < 2) return places.map(() => 0.5);
  let phi = Math.expm1(-h) / -h - 1, factorial = 1;
  const moments = places.map((_, i) => {
    const moment = (phi * factorial) / Math.expm1(-h);
    factorial *= i + 2;
    phi = phi / -h - 1 / factorial;
    return moment;
  });
  return solve(moments.map((_, power) => places.map((r) => r ** power)), moments);
}

/** x of A x = b, by Gaussian elimination: A is of 2 or 3 rows. */
function solve(A, b) {
  const rows = A.map((row, i) => [...row, b[i]]);
  for (let i = 0; i < rows.length; i++) {
    const pivot = rows.slice(i).reduce((best, row) => (Math.abs(row[i]) > Math.abs(best[i]) ? row : best));
    rows.splice(rows.indexOf(pivot), 1);
    rows.splice(i, 0, pivot.map((value) => value / pivot[i]));
    for (const j of rows.keys()) if (j !== i) rows[j] = rows[j].map((value, k) => value - rows[j][i] * rows[i][k]);
  }
  return rows.map((row) => row.at(-1));
}

/** Adams' methods in the angle arctan(sigma / alpha): Adams-Bashforth predicts, Adams-Moulton corrects. */
function* adams(denoise, scheduler, x, timesteps) {
  let now = null, before = null;
  for (const [t, s] of transitions(timesteps)) {
    const [alpha, sigma] = scheduler.alpha_sigma_at(t), [alpha_s, sigma_s] = scheduler.alpha_sigma_at(s);
    const size = Math.hypot(alpha, sigma), angle = Math.atan2(sigma, alpha);
    const { eps, x_0 } = denoise(x, t);
    yield { t, x_t: x, x_0 };
    const v = sum_of([alpha / size, eps], [-sigma / size, x_0]);
    const u = now ? moulton(now, before, angle, v) : sum_of([1 / size, x]);
    [before, now] = [now, { angle, u, v }];
    x = sum_of([Math.hypot(alpha_s, sigma_s), bashforth(now, before, Math.atan2(sigma_s, alpha_s))]);
  }
  yield { t: CLEAN, x_t: x, x_0: x };
}

/** u at `angle` from two velocities, or one: their straight line, integrated. */
function bashforth(now, before, angle) {
  const h = angle - now.angle;
  if (!before) return sum_of([1, now.u], [h, now.v]);
  const bend = (h * h) / 2 / (now.angle - before.angle);
  return sum_of([1, now.u], [h + bend, now.v], [-bend, before.v]);
}

/** u at `angle` from the velocity v there as well: a parabola through three of them, or a line, integrated. */
function moulton(now, before, angle, v) {
  const h = angle - now.angle, u = sum_of([1, now.u], [h / 2, now.v], [h / 2, v]);
  if (!before) return u;
  const h_before = now.angle - before.angle, bend = -(h ** 3) / 6 / (h + h_before);
  return sum_of([1, u], [bend / h, v], [-bend / h - bend / h_before, now.v], [bend / h_before, before.v]);
}
