// Beside the importance over all examples: two groups, values against attributions, and whether all that is true.

let groupsChosen = null; // places of the two groups
let featureChosen = {}; // of the scatter, by input

const besideParts = new Map();

async function loadBeside(index) {
  if (!besideParts.has(index)) besideParts.set(index, await unpack(`beside-${index}`));
  return besideParts.get(index);
}

function makeBeside() {
  const options = meta.groups.map(({ name, count }, i) => element('option', { value: i, title: name }, `${short(name, 40)} (${count.toLocaleString('en')})`));
  for (const id of ['group-a', 'group-b']) {
    $(id).replaceChildren(...options.map((option) => option.cloneNode(true)));
    $(id).onchange = () => {
      groupsChosen = [Number($('group-a').value), Number($('group-b').value)];
      drawOverview();
    };
  }
  const place = (name) => meta.groups.findIndex((group) => group.name === name);
  groupsChosen = place('wrong') >= 0 && place('right') >= 0 && !meta.ownGroups ? [place('wrong'), place('right')] : [0, 1];
  $('scatter-feature').onchange = () => {
    featureChosen[state.part] = Number($('scatter-feature').value);
    drawOverview();
  };
}

// ---------------------------------------------------------------- two groups
function drawGroups(part, beside, scope, only) {
  $('card-groups').hidden = meta.groups.length < 2 || !beside.feature_size;
  if ($('card-groups').hidden) return;
  $('chart-group-steps').hidden = part.kind === 'table';
  const c = colours();
  [$('group-a').value, $('group-b').value] = groupsChosen;
  const count = meta.groups.length;
  const of = (what, size, group) => beside[`${what}_${state.measure}`].subarray((scope * count + group) * size, (scope * count + group + 1) * size);
  const [a, b] = groupsChosen.map((group) => of('feature', part.features.length, group));
  const errors = state.measure === 'signed' && beside.feature_error && groupsChosen.map((group) => beside.feature_error.subarray((scope * count + group) * part.features.length));
  const most = (i) => Math.max(Math.abs(a[i]), Math.abs(b[i]));
  const shown = Array.from(a.keys()).sort((i, j) => most(j) - most(i)).slice(0, FEW);
  const names = shown.map((i) => part.features[i]);
  const pixels = 30;
  const label = (group) => meta.groups[groupsChosen[group]].name;
  const looks = [{ color: c.accent }, { color: 'rgba(0,0,0,0)', line: { color: c.ink, width: 1.2 } }];
  const more = a.length > shown.length ? `; the ${shown.length} largest of ${a.length} features` : '';
  $('groups-lead').textContent = `${measureName()}${part.kind === 'table' ? '' : ', summed over the steps (bars) or the features (lines) of each example'}, then the mean over the group${only}${more}.`;
  draw('chart-groups', [a, b].map((values, k) => ({
    type: 'bar', orientation: 'h', y: shown.map((_, i) => i), x: shown.map((i) => values[i]), marker: looks[k], offsetgroup: k, customdata: shown.map(() => k),
    ...whiskers('x', errors && shown.map((i) => errors[k][i]), c),
  })), {
    height: shown.length * pixels + 40, margin: { l: margin(names), r: 12, t: 4, b: 30 }, barmode: 'group',
    xaxis: { ...sumAxis(c) }, yaxis: { ...namedAxis(names, pixels), fixedrange: true },
  }, {
    label: `Bars: ${measureName()} by feature, in two groups`,
    tip: ({ y }) => [names[y], [label(0), number(a[shown[y]])], [label(1), number(b[shown[y]])], ['difference', signed(a[shown[y]] - b[shown[y]])], ...(errors ? errors.flatMap((each, k) => errorLine(each[shown[y]]).map(([name, text]) => [`${name}, ${label(k)}`, text])) : [])],
  });
  if (part.kind === 'table') return;
  const steps = groupsChosen.map((group) => Array.from(of('step', part.steps, group)));
  const x = steps[0].map((_, step) => step);
  draw('chart-group-steps', steps.map((y, k) => ({
    type: 'scatter', mode: part.steps > 1 ? 'lines' : 'markers', x, y, line: { color: k ? c.ink : c.accent, width: 2, dash: k ? 'dot' : 'solid' }, marker: { color: k ? c.ink : c.accent },
  })), {
    height: Math.max(240, shown.length * pixels + 40), margin: { l: LEFT, r: 12, t: 8, b: below(part) }, xaxis: stepAxis(part), yaxis: { ...sumAxis(c), nticks: 6 },
  }, {
    part, label: `Lines: ${measureName()} by step, in two groups`,
    tip: ({ x: step }) => [`step ${stepName(part, step)}`, [label(0), number(steps[0][step])], [label(1), number(steps[1][step])]],
  });
}

// ---------------------------------------------------------------- values and attributions
function drawScatter(part, beside, content, scope) {
  const several = meta.outputs.length > 1;
  $('card-scatter').hidden = !beside.point_data;
  if ($('card-scatter').hidden) return;
  const c = colours();
  const size = part.features.length;
  const count = beside.point_row.length;
  const whole = part.stepRows.reduce((a, b) => a + b);
  const strength = content.feature_size.subarray(scope * size, (scope + 1) * size);
  const feature = featureChosen[state.part] ?? strength.indexOf(Math.max(...strength));
  $('scatter-feature').replaceChildren(...part.features.map((name, i) => element('option', { value: i, title: name }, short(name, 40))));
  $('scatter-feature').value = feature;
  const all = fromDecimal(beside, 'points', scope * count * size, count * size);
  const points = Array.from({ length: count }, (_, i) => ({
    value: beside.point_data[i * size + feature], attribution: all[i * size + feature], row: beside.point_row[i], step: beside.point_step[i],
    error: beside.point_error?.[(scope * count + i) * size + feature],
  })).filter(({ value }) => Number.isFinite(value));
  const timed = part.kind !== 'table';
  const output = several ? (state.everything ? ', mean over all outputs' : state.output < 0 ? `, ${highestName()} of each example` : `, output: ${meta.outputs[scope]}`) : '';
  $('scatter-lead').textContent = `${plural(points.length, timed ? 'step' : 'example')}${count < whole ? ', drawn at random from all examples' : ''}: the value, and its attribution${output}.${beside.point_error ? ` Hollow: less than ${SURE} standard errors from 0.` : ''}`;
  $('scatter-legend').replaceChildren(...(timed ? ['first step', element('i', { class: 'steps', 'aria-hidden': 'true' }), 'last step'] : []));
  const look = timed ? { color: points.map(({ step }) => step), cmin: 0, cmax: Math.max(1, part.steps - 1), colorscale: STEPS } : { color: c.accent };
  draw('chart-scatter', [{
    type: 'scatter', mode: 'markers', x: points.map(({ value }) => value), y: points.map(({ attribution }) => attribution),
    marker: { size: 6, opacity: 0.75, ...look, symbol: points.map(({ attribution, error }) => (Math.abs(attribution) < SURE * error ? 'circle-open' : 'circle')) },
  }], {
    height: 380, margin: { l: LEFT, r: 12, t: 8, b: 46 },
    xaxis: { nticks: 8, title: { text: plotText(part.features[feature], 60), standoff: 8 } }, yaxis: { ...sumAxis(c), nticks: 7, fixedrange: false },
  }, {
    label: `Points: values of ${part.features[feature]} and their attributions`,
    tip: ({ pointNumber }) => {
      const { value, attribution, row, step, error } = points[pointNumber];
      const place = meta.rows.indexOf(row);
      return [place < 0 ? `example ${row}` : exampleName(place), ...(timed ? [['step', stepName(part, step)]] : []), ['value', datum(value)], ['attribution', signed(attribution)], ...errorLine(error)];
    },
    click: ({ pointNumber }) => {
      const place = meta.rows.indexOf(points[pointNumber].row);
      if (place >= 0) choose({ view: 'examples', example: place });
    },
  });
}

// ---------------------------------------------------------------- is it true?
function drawFaithful() {
  const found = meta.faithfulness;
  $('card-faithful').hidden = !found;
  if (!found) return;
  const c = colours();
  $('faithful-lead').textContent =
    `The mean output (${found.explained}) of ${plural(found.rows, 'example')} when ${found.players} are replaced by those of the references, the highest attributions first, the lowest first, or in random order. The further apart the lines, the more the model agrees with its explanation.`;
  const looks = { 'highest first': [c.red, 'solid'], 'in random order': [c.muted, 'dot'], 'lowest first': [c.blue, 'dash'] };
  const curves = Object.entries(found.curves);
  const end = found.removed.length >> 1;
  draw('chart-faithful', curves.map(([name, y]) => ({
    type: 'scatter', mode: 'lines+markers', x: found.removed, y, name, line: { color: looks[name][0], dash: looks[name][1], width: 2 }, marker: { size: 6 },
  })), {
    height: 320, margin: { l: LEFT, r: 12, t: 24, b: 46 },
    xaxis: { title: { text: `replaced ${found.players} (%)`, standoff: 8 }, nticks: 6 }, yaxis: { ...sumAxis(c), zeroline: false, nticks: 6 },
    annotations: curves.map(([name, y], k) => ({
      x: found.removed[end], y: y[end], text: name, showarrow: false, bgcolor: c.surface, font: { color: looks[name][0] }, yanchor: k === 0 ? 'top' : 'bottom', yshift: k === 0 ? -6 : 4, xanchor: k === 0 ? 'right' : 'left', xshift: k === 0 ? -6 : 8,
    })),
  }, { label: 'Lines: the mean output when features are taken away', tip: ({ x, y, data }) => [data.name, ['replaced', `${number(x, 3)} %`], ['mean output', number(y)]] });
  $('faithful-numbers').replaceChildren(...found.numbers.flatMap(([name, value, meaning]) => [
    element('dt', {}, name), element('dd', {}, element('strong', {}, value), element('small', {}, meaning)),
  ]));
}
