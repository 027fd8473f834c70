// What matters over all examples.

const FEW = 20;
let allFeatures = false;

async function drawOverview() {
  const part = meta.parts[state.part];
  const content = await loadOverall(state.part);
  const size = meta.outputs.length; // behind the outputs come all of them together and the highest of each example
  const scope = size === 1 ? 0 : state.everything ? size : state.output < 0 ? size + 1 : state.output;
  const whose = scope < size ? `output: ${meta.outputs[scope]}` : scope === size ? 'mean over all outputs' : `${highestName()} of each example`;
  const only = size > 1 ? `; ${whose}` : '';
  const image = part.kind === 'image';
  $('card-features').hidden = image;
  $('card-steps').hidden = part.kind === 'table' || image;
  $('card-map').hidden = part.kind === 'table' || part.features.length < 2;
  $('map-title').textContent = image ? 'Pixels' : 'Features and steps';
  document.querySelector('#overview .grid').classList.toggle('single', part.kind === 'table');
  if (!image) drawFeatures(part, content, scope, only);
  if (!$('card-steps').hidden) drawSteps(part, content, scope, only);
  if (!$('card-map').hidden) drawMap(part, content, scope, only);
  const beside = await loadBeside(state.part);
  drawGroups(part, beside, scope, only);
  drawScatter(part, beside, content, scope);
  drawFaithful();
}

const overall = new Map();

async function loadOverall(index) {
  if (!overall.has(index)) overall.set(index, await unpack(`overall-${index}`));
  return overall.get(index);
}

const measureName = () => (state.measure === 'size' ? 'mean |attribution|' : 'mean attribution');

function drawFeatures(part, content, scope, only) {
  const c = colours();
  const names = part.names;
  const cut = (name) => content[name].subarray(scope * names.length, (scope + 1) * names.length);
  const [size, direction] = [cut('feature_size'), cut('feature_signed')];
  const errors = content.feature_error && cut('feature_error'); // of the mean attribution
  const values = state.measure === 'size' ? size : direction;
  const order = Array.from(names.keys()).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
  const shown = allFeatures ? order : order.slice(0, FEW);
  const pixels = 22;
  const texts = part.kind === 'text';
  $('features-title').textContent = texts ? 'Words' : 'Features';
  $('features-lead').textContent =
    (texts ? `${measureName()} of all occurrences in an example` : `${measureName()}${part.kind === 'table' ? ' over the examples' : ': summed over the steps of each example, then the mean over the examples'}`) + only;
  draw(
    'chart-features',
    [{
      type: 'bar', orientation: 'h', y: shown.map((_, i) => i), x: shown.map((i) => values[i]), customdata: shown,
      marker: { color: state.measure === 'size' ? c.accent : bySign(shown.map((i) => values[i]), c) },
      ...whiskers('x', errors && values === direction && shown.map((i) => errors[i]), c),
    }],
    {
      height: shown.length * pixels + 30, margin: { l: margin(shown.map((i) => names[i])), r: 12, t: 4, b: 24 },
      xaxis: { ...sumAxis(c), fixedrange: true }, yaxis: { ...namedAxis(shown.map((i) => names[i]), pixels), fixedrange: true },
    },
    {
      label: `Bars: ${measureName()} by ${texts ? 'word' : 'feature'}`,
      tip: (point) => {
        const i = point.customdata;
        const often = part.counts ? [['occurrences', part.counts[i].toLocaleString('en')]] : [];
        return [names[i], ['mean |attribution|', number(size[i])], ['mean attribution', signed(direction[i])], ...errorLine(errors?.[i]), ...often];
      },
    },
  );
  moreButton('features-more', order.length, FEW, allFeatures, texts ? 'words' : 'features', () => {
    allFeatures = !allFeatures;
    drawOverview();
  });
}

/** A button that shows all of a list, or few. */
function moreButton(id, all, few, open, what, toggle) {
  $(id).hidden = all <= few;
  $(id).textContent = open ? `Show the first ${few}` : `Show all ${all.toLocaleString('en')} ${what}`.trim();
  $(id).onclick = toggle;
}

function drawSteps(part, content, scope, only) {
  const c = colours();
  const cut = (name) => content[name].subarray(scope * part.steps, (scope + 1) * part.steps);
  const [size, direction] = [cut('step_size'), cut('step_signed')];
  const values = state.measure === 'size' ? size : direction;
  $('steps-title').textContent = part.kind === 'text' ? 'Positions' : 'Steps';
  const rest = part.varied ? '; over the examples that have the step' : '';
  $('steps-lead').textContent = `${measureName()}${part.features.length > 1 ? ': summed over the features of each example, then the mean' : ''}${rest}${only}`;
  draw(
    'chart-steps',
    [stepBars(values, state.measure === 'size' ? c.accent : bySign(values, c))],
    { height: Math.max(220, Math.min(460, $('chart-features').clientHeight)), margin: { l: LEFT, r: 12, t: 8, b: below(part) }, xaxis: stepAxis(part), yaxis: { ...sumAxis(c), nticks: 6 } },
    {
      part, label: `Bars: ${measureName()} by step`,
      tip: ({ x }) => [
        `step ${stepName(part, x)}`, ['mean |attribution|', number(size[x])], ['mean attribution', signed(direction[x])],
        ['examples', part.stepRows[x].toLocaleString('en')],
      ],
    },
  );
}

function drawMap(part, content, scope, only) {
  const c = colours();
  const cells = part.steps * part.features.length;
  const [size, direction] = ['size', 'signed'].map((name) => lines(fromDecimal(content, name, scope * cells, cells), part.features.length));
  const z = transposed(state.measure === 'size' ? size : direction);
  const limit = Math.max(...z.map(largest)) || 1;
  const positive = state.measure === 'size';
  const image = part.kind === 'image';
  const pixels = image ? Math.min(24, 560 / part.features.length) : lineHeight(part.features.length);
  $('map-lead').textContent = `${measureName()}${part.varied ? '; over the examples that have the step' : ''}${only}.`;
  legend('map-legend', limit, positive ? 'sequential' : 'diverging');
  draw(
    'chart-map',
    [heatTrace(z, positive ? 0 : -limit, limit, positive ? sequential(c) : diverging(c), part.steps)],
    {
      height: part.features.length * pixels + 8 + below(part), margin: { l: margin(part.features), r: 12, t: 6, b: below(part) },
      xaxis: { ...stepAxis(part), ...(image ? { constrain: 'domain' } : {}) }, yaxis: { ...namedAxis(part.features, pixels), ...(image ? SQUARE : {}) },
    },
    {
      part, label: `Heat map: ${measureName()} by feature and step`,
      tip: ({ x, y }) => [
        ...placeOf(part, x, y), ['mean |attribution|', number(size[x][y])],
        ['mean attribution', signed(direction[x][y])], ['examples', part.stepRows[x].toLocaleString('en')],
      ],
    },
  );
}

/** A table of counts, true by predicted; a number leads to its examples. */
function makeConfusion() {
  $('card-confusion').hidden = !meta.confusion;
  if (!meta.confusion) return;
  const { names, counts } = meta.confusion;
  const show = (t, p) => {
    $('filter-true').value = names[t];
    $('filter-predicted').value = names[p];
    $('filter-wrong').value = '';
    $('search').value = '';
    fromTop();
    choose({ view: 'examples', example: order[0] ?? state.example });
  };
  const shown = (t, p) => meta.true.some((one, row) => one === names[t] && meta.predicted[row] === names[p]);
  const cell = (line, t) => (n, p) => element('td', { class: t === p ? 'hit' : 'miss', style: `--shade:${Math.round((100 * n) / Math.max(1, ...line))}%` },
    n && shown(t, p) ? element('button', { type: 'button', 'aria-label': `${n} of ${names[t]} predicted as ${names[p]}`, onclick: () => show(t, p) }, n.toLocaleString('en')) : n ? n.toLocaleString('en') : '');
  $('confusion').replaceChildren(
    element('thead', {}, element('tr', {}, element('th', {}, 'true \u2193  predicted \u2192'), ...names.map((name) => element('th', { scope: 'col', title: name }, short(name, 14))))),
    element('tbody', {}, ...counts.map((line, t) => element('tr', {}, element('th', { scope: 'row', title: names[t] }, short(names[t], 22)), ...line.map(cell(line, t))))),
  );
}

function heatTrace(z, zmin, zmax, colorscale, steps) {
  const gap = steps <= 60 && z.length <= 30 ? 1 : 0;
  return { type: 'heatmap', z, zmin, zmax, colorscale, showscale: false, xgap: gap, ygap: gap };
}
