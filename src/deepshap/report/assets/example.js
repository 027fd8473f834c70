// The chosen example: heat map, words, build-up, signals.

const FEW_SIGNALS = 5;
const FEW_CELLS = 12;
const FEW_BARS = 20;
const MOST_COMPARED = 12; // outputs drawn beside the chosen one
let pinned = []; // features whose signals the user asked for
let moreSignals = 0;
let allCells = false;
let allBars = false;

function forgetPins() {
  [pinned, moreSignals] = [[], 0];
}

async function drawExample() {
  const { example: row, part: index } = state;
  const output = outputOf(row);
  const [content] = await Promise.all([loadExample(row), loadOverall(index)]);
  if (row !== state.example || output !== outputOf(row) || index !== state.part) return; // chosen anew meanwhile
  const part = partOf(content, row, index, output);
  describeExample(part, row, output);
  drawSum(row, output);
  drawOutputs(row, output);
  const image = part.kind === 'image';
  for (const id of ['heat', 'build', 'signals']) $(`card-${id}`).hidden = part.kind === 'table' || (image && id !== 'heat');
  $('heat-lead').textContent = image && part.data ? '; below it, the input in greys' : '';
  $('card-waterfall').hidden = part.kind !== 'table';
  $('card-words').hidden = part.kind !== 'text';
  if (part.kind === 'table') drawWaterfall(part, row, output);
  else if (image) drawImage(part);
  else {
    if (part.kind === 'text') drawWords(part);
    drawBuild(part, row, output);
    $('card-heat').hidden = part.kind === 'text';
    $('card-signals').hidden = part.kind === 'text' || !part.data;
    if (part.kind === 'sequence') drawHeat(part);
    if (!$('card-signals').hidden) drawSignals(part);
  }
  drawBeside(content, row, output);
  drawTop(part);
  document.body.dataset.shown = `${row}/${output}/${index}`;
}

// ---------------------------------------------------------------- words and numbers
function describeExample(part, row, output) {
  $('example-title').textContent = exampleName(row);
  const said = [];
  if (meta.predicted) said.push(`${meta.predictedLabel}: ${meta.predicted[row]}`);
  if (meta.true) said.push(`${meta.predicted ? 'true' : 'target'}: ${datum(meta.true[row])}`);
  if (meta.wrong) said.push(meta.wrong[row] ? 'wrong ✗' : 'right ✓');
  if (part.varied) said.push(part.words ? plural(part.words[row], 'word') : plural(part.steps, 'step'));
  said.push(`explained: ${meta.outputs.length === 1 && meta.explained ? explainedName(row, output) : outputName(row, output)}`);
  $('example-lead').textContent = said.join(' · ');
}

/** base value + attributions = output. */
function drawSum(row, output) {
  const at = row * meta.outputs.length + output;
  const term = (name, value, sign = '') =>
    element('span', { class: 'term' }, element('small', {}, name), element('b', { 'data-value': name, class: sign }, value));
  const total = rows.total[at];
  const terms = [term('attributions', signed(total), total < 0 ? 'negative' : 'positive')];
  if (meta.baseKnown) {
    terms.unshift(term('base value', number(rows.base[at])), element('span', { class: 'op' }, '+'));
    terms.push(element('span', { class: 'op' }, '='), term('output', number(rows.outputs[at])));
  }
  const quality = [];
  if (rows.targets) quality.push(term('target', number(rows.targets[at])));
  if (rows.error) quality.push(term(meta.errorName, number(rows.error[row])));
  if (rows.gap) quality.push(term('gap', number(rows.gap[at], 2)));
  $('sum').replaceChildren(...terms, element('span', { class: 'quality' }, ...quality));
  const of = meta.parts.length > 1 ? meta.parts.map((each) => each.name).join(' and ') : '';
  if (of) $('sum').append(element('small', { class: 'aside' }, `Attributions to ${of} together.`));
}

function drawOutputs(row, chosen) {
  const size = meta.outputs.length;
  $('card-outputs').hidden = size < 2;
  if (size < 2) return;
  const values = rows.outputs.subarray(row * size, (row + 1) * size);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const place = (value) => (100 * (value - low)) / (high - low || 1);
  $('outputs').replaceChildren(
    ...Array.from(values, (value, k) => {
      const name = outputName(row, k);
      const [from, to] = [Math.min(place(0), place(value)), Math.max(place(0), place(value))];
      const marks = [meta.predicted?.[row] === name ? meta.predictedLabel : '', meta.true?.[row] === name ? 'true' : '', rows.targets ? `target ${number(rows.targets[row * size + k])}` : ''];
      return element('li', {}, element(
        'button', { type: 'button', 'aria-pressed': String(k === chosen), onclick: () => choose({ output: k }) },
        element('span', { class: 'name', title: name }, named(name), element('small', {}, marks.filter(Boolean).join(', '))),
        element('span', { class: 'gauge' }, element('i', { style: `left:${from}%;width:${to - from}%` })),
        element('span', { class: 'value' }, number(value)),
      ));
    }),
  );
  const list = $('outputs');
  const current = list.children[chosen];
  list.classList.toggle('many', size > 6);
  if (list.scrollHeight > list.clientHeight) list.scrollTop = current.offsetTop - list.offsetTop - list.clientHeight / 2;
}

/** What is explained: the output's name, and by which wish it was chosen. */
function explainedName(row, output) {
  const name = outputName(row, output);
  return name === 'output' || name === meta.explained ? meta.explained : `${name} (${meta.explained})`;
}

/** Inputs without steps stand beside a sequence: their strongest attributions. */
function drawBeside(content, row, output) {
  const others = meta.parts.map((_, i) => i).filter((i) => i !== state.part && meta.parts[i].kind === 'table');
  $('card-beside').hidden = !others.length || meta.parts[state.part].kind === 'table';
  if ($('card-beside').hidden) return;
  const cells = others.flatMap((i) => {
    const part = partOf(content, row, i, output);
    return part.features.map((name, f) => ({ input: part.name, name, value: part.byFeatures[f], data: part.data?.[0][f] }));
  }).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, FEW_BARS);
  const limit = Math.abs(cells[0]?.value) || 1;
  const total = cells.reduce((sum, cell) => sum + cell.value, 0);
  $('beside-lead').textContent = `${others.map((i) => meta.parts[i].name).join(', ')}: together ${signed(total)}.`;
  $('beside').tBodies[0].replaceChildren(...cells.map(({ input, name, value, data }) => element('tr', {},
    element('td', {}, input), element('td', { class: 'feature', title: name }, named(name)), element('td', { class: 'value' }, datum(data)),
    element('td', { class: 'attribution' }, signed(value)),
    element('td', { class: 'bar', 'aria-hidden': 'true' }, element('i', { class: value < 0 ? 'negative' : 'positive', style: `width:${(100 * Math.abs(value)) / limit}%` })))));
}

/** The words of a text; what padding contributed stands behind them as one number. */
function drawWords(part) {
  const limit = largest(part.bySteps) || 1;
  legend('words-legend', limit);
  const padding = part.values.reduce((sum, [value], step) => sum + (part.data[step][0] === null ? value : 0), 0);
  $('words').replaceChildren(...part.data.flatMap(([word], step) => {
    if (word === null) return [];
    const value = part.values[step][0];
    const shade = `${Math.round((100 * Math.abs(value)) / limit)}%`;
    const lines = [String(word), ['position', stepName(part, step)], ['attribution', signed(value)]];
    const shown = element('span', {
      class: value < 0 ? 'negative' : 'positive', style: `--shade:${shade}`, 'aria-label': `${word} ${signed(value)}`,
      onmousemove: (event) => showTip(lines, event), onmouseleave: hideTip,
    }, String(word) || '·');
    return [shown, ' '];
  }), padding ? element('small', { class: 'padding' }, `and padding ${signed(padding)}`) : '');
}

/** The strongest cells, for reading and for screen readers. */
function drawTop(part) {
  const width = part.features.length;
  let cells = part.values.flatMap((line, step) => Array.from(line, (value, feature) => ({ step, feature, value })));
  if (part.kind === 'text') cells = cells.filter((cell) => part.data[cell.step][0] !== null); // padding is no word
  cells.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const shown = cells.slice(0, allCells ? 100 : FEW_CELLS);
  const limit = Math.abs(cells[0]?.value) || 1;
  const columns = [
    part.kind !== 'table' && [{ text: 'Position', image: 'Column' }[part.kind] ?? 'Step', (cell) => stepName(part, cell.step)],
    part.kind !== 'text' && (width > 1 || part.kind === 'table') && [part.kind === 'image' ? 'Line' : 'Feature', (cell) => part.features[cell.feature]],
    part.data && [part.kind === 'text' ? 'Word' : 'Value', (cell) => datum(part.data[cell.step][cell.feature])],
    ['Attribution', (cell) => signed(cell.value)],
    part.errors && ['Standard error', (cell) => number(part.errors[cell.step][cell.feature], 2)],
  ].filter(Boolean);
  $('top').tHead.replaceChildren(element('tr', {}, ...columns.map(([name]) => element('th', { scope: 'col' }, name)), element('th', {})));
  $('top').tBodies[0].replaceChildren(...shown.map((cell) => {
    const bar = element('i', { class: cell.value < 0 ? 'negative' : 'positive', style: `width:${(100 * Math.abs(cell.value)) / limit}%` });
    return element('tr', {}, ...columns.map(([name, text]) => element('td', { class: name.toLowerCase(), title: text(cell) }, name === 'Feature' ? named(text(cell)) : text(cell))), element('td', { class: 'bar', 'aria-hidden': 'true' }, bar));
  }));
  moreButton('top-more', Math.min(cells.length, 100), FEW_CELLS, allCells, '', () => {
    allCells = !allCells;
    drawTop(part);
  });
}

// ---------------------------------------------------------------- pictures
function colourLimit(part) {
  const own = Math.max(...part.values.map(largest)) || 1;
  return $('same-scale').checked ? overall.get(state.part).limit[outputOf(state.example)] || 1 : own;
}

function drawHeat(part) {
  const c = colours();
  const z = transposed(part.values);
  const limit = colourLimit(part);
  const many = part.features.length > 1;
  const pixels = many ? lineHeight(part.features.length) : 34;
  const body = part.features.length * pixels;
  const inner = body + 70;
  const height = inner + 8 + below(part);
  const beside = many ? 0.845 : 1;
  const most = largest(part.byFeatures);
  legend('heat-legend', limit);
  if (part.errors) $('heat-legend').append(' · dotted: less than 2 standard errors from 0');
  const traces = [
    heatTrace(z, -limit, limit, diverging(c), part.steps),
    stepBars(part.bySteps, bySign(part.bySteps, c), { yaxis: 'y2', ...whiskers('y', part.stepErrors, c) }),
  ];
  if (many) {
    traces.push({
      type: 'bar', orientation: 'h', x: Array.from(part.byFeatures), y: part.features.map((_, i) => i), xaxis: 'x2',
      marker: { color: bySign(part.byFeatures, c) }, width: part.features.length > 60 ? 1 : 0.8, ...whiskers('x', part.featureErrors, c),
    });
  }
  if (part.errors) traces.push({ ...dots(part, c), hoverinfo: 'skip' });
  draw('chart-heat', traces, {
    height, margin: { l: many ? margin(part.features) : LEFT, r: 12, t: 8, b: below(part) },
    xaxis: { ...stepAxis(part), domain: [0, beside], anchor: 'y' },
    yaxis: { ...namedAxis(many ? part.features : [''], pixels), domain: [0, body / inner] },
    yaxis2: { ...sumAxis(c), nticks: 3, domain: [(body + 12) / inner, 1], anchor: 'x' },
    ...(many ? { xaxis2: { ...sumAxis(c), nticks: 3, tickangle: 0, showticklabels: most >= 1e-3 && most < 1e5 /* no room for powers */, domain: [beside + 0.02, 1], anchor: 'y' } } : {}),
  }, {
    part, label: 'Heat map: attributions by feature and step; bars: their sums',
    tip: ({ curveNumber, x, y }) => {
      if (curveNumber === 1) return [`step ${stepName(part, x)}`, ['sum', signed(part.bySteps[x])], ...errorLine(part.stepErrors?.[x])];
      if (curveNumber === 2 && many) return [part.features[y], ['sum', signed(part.byFeatures[y])], ...errorLine(part.featureErrors?.[y])];
      const value = part.data ? [['value', datum(part.data[x][y])]] : [];
      return [part.features[y], ['step', stepName(part, x)], ...value, ['attribution', signed(part.values[x][y])], ...errorLine(part.errors?.[x][y])];
    },
    click: ({ curveNumber, y }) => curveNumber !== 1 && many && pin(part, y),
  });
}

/** Attributions over the input in greys. */
function drawImage(part) {
  const c = colours();
  const limit = colourLimit(part);
  const pixels = Math.min(24, 560 / part.features.length);
  const clear = (colour) => [colour, 'rgba(128,128,128,0)'];
  const [blue, red] = [clear(c.blue), clear(c.red)];
  legend('heat-legend', limit);
  const under = part.data ? [{ ...heatTrace(transposed(part.data), undefined, undefined, [[0, '#3a3a3a'], [1, '#f2f2f2']], 99), hoverinfo: 'skip', opacity: 0.7 }] : [];
  draw('chart-heat', [...under, { ...heatTrace(transposed(part.values), -limit, limit, [[0, blue[0]], [0.5, blue[1]], [0.5, red[1]], [1, red[0]]], 99), opacity: 0.9 }], {
    height: part.features.length * pixels + 40, margin: { l: 40, r: 12, t: 8, b: 32 },
    xaxis: { ...stepAxis(part), constrain: 'domain' }, yaxis: { ...namedAxis(part.features, pixels), ...SQUARE },
  }, {
    label: 'Map: attributions of the pixels, over the input',
    tip: ({ x, y }) => [...placeOf(part, x, y), ...(part.data ? [['value', datum(part.data[x][y])]] : []), ['attribution', signed(part.values[x][y])], ...errorLine(part.errors?.[x][y])],
  });
}

/** Base value plus all attributions up to each step. */
function runningSum(start, values) {
  const sums = [start];
  for (const value of values) sums.push(sums[sums.length - 1] + value);
  return sums;
}

function drawBuild(part, row, output) {
  const c = colours();
  const size = meta.outputs.length;
  const start = (k) => (rows.base ? rows.base[row * size + k] : 0) + othersTotal(row, k, part);
  const sums = runningSum(start(output), part.bySteps);
  const edges = sums.map((_, i) => i - 0.5);
  const last = sums[sums.length - 1];
  $('compare-field').hidden = size < 2 || size > MOST_COMPARED;
  const compared = !$('compare-field').hidden && $('compare').checked ? meta.outputs.map((_, k) => k).filter((k) => k !== output) : [];
  const traces = compared.map((k) => ({
    type: 'scatter', mode: 'lines', x: edges, y: runningSum(start(k), part.stepsOf(k)), line: { color: c.faint, width: 1 }, customdata: edges.map(() => k),
  }));
  traces.push(
    { ...stepBars(part.bySteps, bySign(part.bySteps, c)), base: sums.slice(0, -1), width: 1, ...whiskers('y', part.stepErrors, c) },
    { type: 'scatter', mode: 'lines', x: edges, y: sums, line: { color: c.ink, width: 1.8 } },
  );
  const first = meta.parts.length > 1 ? 'base value and the other inputs' : meta.baseKnown ? 'base value' : 'start';
  $('build-lead').textContent =
    `From the ${first} (${number(sums[0])}) to the ${meta.baseKnown ? 'output' : 'sum'} (${number(last)}): each step adds its attributions.`;
  draw('chart-build', traces, {
    height: 238 + below(part), margin: { l: LEFT, r: 12, t: 10, b: below(part) },
    xaxis: stepAxis(part), yaxis: { ...sumAxis(c), zeroline: false, nticks: 6, fixedrange: false },
    shapes: [sums[0], last].map((y) => ({ type: 'line', xref: 'paper', x0: 0, x1: 1, y0: y, y1: y, line: { color: c.muted, width: 1, dash: 'dot' } })),
  }, {
    part, label: 'Line: base value plus the attributions up to each step',
    tip: ({ curveNumber, x, y, customdata }) => {
      if (curveNumber < compared.length) return [outputName(row, customdata), ['up to here', number(y)]];
      const step = Math.max(0, curveNumber === compared.length ? x : Math.round(x - 0.5));
      if (x === -0.5) return ['start', [first, number(sums[0])]];
      return [`step ${stepName(part, step)}`, ['adds', signed(part.bySteps[step])], ...errorLine(part.stepErrors?.[step]), ['up to here', number(sums[step + 1])]];
    },
  });
}

/** What the other inputs of the model contribute, where there are several. */
function othersTotal(row, output, part) {
  if (meta.parts.length === 1) return 0;
  const own = part.stepsOf(output).reduce((sum, value) => sum + value, 0);
  return rows.total[row * meta.outputs.length + output] - own;
}

function drawWaterfall(part, row, output) {
  const c = colours();
  const values = part.byFeatures;
  const order = Array.from(values.keys()).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
  const shown = order.slice(0, allBars ? order.length : FEW_BARS);
  const rest = order.slice(shown.length).reduce((sum, i) => sum + values[i], 0);
  const bars = shown.map((i) => ({
    name: part.features[i], value: values[i], error: part.featureErrors?.[i], data: part.data && datum(part.data[0][i]),
  }));
  const bound = part.featureErrors && order.slice(shown.length).reduce((sum, i) => sum + part.featureErrors[i], 0); // of the rest's error
  if (shown.length < order.length) bars.push({ name: plural(order.length - shown.length, 'other feature'), value: rest, error: bound });
  const start = (rows.base ? rows.base[row * meta.outputs.length + output] : 0) + othersTotal(row, output, part);
  const sums = runningSum(start, bars.map((bar) => bar.value).reverse()); // from the bottom up
  const from = sums.slice(0, -1).reverse();
  const end = sums[sums.length - 1];
  const most = nameRoom() + 7; // letters of "name = value", of which the name gets eight at least
  const valued = (name, data) => `${short(name, Math.max(8, most - data.length - 3))} = ${data}`;
  const names = bars.map(({ name, data }) => (data === undefined || data === null ? name : valued(name, short(data, most - 11))));
  const pixels = 26;
  const width = $('chart-waterfall').clientWidth - margin(names, most) - 20;
  const pad = Math.max(0.14, 52 / Math.max(width - 104, 60)) * (Math.max(...sums) - Math.min(...sums) || 1); // for the numbers
  const reach = part.featureErrors ? SURE * Math.max(...bars.map((bar) => bar.error)) : 0;
  draw('chart-waterfall', [{
    type: 'bar', orientation: 'h', y: bars.map((_, i) => i), x: bars.map((bar) => bar.value), base: from,
    marker: { color: bySign(bars.map((bar) => bar.value), c) }, text: bars.map((bar) => signed(bar.value)),
    textposition: part.featureErrors ? 'none' : 'outside', textfont: { color: c.ink }, cliponaxis: false,
    ...whiskers('x', part.featureErrors && bars.map((bar) => bar.error), c),
  }, ...beyondWhiskers(part, bars, from, c)], {
    height: bars.length * pixels + 74, margin: { l: margin(names, most), r: 20, t: 26, b: 36 },
    xaxis: { showgrid: true, nticks: 6, range: [Math.min(...sums) - reach - pad, Math.max(...sums) + reach + pad] },
    yaxis: { ...namedAxis(names, pixels, most), fixedrange: true },
    shapes: [start, end].map((x) => ({ type: 'line', yref: 'paper', y0: 0, y1: 1, x0: x, x1: x, line: { color: c.muted, width: 1, dash: 'dot' } })),
    annotations: [
      { x: end, y: 1, yref: 'paper', yanchor: 'bottom', showarrow: false, text: `${meta.baseKnown ? 'output' : 'sum'} ${number(end)}`, font: { color: c.ink } },
      { x: start, y: 0, yref: 'paper', yanchor: 'top', yshift: -16, showarrow: false, text: `${meta.baseKnown ? 'base value' : 'start'} ${number(start)}`, font: { color: c.ink } },
    ],
  }, {
    label: 'Bars: attributions of the features, from the base value to the output',
    tip: ({ y }) => [bars[y].name, ...(bars[y].data ? [['value', bars[y].data]] : []), ['attribution', signed(bars[y].value)], ...errorLine(bars[y].error)],
  });
  moreButton('waterfall-more', order.length, FEW_BARS, allBars, 'features', () => {
    allBars = !allBars;
    drawWaterfall(part, row, output);
  });
}

/** The numbers of bars whose ends have whiskers stand behind these. */
function beyondWhiskers(part, bars, from, c) {
  if (!part.featureErrors) return [];
  const ends = bars.map(({ value, error }, i) => from[i] + value + Math.sign(value) * SURE * error);
  return [{
    type: 'scatter', mode: 'text', hoverinfo: 'skip', x: ends, y: bars.map((_, i) => i), textfont: { color: c.ink }, cliponaxis: false,
    text: bars.map(({ value }) => ` ${signed(value)} `), textposition: bars.map(({ value }) => (value < 0 ? 'middle left' : 'middle right')),
  }];
}

// ---------------------------------------------------------------- signals
function pin(part, feature) {
  pinned = pinned.includes(feature) ? pinned.filter((i) => i !== feature) : [...pinned, feature];
  drawSignals(part);
}

function drawSignals(part) {
  const c = colours();
  const strength = part.features.map((_, f) => part.values.reduce((sum, line) => sum + Math.abs(line[f]), 0));
  const order = Array.from(strength.keys()).sort((a, b) => strength[b] - strength[a]);
  const few = order.slice(0, FEW_SIGNALS + moreSignals);
  const shown = [...pinned, ...few.filter((f) => !pinned.includes(f))];
  const limit = colourLimit(part);
  $('signals-lead').textContent =
    part.features.length > 1 ? 'The strongest features of this example: lines are the values, colours the attributions.' : 'The line is the value, colours are the attributions.';
  legend('signals-legend', limit);
  drawChips(part, order.length - few.length);
  const [each, gap] = [74, 26];
  const room = Math.floor(($('chart-signals').clientWidth - LEFT - 110) / 7); // letters beside the sum
  const inner = shown.length * (each + gap);
  const x = Array.from({ length: part.steps }, (_, step) => step);
  const traces = [];
  const layout = { height: inner + 8 + below(part), margin: { l: LEFT, r: 12, t: 8, b: below(part) }, annotations: [], xaxis: { ...stepAxis(part), anchor: `y${shown.length}` } };
  shown.forEach((feature, i) => {
    const axis = i ? `y${i + 1}` : 'y';
    const top = 1 - (i * (each + gap) + gap) / inner;
    const { values, ticks } = plottable(part.data.map((line) => line[feature]));
    const there = values.filter((value) => value !== null);
    const [low, high] = there.length ? [Math.min(...there), Math.max(...there)] : [0, 1];
    const pad = 0.12 * (high - low) || 0.5;
    const range = [low - pad, high + pad];
    traces.push(
      {
        type: 'heatmap', z: [part.values.map((line) => line[feature])], x: [...x, part.steps].map((step) => step - 0.5), y: range, yaxis: axis,
        zmin: -limit, zmax: limit, colorscale: diverging(c), showscale: false, customdata: [x.map(() => feature)],
      },
      {
        type: 'scatter', mode: part.steps <= 60 ? 'lines+markers' : 'lines', x, y: values, yaxis: axis, customdata: x.map(() => feature),
        line: { color: c.ink, width: 1.6 }, marker: { size: 4, color: c.ink },
      },
    );
    layout[`yaxis${i ? i + 1 : ''}`] = { range, domain: [top - each / inner, top], nticks: 4, tickfont: { size: 11 }, fixedrange: true, ...ticks };
    const sum = `sum ${signed(part.byFeatures[feature])}`;
    layout.annotations.push(
      { text: plotText(part.features[feature], room), x: 0, xanchor: 'left', align: 'left', font: { color: c.ink, size: 12 } },
      { text: sum, x: 1, xanchor: 'right', font: { color: c.muted, size: 11 } },
    );
    for (const note of layout.annotations.slice(-2)) Object.assign(note, { xref: 'paper', yref: 'paper', y: top, yanchor: 'bottom', showarrow: false });
  });
  draw('chart-signals', traces, layout, {
    part, label: 'Lines: values of the strongest features; colours: their attributions',
    tip: (point) => {
      const feature = Array.isArray(point.customdata) ? point.customdata[0] : point.customdata;
      const step = Math.max(0, Math.min(part.steps - 1, Math.round(point.x)));
      return [
        part.features[feature], ['step', stepName(part, step)], ['value', datum(part.data[step][feature])],
        ['attribution', signed(part.values[step][feature])],
      ];
    },
  });
}

/** Numbers to draw, and ticks for texts among the values. */
function plottable(values) {
  if (!values.some((value) => typeof value === 'string')) return { values: values.map((v) => (Number.isFinite(v) ? v : null)), ticks: {} };
  const kinds = [...new Set(values.map(String))];
  const ticktext = kinds.map((kind) => plotText(kind, 8));
  return { values: values.map((value) => kinds.indexOf(String(value))), ticks: { tickmode: 'array', tickvals: kinds.map((_, i) => i), ticktext } };
}

function drawChips(part, left) {
  const chips = pinned.map((feature) =>
    element('button', { type: 'button', class: 'chip', title: part.features[feature], 'aria-label': `Remove ${part.features[feature]}`, onclick: () => pin(part, feature) }, `${short(part.features[feature], 40)} ×`));
  const add = element('select', { 'aria-label': 'Add the signal of a feature', onchange: (event) => event.target.value && pin(part, Number(event.target.value)) },
    element('option', { value: '' }, 'Add a feature …'),
    ...part.features.map((name, i) => !pinned.includes(i) && element('option', { value: i }, name)).filter(Boolean));
  const next = element('button', { type: 'button', class: 'link', onclick: () => { moreSignals += FEW_SIGNALS; drawSignals(part); } }, `${Math.min(FEW_SIGNALS, left)} more`);
  const fewer = element('button', { type: 'button', class: 'link', onclick: () => { forgetPins(); drawSignals(part); } }, 'fewer');
  $('chips').hidden = part.features.length <= FEW_SIGNALS;
  $('chips').replaceChildren(...chips, add, ...(left > 0 ? [next] : []), ...(pinned.length || moreSignals ? [fewer] : []));
}
