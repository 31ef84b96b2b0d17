// Numbers out of base64, sums of arrays, random numbers, and the matrix product in which all of the time is spent.

/** The bytes that a base64 text stands for. */
function bytes_of(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** float16 as numbers: 1 bit of sign, 5 of exponent, 10 of fraction (IEEE 754, little-endian). */
function halves(base64) {
  const bits = new Uint16Array(bytes_of(base64).buffer);
  return Float32Array.from(bits, (half) => {
    const exponent = (half >> 10) & 31, fraction = half & 1023;
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
    return half >> 15 ? -size : size;
  });
}

const floats = (base64) => new Float32Array(bytes_of(base64).buffer);
const doubles = (base64) => new Float64Array(bytes_of(base64).buffer);

/** A weight as page_contents.py packs it: {shape, data}. int8 has a scale for each row of its first dimension. */
function unpacked(part) {
  if (part.half !== undefined) return { shape: part.shape, data: halves(part.half) };
  const scale = floats(part.scale), whole = new Int8Array(bytes_of(part.int8).buffer);
  const width = whole.length / scale.length;
  return { shape: part.shape, data: Float32Array.from(whole, (w, i) => w * scale[Math.floor(i / width)]) };
}

/** a x + b y + ...: sum_of([a, x], [b, y]), of arrays of one length. */
function sum_of(...terms) {
  const sum = new Float32Array(terms[0][1].length);
  for (const [a, x] of terms) for (let i = 0; i < sum.length; i++) sum[i] += a * x[i];
  return sum;
}

const silu = (x) => x / (1 + Math.exp(-x));

/** Standard normal numbers, one a call, a function of the seed (mulberry32, then Box and Muller 1958). */
function normals(seed) {
  const uniform = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let bits = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

const noise_like = (x, random) => Float32Array.from(x, () => random());

/** B (K, N), whose element (k, n) is at(k, n), as `addmm` wants it: four columns side by side, the last one repeated. */
function packed(K, N, at) {
  const panels = new Float32Array(Math.ceil(N / 4) * K * 4);
  for (let n = 0, i = 0; n < N; n += 4)
    for (let k = 0; k < K; k++)
      for (let q = 0; q < 4; q++) panels[i++] = at(k, Math.min(n + q, N - 1));
  return panels;
}

/**
 * out += A B: A (M, K), B (K, N) packed, out (M, N). Four rows by four columns at a time, so that each number that is
 * read serves four products. Beyond an edge the last row or column is computed once more.
 */
function addmm(out, A, M, K, B, N) {
  for (let n = 0; n < N; n += 4) {
    const n1 = Math.min(n + 1, N - 1), n2 = Math.min(n + 2, N - 1), n3 = Math.min(n + 3, N - 1);
    for (let m = 0; m < M; m += 4) {
      const m1 = Math.min(m + 1, M - 1), m2 = Math.min(m + 2, M - 1), m3 = Math.min(m + 3, M - 1);
      let c00 = 0, c01 = 0, c02 = 0, c03 = 0, c10 = 0, c11 = 0, c12 = 0, c13 = 0;
      let c20 = 0, c21 = 0, c22 = 0, c23 = 0, c30 = 0, c31 = 0, c32 = 0, c33 = 0;
      const a0 = m * K, a1 = m1 * K, a2 = m2 * K, a3 = m3 * K;
      for (let k = 0, b = n * K; k < K; k++, b += 4) {
        const b0 = B[b], b1 = B[b + 1], b2 = B[b + 2], b3 = B[b + 3];
        let a = A[a0 + k];
        c00 += a * b0; c01 += a * b1; c02 += a * b2; c03 += a * b3;
        a = A[a1 + k];
        c10 += a * b0; c11 += a * b1; c12 += a * b2; c13 += a * b3;
        a = A[a2 + k];
        c20 += a * b0; c21 += a * b1; c22 += a * b2; c23 += a * b3;
        a = A[a3 + k];
        c30 += a * b0; c31 += a * b1; c32 += a * b2; c33 += a * b3;
      }
      // read before anything is written: of what lies beyond an edge, two are the same number
      const o = m * N, o1 = m1 * N, o2 = m2 * N, o3 = m3 * N;
      c00 += out[o + n]; c01 += out[o + n1]; c02 += out[o + n2]; c03 += out[o + n3];
      c10 += out[o1 + n]; c11 += out[o1 + n1]; c12 += out[o1 + n2]; c13 += out[o1 + n3];
      c20 += out[o2 + n]; c21 += out[o2 + n1]; c22 += out[o2 + n2]; c23 += out[o2 + n3];
      c30 += out[o3 + n]; c31 += out[o3 + n1]; c32 += out[o3 + n2]; c33 += out[o3 + n3];
      out[o + n] = c00; out[o + n1] = c01; out[o + n2] = c02; out[o + n3] = c03;
      out[o1 + n] = c10; out[o1 + n1] = c11; out[o1 + n2] = c12; out[o1 + n3] = c13;
      out[o2 + n] = c20; out[o2 + n1] = c21; out[o2 + n2] = c22; out[o2 + n3] = c23;
      out[o3 + n] = c30; out[o3 + n1] = c31; out[o3 + n2] = c32; out[o3 + n3] = c33;
    }
  }
}
