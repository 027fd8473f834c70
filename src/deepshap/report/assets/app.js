// What is chosen, and what follows from it.

const state = {
  view: 'overview', example: 0, output: 0, part: 0, sort: 'id', descending: false, measure: 'size', everything: true,
};
let rows; // numbers of all examples: outputs, base, total, total_abs, gap, error, targets

/** Choose anything; the page follows. */
function choose(change) {
  const before = { ...state };
  Object.assign(state, change);
  const changed = (...names) => names.some((name) => state[name] !== before[name]);
  if (changed('part')) forgetPins();
  if (changed('example') && before.view === 'overview' && !('view' in change)) state.view = 'examples';
  hideTip();
  show(changed);
}

function show(changed) {
  for (const view of ['overview', 'examples']) {
    $(view).hidden = state.view !== view;
    $(`tab-${view}`).setAttribute('aria-selected', String(state.view === view));
    $(`tab-${view}`).tabIndex = state.view === view ? 0 : -1;
  }
  const everything = $('output').querySelector('[value=all]');
  if (everything) everything.hidden = everything.disabled = state.view !== 'overview'; // a single example is of one output
  $('output').value = state.view === 'overview' && state.everything ? 'all' : String(state.output);
  $('part').value = String(state.part);
  for (const button of $('measure').children) button.setAttribute('aria-pressed', String(button.dataset.value === state.measure));
  if (changed('output')) refreshTable();
  if (changed('view', 'example', 'output') && state.view === 'examples') revealChosen();
  writeHash();
  return state.view === 'overview' ? drawOverview() : drawExample();
}

// ---------------------------------------------------------------- the address
function writeHash() {
  const parts = [`example=${encodeURIComponent(meta.rows[state.example])}`];
  if (meta.outputs.length > 1) parts.push(`output=${state.output < 0 ? 'highest' : state.output}`);
  if (meta.parts.length > 1) parts.push(`input=${state.part}`);
  const hash = state.view === 'examples' ? `#${parts.join('&')}` : '#overview';
  if (location.hash !== hash && (location.hash || hash !== '#overview')) history.replaceState(null, '', hash);
}

function readHash() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const within = (name, size, fallback) => {
    const value = Number(asked.get(name) ?? NaN);
    return Number.isInteger(value) && value >= 0 && value < size ? value : fallback;
  };
  const row = meta.rows.indexOf(Number(asked.get('example') ?? NaN));
  return {
    view: asked.has('example') ? 'examples' : 'overview',
    example: row < 0 ? state.example : row,
    output: meta.comparable && asked.get('output') === 'highest' ? -1 : within('output', meta.outputs.length, state.output),
    part: within('input', meta.parts.length, state.part),
  };
}

// ---------------------------------------------------------------- light and dark
const THEME = 'deepshap-theme';
const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const isDark = () => (document.documentElement.dataset.theme ?? (prefersDark.matches ? 'dark' : 'light')) === 'dark';

function remembered() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null; // a browser may forbid files to keep anything
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(THEME, theme);
  } catch {
    // then it holds for this visit
  }
  redraw();
}

function redraw() {
  return state.view === 'overview' ? drawOverview() : drawExample();
}

// ---------------------------------------------------------------- keyboard
const KEYS = {
  ArrowDown: () => choose({ view: 'examples', example: neighbour(1) }),
  ArrowUp: () => choose({ view: 'examples', example: neighbour(-1) }),
  ArrowRight: () => turnOutput(1),
  ArrowLeft: () => turnOutput(-1),
  '/': () => {
    choose({ view: 'examples' });
    $('search').focus();
  },
  '?': () => $('help').showModal(),
  o: () => choose({ view: 'overview' }),
  e: () => choose({ view: 'examples' }),
  t: () => setTheme(isDark() ? 'light' : 'dark'),
};
KEYS.j = KEYS.ArrowDown;
KEYS.k = KEYS.ArrowUp;

function turnOutput(by) {
  const first = meta.comparable ? -1 : 0;
  const size = meta.outputs.length - first;
  choose({ output: first + ((state.output - first + by + size) % size), everything: false });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $('help').open) return;
  const typing = event.target.matches('input[type=search], select');
  if (typing && event.key === 'Escape') event.target.blur();
  if (typing && !(event.target.id === 'search' && ['ArrowDown', 'ArrowUp'].includes(event.key))) return;
  if (event.target.matches('[role=tab]') && event.key.startsWith('Arrow')) return turnTab();
  if (state.view === 'overview' && ['ArrowDown', 'ArrowUp'].includes(event.key)) return; // they scroll
  if (!KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
}

function turnTab() {
  choose({ view: state.view === 'overview' ? 'examples' : 'overview' });
  $(`tab-${state.view}`).focus();
}

// ---------------------------------------------------------------- start
let resizing;
let pointed = false; // with mouse or finger, not by keyboard

function wire() {
  const options = (names) => names.map((name, i) => element('option', { value: i, title: name }, short(name, 22)));
  const all = meta.outputs.length > 1 ? [element('option', { value: 'all' }, 'all outputs')] : [];
  $('output').replaceChildren(...all, ...(meta.comparable ? [element('option', { value: -1 }, highestName())] : []), ...options(meta.outputs));
  $('part').replaceChildren(...options(meta.parts.map((part) => part.name)));
  $('output-field').hidden = meta.outputs.length < 2;
  $('part-field').hidden = meta.parts.length < 2;
  $('notice').hidden = !$('notice').textContent.trim();
  $('output').onchange = () => choose($('output').value === 'all' ? { everything: true } : { output: Number($('output').value), everything: false });
  $('part').onchange = () => choose({ part: Number($('part').value) });
  for (const view of ['overview', 'examples']) $(`tab-${view}`).onclick = () => choose({ view });
  for (const button of $('measure').children) button.onclick = () => choose({ measure: button.dataset.value });
  $('previous').onclick = () => choose({ example: neighbour(-1) });
  $('next').onclick = () => choose({ example: neighbour(1) });
  for (const id of ['same-scale', 'compare']) $(id).onchange = redraw;
  $('theme').onclick = KEYS.t;
  $('help-open').onclick = KEYS['?'];
  document.addEventListener('keydown', onKey);
  prefersDark.addEventListener('change', redraw);
  window.addEventListener('hashchange', () => choose(readHash()));
  window.addEventListener('scroll', hideTip, { passive: true });
  window.addEventListener('resize', () => {
    clearTimeout(resizing);
    resizing = setTimeout(redraw, 120);
  });
  document.addEventListener('pointerdown', () => (pointed = true), { capture: true });
  document.addEventListener('keydown', () => (pointed = false), { capture: true });
  document.addEventListener('change', (event) => pointed && event.target.matches('select') && event.target.blur()); // free the keys
  window.addEventListener('beforeprint', () => printed(true));
  window.addEventListener('afterprint', () => printed(false));
}

/** Pictures for paper are drawn in light colours and no wider than a sheet. */
function printed(starts) {
  if (starts) document.documentElement.dataset.print = '';
  else delete document.documentElement.dataset.print;
  redraw();
}

/** Start with the worst prediction, or else with the first example, and the input of the largest influence; for classes with the predicted one. */
function start() {
  if (rows.error) Object.assign(state, { sort: 'error', descending: meta.errorName === 'error' });
  if (meta.comparable && meta.true) state.output = -1;
  refreshTable();
  state.example = order[0];
  state.part = meta.largestPart;
  Object.assign(state, readHash());
  refreshTable();
}

async function main() {
  const theme = remembered();
  if (theme) document.documentElement.dataset.theme = theme;
  rows = await unpack('rows');
  makeTable();
  makeConfusion();
  makeBeside();
  wire();
  start();
  await show(() => true);
  document.body.dataset.ready = '';
}

main().catch((error) => {
  const old = typeof DecompressionStream === 'undefined';
  $('failure').hidden = false;
  $('failure').textContent = old
    ? 'This browser is too old to unpack the report: Chrome or Edge 80, Firefox 113, Safari 16.4 or later can.'
    : `The report could not be shown: ${error.message}`;
  if (!old) throw error;
});
