// nets/unet.py and nets/attention.py: the network for images. A map is {C, H, W, data}, data (C, H, W) one after the
// other; W holds the weights under the names that they have in PyTorch.

/** The network, net(x_t, t, label). */
function unet(W, { dims, channels, blocks, patch, heads, num_labels }) {
  const [C, H, width] = dims, size = C * H * width, has = (name) => W[`${name}.weight`] !== undefined;
  const cond_dim = W["time.layers.2.weight"].shape[0], label_width = W["label.weight"]?.shape[1];

  return (x_t, t, label) => {
    const output = new Float32Array(x_t.length);
    for (let row = 0; row * size < x_t.length; row++) {
      const image = { C, H, W: width, data: x_t.subarray(row * size, (row + 1) * size) };
      output.set(forward(image, t, label ? label[row] : num_labels), row * size);
    }
    return output;
  };

  function forward(image, t, label) {
    const { cond, context } = condition(t, label), skips = [];
    let x = conv(W, "stem", pixel_unshuffle(image, patch));
    for (let i = 0; i + 1 < channels.length; i++) {
      x = stage(`down.${i}.stage`, x, cond, context);
      skips.push(x);
      x = conv(W, `down.${i}.down`, x, 2);
    }
    x = stage("bottleneck.stage", x, cond, context);
    for (let i = 0; i + 1 < channels.length; i++)
      x = stage(`up.${i}.stage`, joined(conv_transpose(W, `up.${i}.up`, x), skips.pop()), cond, context);
    return pixel_shuffle(conv(W, "head", silu_of(group_norm(W, "norm", x))), patch).data;
  }

  /** The condition of every residual block, and the context tokens of cross-attention or null. */
  function condition(t, label) {
    const inner = linear(W, "time.layers.0", time_embedding(t, channels[0] + (channels[0] % 2))).map(silu);
    const time = linear(W, "time.layers.2", inner);
    if (!label_width) return { cond: time.map(silu), context: null };
    const embedded = W["label.weight"].data.subarray(label * label_width, (label + 1) * label_width);
    if (label_width === cond_dim) return { cond: sum_of([1, time], [1, embedded]).map(silu), context: null };
    const tokens = [...embedded, ...time], M = tokens.length / cond_dim; // (M, cond_dim), here with the channels first
    const data = Float32Array.from(tokens, (_, i) => tokens[(i % M) * cond_dim + Math.floor(i / M)]);
    return { cond: time.map(silu), context: { C: cond_dim, H: 1, W: M, data } };
  }

  /** The layers at one resolution: residual blocks, each followed by attention where there is some. */
  function stage(name, x, cond, context) {
    for (let i = 0; i < blocks; i++) {
      x = residual_block(W, `${name}.residual.${i}`, x, cond);
      if (has(`${name}.attention.${i}.norm`)) x = attention_block(W, `${name}.attention.${i}`, x, null, heads);
      if (has(`${name}.cross.${i}.norm`)) x = attention_block(W, `${name}.cross.${i}`, x, context, heads);
    }
    return x;
  }
}

/** Two convolutions, with the condition added between them. */
function residual_block(W, name, x, cond) {
  const h = conv(W, `${name}.conv_1`, silu_of(group_norm(W, `${name}.norm_1`, x)));
  add_to_channels(h.data, linear(W, `${name}.condition`, cond));
  const change = conv(W, `${name}.conv_2`, silu_of(group_norm(W, `${name}.norm_2`, h)));
  const kept = W[`${name}.skip.weight`] ? conv(W, `${name}.skip`, x) : x;
  return { ...change, data: sum_of([1, kept.data], [1, change.data]) };
}

/** Residual attention among the pixels of a map, or from them to context tokens. */
function attention_block(W, name, x, context, heads) {
  const tokens = group_norm(W, `${name}.norm`, x);
  const attended = attention(W, `${name}.attention`, tokens, context ?? tokens, heads);
  return { ...x, data: sum_of([1, x.data], [1, attended]) };
}

/** softmax(q k^T / sqrt(d)) v of each head (Vaswani et al. 2017, eq. 1). */
function attention(W, name, x, context, heads) {
  const dim = x.C, N = x.H * x.W, M = context.H * context.W, d = dim / heads;
  const q = matrix(W[`${name}.query.weight`], x), both = matrix(W[`${name}.key_value.weight`], context);
  const merged = new Float32Array(dim * N), weights = new Float64Array(M);
  for (let head = 0; head < heads; head++)
    for (let n = 0; n < N; n++) {
      let largest = -Infinity, sum = 0;
      for (let m = 0; m < M; m++) {
        let score = 0;
        for (let i = head * d; i < (head + 1) * d; i++) score += q[i * N + n] * both[i * M + m];
        weights[m] = score / Math.sqrt(d);
        if (weights[m] > largest) largest = weights[m];
      }
      for (let m = 0; m < M; m++) sum += weights[m] = Math.exp(weights[m] - largest);
      for (let i = head * d; i < (head + 1) * d; i++) {
        let value = 0;
        for (let m = 0; m < M; m++) value += weights[m] * both[(dim + i) * M + m];
        merged[i * N + n] = value / sum;
      }
    }
  return add_to_channels(matrix(W[`${name}.output.weight`], { ...x, data: merged }), W[`${name}.output.bias`].data);
}

/** data (C, ...) += shift (C,). */
function add_to_channels(data, shift) {
  const pixels = data.length / shift.length;
  for (let c = 0, i = 0; c < shift.length; c++) for (const end = i + pixels; i < end; i++) data[i] += shift[c];
  return data;
}

/** weight (out, C) times the map's tokens: (out, H W). */
function matrix({ shape: [outputs, C], data }, x) {
  const N = x.H * x.W, out = new Float32Array(outputs * N);
  addmm(out, data, outputs, C, packed(C, N, (c, n) => x.data[c * N + n]), N);
  return out;
}

/** A convolution with 3x3 (padded by 1) or 1x1, as one matrix product with the pixels that each output sees. */
function conv(W, name, x, stride = 1) {
  const { shape: [outputs, C, side], data } = W[`${name}.weight`], pad = (side - 1) / 2, K = C * side * side;
  const H = x.H / stride, width = x.W / stride, N = H * width, seen = new Float32Array(Math.ceil(N / 4) * K * 4);
  for (let k = 0; k < K; k++) {
    const c = Math.floor(k / (side * side)), dy = (Math.floor(k / side) % side) - pad, dx = (k % side) - pad;
    const place = (n) => (n >> 2) * K * 4 + k * 4 + (n & 3); // as addmm wants it
    for (let y = 0, n = 0; y < H; y++) {
      const top = y * stride + dy, row = (c * x.H + top) * x.W, outside = top < 0 || top >= x.H;
      for (let left = dx; n < (y + 1) * width; left += stride, n++)
        if (!outside && left >= 0 && left < x.W) seen[place(n)] = x.data[row + left];
    }
    for (let n = N; n & 3; n++) seen[place(n)] = seen[place(N - 1)];
  }
  const out = add_to_channels(new Float32Array(outputs * N), W[`${name}.bias`].data);
  addmm(out, data, outputs, K, seen, N);
  return { C: outputs, H, W: width, data: out };
}

/** A transposed convolution with 2x2 and stride 2: each pixel becomes four. */
function conv_transpose(W, name, x) {
  const { shape: [C, outputs], data } = W[`${name}.weight`], bias = W[`${name}.bias`].data, rows = outputs * 4;
  const turned = Float32Array.from({ length: rows * C }, (_, i) => data[(i % C) * rows + Math.floor(i / C)]);
  const four = { C: rows, H: x.H, W: x.W, data: matrix({ shape: [rows, C], data: turned }, x) };
  const out = pixel_shuffle(four, 2);
  add_to_channels(out.data, bias);
  return out;
}

/** GroupNorm (Wu and He 2018) with the most groups, up to 8, that divide the channels into two or more each. */
function group_norm(W, name, x) {
  let groups = Math.min(8, Math.floor(x.C / 2));
  while (groups > 1 && x.C % groups) groups--;
  const out = new Float32Array(x.data.length), size = out.length / Math.max(groups, 1), pixels = x.H * x.W;
  const weight = W[`${name}.weight`].data, bias = W[`${name}.bias`].data;
  for (let start = 0; start < out.length; start += size) {
    let mean = 0, variance = 0;
    for (let i = start; i < start + size; i++) mean += x.data[i] / size;
    for (let i = start; i < start + size; i++) variance += (x.data[i] - mean) ** 2 / size;
    const scale = 1 / Math.sqrt(variance + 1e-5);
    for (let i = start; i < start + size; i++) {
      const c = Math.floor(i / pixels);
      out[i] = (x.data[i] - mean) * scale * weight[c] + bias[c];
    }
  }
  return { ...x, data: out };
}

const silu_of = (x) => ({ ...x, data: x.data.map(silu) });

/** The channels of two maps, one after the other. */
function joined(a, b) {
  const data = new Float32Array(a.data.length + b.data.length);
  data.set(a.data);
  data.set(b.data, a.data.length);
  return { ...a, C: a.C + b.C, data };
}

/** (C, H, W) -> (C p^2, H / p, W / p): squares of p x p pixels become channels. */
function pixel_unshuffle(x, p) {
  const small = { C: x.C * p * p, H: x.H / p, W: x.W / p, data: new Float32Array(x.data.length) };
  each_pixel(x, p, (large, at) => (small.data[at] = x.data[large]));
  return small;
}

/** The way back: (C p^2, H, W) -> (C, H p, W p). */
function pixel_shuffle(x, p) {
  const large = { C: x.C / p / p, H: x.H * p, W: x.W * p, data: new Float32Array(x.data.length) };
  each_pixel(large, p, (to, from) => (large.data[to] = x.data[from]));
  return large;
}

/** visit(place in a map, place in the same map with its squares of p x p as channels). */
function each_pixel({ C, H, W }, p, visit) {
  for (let c = 0, large = 0; c < C; c++)
    for (let y = 0; y < H; y++)
      for (let x = 0; x < W; x++, large++) {
        const channel = c * p * p + (y % p) * p + (x % p);
        visit(large, (channel * (H / p) + Math.floor(y / p)) * (W / p) + Math.floor(x / p));
      }
}

const NETWORKS = { unet, unet_small: unet };
