// nets/embedding.py, and the layer that all networks have.

/** [sin, cos] of t at dim / 2 frequencies (Vaswani et al. 2017, section 3.5), rounded as float32 rounds them. */
function time_embedding(t, dim) {
  const half = dim / 2, round = Math.fround;
  return Float32Array.from({ length: dim }, (_, i) => {
    const angle = round(t * round(Math.exp(round(round(-Math.log(10_000)) * (i % half)) / half)));
    return i < half ? Math.sin(angle) : Math.cos(angle);
  });
}

/** The layer W[name] of one vector: weight x + bias. */
function linear(W, name, x) {
  const { shape: [outputs, inputs], data } = W[`${name}.weight`], bias = W[`${name}.bias`].data;
  return Float32Array.from({ length: outputs }, (_, i) => {
    let sum = bias[i];
    for (let j = 0; j < inputs; j++) sum += data[i * inputs + j] * x[j];
    return sum;
  });
}
