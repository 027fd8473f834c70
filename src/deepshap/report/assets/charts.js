// The house style of pictures, hover texts, and zoom that pictures share.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const CONFIG = {
  displaylogo: false,
  plotlyServerURL: '',
  showTips: false,
  doubleClick: 'reset',
  doubleClickDelay: 300,
  toImageButtonOptions: { filename: 'explanation', scale: 2 },
  modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']],
};
const LINKED = [['chart-heat', 'chart-build', 'chart-signals'], ['chart-steps', 'chart-map']]; // share the axis of steps
const NARROW = 620;
const DOUBLE_CLICK = 320; // milliseconds
const PAPER = 640; // pixels that fit a sheet
const SQUARE = { scaleanchor: 'x', constrain: 'domain' }; // pixels of images
const STEPS = [[0, '#7454c0'], [0.45, '#c2477f'], [0.75, '#fb8761'], [1, '#f5b041']]; // early to late
const LEFT = 66; // room for numbers
const FIGURE_SPACE = '\u2007'; // as wide as a digit

/** Colours of the theme, as the style sheet has them. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ['ink', 'muted', 'line', 'surface', 'red', 'blue', 'accent', 'faint'];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const diverging = (c) => [[0, c.blue], [0.5, c.surface], [1, c.red]];
const sequential = (c) => [[0, c.surface], [1, c.accent]];
const bySign = (values, c) => Array.from(values, (value) => (value < 0 ? c.blue : c.red));

const drawn = new Map(); // id -> what its picture answers to

/** Draw or redraw a picture. tip(point) gives lines of the hover text; part makes the ticks of the steps. */
function draw(id, traces, layout, { tip, click, label, part } = {}) {
  const c = colours();
  const chart = $(id);
  const first = !drawn.has(id);
  drawn.set(id, { tip, click, part });
  chart.setAttribute('aria-label', label ?? '');
  const full = {
    font: { family: FONT, size: 12, color: c.muted },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    modebar: { bgcolor: 'rgba(0,0,0,0)', color: c.muted, activecolor: c.ink, orientation: 'h' },
    hovermode: 'closest',
    dragmode: matchMedia('(pointer: coarse)').matches ? 'pan' : 'zoom',
    showlegend: false,
    bargap: 0.15,
    ...layout,
  };
  for (const [name, axis] of Object.entries(full)) {
    if (/^[xy]axis\d*$/.test(name)) full[name] = { ...plainAxis(c), ...axis };
  }
  if (part) Object.assign(full.xaxis, stepTicks(part, full.xaxis.range, chart.clientWidth));
  chart.style.height = `${full.height}px`;
  chart.style.setProperty('--heading', `${chart.offsetTop - chart.closest('.card').querySelector('h3').offsetTop}px`);
  full.width = 'print' in document.documentElement.dataset ? PAPER : chart.clientWidth;
  Plotly.react(chart, traces.map((trace) => ({ hoverinfo: 'none', ...trace })), full, CONFIG);
  if (first) listen(chart, id);
}

function plainAxis(c) {
  return {
    gridcolor: c.line, zerolinecolor: c.line, linecolor: c.line, zeroline: false, showgrid: false,
    exponentformat: 'power', ticks: '', tickfont: { color: c.muted }, title: { font: { color: c.muted } }, automargin: false,
  };
}

function listen(chart, id) {
  chart.on('plotly_hover', (event) => {
    const lines = drawn.get(id).tip?.(event.points[0]);
    if (lines) showTip(lines, event.event);
  });
  chart.on('plotly_unhover', hideTip);
  let waiting; // a click may be the first half of a double click, which zooms out
  chart.on('plotly_click', (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => drawn.get(id).click?.(event.points[0]), DOUBLE_CLICK);
  });
  chart.on('plotly_doubleclick', () => setTimeout(() => clearTimeout(waiting)));
  chart.on('plotly_relayout', (change) => {
    if (Object.keys(change).some((key) => key.startsWith('xaxis.') && !key.includes('tick'))) zoomed(chart, id);
  });
}

let zooming = false;

/** Give the pictures that share the steps the range of the one that was zoomed, and all of them ticks that fit. */
async function zoomed(chart, id) {
  const { part } = drawn.get(id);
  if (zooming || !part) return;
  zooming = true;
  const range = [...chart.layout.xaxis.range];
  const group = LINKED.find((ids) => ids.includes(id)) ?? [id];
  for (const other of group.map($).filter((each) => drawn.has(each.id) && each.clientWidth)) {
    const ticks = stepTicks(part, range, other.clientWidth);
    const change = { 'xaxis.range': range, 'xaxis.tickvals': ticks.tickvals, 'xaxis.ticktext': ticks.ticktext };
    await Plotly.relayout(other, change);
  }
  zooming = false;
}

// ---------------------------------------------------------------- axes
/** Ticks at whole steps, as many as there is room for; of labelled ones the last has a tick, whose label ends there. */
function stepTicks(part, range, width) {
  const [low, high] = [Math.max(0, Math.ceil(range[0])), Math.min(part.steps - 1, Math.floor(range[1]))];
  const longest = part.labels ? Math.min(19, Math.max(1, ...part.labels.map((label) => String(label).length))) : 4;
  const most = Math.max(2, Math.floor((width - 120) / (longest * 7 + 18)));
  const every = roundStep((high - low + 1) / most);
  const tickvals = [];
  for (let step = Math.ceil(low / every) * every; step <= high; step += every) tickvals.push(step);
  const ticktext = tickvals.map((step) => plotText(stepName(part, step), 19));
  const apart = (1.5 * (high - low + 1)) / most;
  while (part.labels && tickvals.length > 1 && high - tickvals.at(-1) < apart) [tickvals, ticktext].forEach((each) => each.pop());
  if (part.labels && high - tickvals.at(-1) >= apart) {
    const name = stepName(part, high);
    tickvals.push(high);
    ticktext.push(plotText(name, 19) + FIGURE_SPACE.repeat(Math.min(19, name.length))); // what is centred ends in its middle
  }
  return { tickmode: 'array', tickvals, ticktext, tickangle: 0 };
}

function roundStep(least) {
  for (let power = 1; ; power *= 10) {
    for (const factor of [1, 2, 5]) if (factor * power >= least) return factor * power;
  }
}

const stepRange = (part) => [-0.5, part.steps - 0.5];

function stepAxis(part) {
  const title = part.kind === 'text' ? 'position' : part.kind === 'image' ? '' : meta.timeLabel ? plotText(meta.timeLabel, 60) : part.labels ? '' : 'step';
  return { range: stepRange(part), title: { text: title, standoff: 6 }, minallowed: -0.5, maxallowed: part.steps - 0.5 };
}

/** Room below the axis of steps: for the ticks, and for its title if it has one. */
const below = (part) => (part.labels && part.kind !== 'text' && !meta.timeLabel ? 26 : 42);

/** An axis with one line per name, the first on top. */
function namedAxis(names, pixels, most = nameRoom()) {
  const every = Math.max(1, Math.ceil(13 / pixels));
  const shown = names.map((_, i) => i).filter((i) => i % every === 0);
  return {
    range: [names.length - 0.5, -0.5], tickmode: 'array',
    tickvals: shown, ticktext: shown.map((i) => plotText(names[i], most)),
  };
}

/** How many letters of a name there is room for. */
const nameRoom = () => ($('main').clientWidth < NARROW ? 13 : 30);

/** Room for the longest of the names, in pixels. */
function margin(names, most = nameRoom()) {
  const longest = Math.max(3, ...names.map((name) => Math.min(most, name.length)));
  return 14 + longest * 6.6;
}

/** Axis for sums, with a line at zero and few ticks. */
function sumAxis(c) {
  return { zeroline: true, zerolinecolor: c.muted, showgrid: true, nticks: 4, fixedrange: true, tickfont: { size: 11, color: c.muted } };
}

const lineHeight = (lines) => Math.max(5, Math.min(26, 560 / lines));

/** Bars of one number per step: touching where they are many. */
function stepBars(values, colour, axes = {}) {
  return {
    type: 'bar', x: Array.from(values, (_, step) => step), y: Array.from(values),
    marker: { color: colour, line: { width: 0 } }, width: values.length > 120 ? 1 : 0.86, ...axes,
  };
}

// ---------------------------------------------------------------- standard errors
const SURE = 2; // standard errors that whiskers show, and below which cells are dotted

/** Whiskers of bars, where errors are known. */
function whiskers(axis, errors, c) {
  return errors ? { [`error_${axis}`]: { type: 'data', array: Array.from(errors, (error) => SURE * error), color: c.ink, thickness: 1, width: 2 } } : {};
}

/** Dots on the cells of a heat map that are less than two standard errors from zero. */
function dots(part, c) {
  const unsure = (part.errors ?? []).flatMap((line, step) => Array.from(line.keys(), (feature) => [step, feature])
    .filter(([x, y]) => Math.abs(part.values[x][y]) < SURE * line[y]));
  return { type: 'scatter', mode: 'markers', x: unsure.map(([x]) => x), y: unsure.map(([, y]) => y), marker: { size: 3, color: c.muted } };
}

/** Lines of a hover text. */
const errorLine = (error) => (error === undefined ? [] : [['standard error', number(error, 2)]]);

// ---------------------------------------------------------------- hover texts
/** Show a heading and pairs of name and value beside the pointer. */
function showTip([heading, ...pairs], event) {
  const tip = $('tip');
  const list = element('dl', {}, ...pairs.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
  tip.replaceChildren(element('strong', {}, heading), list);
  tip.hidden = false;
  const { clientX: x, clientY: y } = event;
  const { offsetWidth: width, offsetHeight: height } = tip;
  tip.style.left = `${Math.max(4, x + 16 + width < innerWidth ? x + 16 : x - width - 12)}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 12, innerHeight - height - 4))}px`;
}

function hideTip() {
  $('tip').hidden = true;
}

/** A slim scale of colours with its numbers. */
function legend(id, limit, scale = 'diverging') {
  const low = scale === 'diverging' ? number(-limit) : '0';
  $(id).replaceChildren(low, element('i', { class: scale, 'aria-hidden': 'true' }), scale === 'diverging' ? signed(limit) : number(limit));
}

/** What a cell of a map is: heading and first line of its hover text. */
const placeOf = (part, x, y) => (part.kind === 'image' ? [`pixel ${x}, ${y}`] : [part.features[y], ['step', stepName(part, x)]]);

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
