// model.py: the networks for points, net(x_t, t, label). W holds the weights under the names that they have in PyTorch.

/** A residual multilayer perceptron: its inputs are x and sin and cos of x at frequencies 1, 2, 4, ... */
function mlp(W, { hidden, layers, frequencies, num_labels }) {
  const outputs = W["outputs.weight"].shape[0], TIME_DIM = 32, d = outputs, inputs = d * (1 + 2 * frequencies);
  const transposed = ({ shape: [N, K], data }) => packed(K, N, (k, n) => data[n * K + k]);
  const first = transposed(W["inputs.weight"]), last = transposed(W["outputs.weight"]);
  const between = Array.from({ length: layers }, (_, i) => transposed(W[`layers.${i}.weight`]));

  return (x_t, t, label) => {
    const B = x_t.length / d, features = new Float32Array(B * inputs), h = new Float32Array(B * hidden);
    for (let row = 0; row < B; row++)
      for (let i = 0; i < d; i++) {
        const x = x_t[row * d + i], at = row * inputs;
        features[at + i] = x;
        for (let f = 0; f < frequencies; f++) {
          features[at + d + i * frequencies + f] = Math.sin(x * 2 ** f);
          features[at + d + (d + i) * frequencies + f] = Math.cos(x * 2 ** f);
        }
      }
    const time = linear(W, "time", time_embedding(t, TIME_DIM));
    for (let row = 0; row < B; row++) h.set(condition(time, label ? label[row] : num_labels), row * hidden);
    addmm(h, features, B, inputs, first, hidden);
    for (const weight of between) addmm(h, h.map(silu), B, hidden, weight, hidden);
    const output = Float32Array.from({ length: B * d }, (_, i) => W["outputs.bias"].data[i % d]);
    addmm(output, h.map(silu), B, hidden, last, d);
    return output;
  };

  function condition(time, label) {
    if (!W["label.weight"]) return time;
    return sum_of([1, time], [1, W["label.weight"].data.subarray(label * hidden, (label + 1) * hidden)]);
  }
}

/** One affine map for each step and label. */
function affine(W, { num_labels }) {
  const d = W.bias.shape[2];
  return (x_t, t, label) =>
    Float32Array.from(x_t, (_, at) => {
      const row = Math.floor(at / d), i = at % d, map = t * (num_labels + 1) + (label ? label[row] : num_labels);
      let sum = W.bias.data[map * d + i];
      for (let j = 0; j < d; j++) sum += W.weight.data[(map * d + i) * d + j] * x_t[row * d + j];
      return sum;
    });
}

const NETWORKS = { mlp, linear: affine };
