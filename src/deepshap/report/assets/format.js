// Numbers and texts as people read them. Texts of the user reach the page as textContent only, and pictures as plotText.

const MINUS = '\u2212';

/** A number with four significant digits (or as many as asked), without zeros at the end unless they are kept. */
function number(value, digits = 4, zeros = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (typeof value === 'string') return value;
  if (!Number.isFinite(value)) return value > 0 ? '∞' : `${MINUS}∞`;
  const size = Math.abs(value);
  let text = value.toPrecision(digits);
  if (size !== 0 && (size < 1e-4 || Number(size.toPrecision(digits)) >= 10 ** digits)) text = value.toExponential(digits - 1);
  else if (text.includes('.') && !zeros) text = text.replace(/\.?0+$/, '');
  return text.replace(/\.?0*e\+?/, 'e').replace(/-/g, MINUS);
}

const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));

/** A value of the data; large ones, such as prices and years, with more digits. */
const datum = (value) => number(value, Math.abs(value) >= 1000 ? 6 : 4);

const stepName = (part, step) => (part.labels ? String(part.labels[step]) : String(step));

/** A text of at most so many letters, cut in the middle: names often differ at the end only. */
function short(text, most) {
  const letters = Array.from(text);
  const tail = Math.floor(most / 3);
  return letters.length > most ? `${letters.slice(0, most - tail - 1).join('')}…${letters.slice(letters.length - tail).join('')}` : text;
}

/** Text inside a picture, where the charting library would read tags and entities. */
function plotText(text, most = 26) {
  return short(text, most).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
}

const plural = (n, word) => `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;

/** An element with attributes and children; strings become text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const TAIL = 9; // letters, as wide as the style sheet has it

/** A name in a box of the page; where the box is too narrow, the middle is left out, as in short(). */
function named(name) {
  const letters = Array.from(String(name));
  if (letters.length <= 2 * TAIL) return String(name);
  return element('span', { class: 'cut' }, element('span', {}, letters.slice(0, -TAIL).join('')), letters.slice(-TAIL).join(''));
}

/** The output that is explained for an example: the chosen one, or its highest. */
function outputOf(row) {
  if (state.output >= 0) return state.output;
  const size = meta.outputs.length;
  const values = rows.outputs.subarray(row * size, (row + 1) * size);
  return values.indexOf(Math.max(...values));
}

const highestName = () => (meta.true ? 'predicted output' : 'highest output');

/** The name of an example: its id, with a word before bare numbers. */
const exampleName = (row) => (/^\d+$/.test(meta.ids[row]) ? `Example ${meta.ids[row]}` : meta.ids[row]);

const outputName = (row, output) => (meta.ranked ? meta.ranked[row][output] : meta.outputs[output]);
