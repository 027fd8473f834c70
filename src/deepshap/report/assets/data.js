// What the page holds: the descriptions, the numbers of all rows, and packed examples that are unpacked when chosen.

const $ = (id) => document.getElementById(id);
const meta = JSON.parse($('meta').textContent);
const count = meta.rows.length;
const KEPT = 24; // unpacked examples

async function readAll(reader) {
  const chunks = [];
  for (let next = await reader.read(); !next.done; next = await reader.read()) chunks.push(next.value);
  return chunks;
}

async function gunzip(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const { readable, writable } = new DecompressionStream('gzip');
  const writer = writable.getWriter();
  const written = writer.write(bytes).then(() => writer.close());
  const [chunks] = await Promise.all([readAll(readable.getReader()), written]);
  const whole = new Uint8Array(chunks.reduce((size, chunk) => size + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

const TYPES = { float32: Float32Array, float64: Float64Array, int16: Int16Array };

/** Read a packed blob (page.py): {name: typed array or JSON}. */
async function unpack(id) {
  const bytes = await gunzip($(`data-${id}`).textContent);
  const headed = 4 + new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, headed)));
  const content = {};
  let at = headed;
  for (const [name, item] of Object.entries(header)) {
    const part = bytes.subarray(at, at + item.bytes);
    at += item.bytes;
    content[name] = item.type === 'json' ? JSON.parse(new TextDecoder().decode(part)) : typed(part, TYPES[item.type]);
  }
  return content;
}

/** Put the bytes of each number side by side again. */
function typed(bytes, Type) {
  const width = Type.BYTES_PER_ELEMENT;
  const length = bytes.length / width;
  const whole = new Uint8Array(bytes.length);
  for (let b = 0; b < width; b++) {
    for (let i = 0, from = b * length; i < length; i++) whole[i * width + b] = bytes[from + i];
  }
  return new Type(whole.buffer);
}

/** Numbers from their decimal digits: mantissa * 10 ** exponent, correctly rounded. */
function fromDecimal(content, name, start, length) {
  const mantissa = content[`${name}_mantissa`];
  const exponent = content[`${name}_exponent`];
  const values = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    const power = exponent[start + i];
    const digits = mantissa[start + i];
    values[i] = power < -300 ? digits * 10 ** power : power < 0 ? digits / 10 ** -power : digits * 10 ** power;
  }
  return values;
}

/** Cut a flat array into lines. */
function lines(flat, width) {
  const cut = [];
  for (let at = 0; at < flat.length; at += width) cut.push(flat.slice(at, at + width));
  return cut;
}

function transposed(matrix) {
  return matrix.length ? Array.from(matrix[0], (_, j) => Float64Array.from(matrix, (line) => line[j])) : [];
}

const unpacked = new Map();

/** The unpacked example in position `row` of the page; the last few are kept. */
async function loadExample(row) {
  const found = unpacked.get(row) ?? (await unpack(`example-${row}`));
  unpacked.delete(row);
  unpacked.set(row, found);
  if (unpacked.size > KEPT) unpacked.delete(unpacked.keys().next().value);
  return found;
}

/** One input of an example for one output: values by step and feature, sums, data, labels. */
function partOf(content, row, index, output) {
  const part = meta.parts[index];
  const steps = part.lengths[row];
  const features = part.features.length;
  const at = (name, size) => content[`${name}${index}`].subarray(output * size, (output + 1) * size);
  const data = content[`data${index}`];
  return {
    ...part,
    steps,
    labels: content[`labels${index}`] ?? part.labels,
    values: lines(fromDecimal(content, `values${index}`, output * steps * features, steps * features), features),
    bySteps: at('steps', steps),
    byFeatures: at('features', features),
    errors: content[`errors${index}`] && lines(at('errors', steps * features), features),
    stepErrors: content[`errors${index}`] && at('stepErrors', steps),
    featureErrors: content[`errors${index}`] && at('featureErrors', features),
    stepsOf: (k) => content[`steps${index}`].subarray(k * steps, (k + 1) * steps),
    data: data && lines(Array.from(data), features),
  };
}
