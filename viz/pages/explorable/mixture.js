// points/mixture.py: the exact distribution of the points, a Gaussian mixture that stays one under all that is done.

class GaussianMixture {
  /** centres (M, d) one after the other, one diagonal covariance variance (d,), weights (M,). */
  constructor(centres, variance, weights) {
    Object.assign(this, { centres, variance, weights, dim: variance.length });
    this.log_weights = Float64Array.from(weights, Math.log);
    this.terms = new Float64Array(weights.length);
  }

  /** The distribution of x_t = alpha x_0 + sigma eps. */
  noised(alpha, sigma) {
    const variance = this.variance.map((v) => alpha ** 2 * v + sigma ** 2);
    return new GaussianMixture(this.centres.map((c) => alpha * c), variance, this.weights);
  }

  /** exp of this.terms, log(weight exp(-|x - centre|^2 / 2 variance)) of row `row`, less their largest; [that, sum]. */
  weigh(x, row) {
    const { centres, variance, terms, dim } = this;
    let largest = -Infinity, sum = 0;
    for (let m = 0; m < terms.length; m++) {
      let square = 0;
      for (let i = 0; i < dim; i++) square += (x[row * dim + i] - centres[m * dim + i]) ** 2 / variance[i];
      terms[m] = this.log_weights[m] - square / 2;
      if (terms[m] > largest) largest = terms[m];
    }
    for (let m = 0; m < terms.length; m++) sum += terms[m] = terms[m] < largest - 40 ? 0 : Math.exp(terms[m] - largest);
    return [largest, sum];
  }

  /** log p(x) of each row, in nats. */
  log_density(x) {
    const constant = -0.5 * this.variance.reduce((sum, v) => sum + Math.log(2 * Math.PI * v), 0);
    return Float64Array.from({ length: x.length / this.dim }, (_, row) => {
      const [largest, sum] = this.weigh(x, row);
      return largest + Math.log(sum) + constant;
    });
  }

  /** E[eps | x_t] and E[x_0 | x_t], the best predictions of noise and data. part_of(row): the mixture of that row, if not this. */
  denoise(x_t, alpha, sigma, part_of) {
    const eps = new Float32Array(x_t.length), x_0 = new Float32Array(x_t.length), noised = new Map(), dim = this.dim;
    for (let row = 0; row < x_t.length / dim; row++) {
      const part = part_of ? part_of(row) : this;
      if (!noised.has(part)) noised.set(part, part.noised(alpha, sigma));
      const at_t = noised.get(part), [, sum] = at_t.weigh(x_t, row);
      for (let i = 0; i < dim; i++) {
        let centre = 0;
        for (let m = 0; m < at_t.terms.length; m++) centre += at_t.terms[m] * part.centres[m * dim + i];
        centre /= sum;
        const minus_score = (x_t[row * dim + i] - alpha * centre) / at_t.variance[i];
        eps[row * dim + i] = sigma * minus_score;
        x_0[row * dim + i] = centre + alpha * part.variance[i] * minus_score;
      }
    }
    return { eps, x_0 };
  }
}

/** A mixture of these in equal shares; all have the same variance. */
function mixed(mixtures) {
  const joined = (name, scale) => Float64Array.from(mixtures.flatMap((one) => Array.from(one[name], (v) => v * scale)));
  return new GaussianMixture(joined("centres", 1), mixtures[0].variance, joined("weights", 1 / mixtures.length));
}
