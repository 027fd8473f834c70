// The table of examples: search, filters, order. Only the lines in sight are part of the page.

const LINE = 34; // height of a line in pixels, as in the style sheet
let columns = [];
let order = []; // positions of the examples that match, in the chosen order

function makeColumns() {
  const several = meta.outputs.length > 1;
  const at = (values) => (row) => values[row * meta.outputs.length + outputOf(row)];
  const all = [
    { key: 'id', name: 'Example', text: (row) => meta.ids[row], sort: (row) => row, title: 'In the order of the explanation' },
    meta.predicted && { key: 'predicted', name: meta.predictedLabel === 'predicted' ? 'Predicted' : 'Highest', text: (row) => meta.predicted[row], title: meta.predictedLabel },
    meta.true && { key: 'true', name: meta.predicted ? 'True' : 'Target', ...(meta.true.some((one) => typeof one === 'number') ? { value: (row) => meta.true[row] ?? NaN } : { text: (row) => meta.true[row] }) },
    rows.targets && { key: 'true', name: 'Target', value: at(rows.targets), title: several ? 'Of the selected output' : '' },
    meta.parts[0].texts && { key: 'text', name: 'Text', text: (row) => meta.parts[0].texts[row] },
    rows.error && { key: 'error', name: meta.errorName === 'margin' ? 'Margin' : 'Error', value: (row) => rows.error[row], title: meta.errorMeaning, ascending: meta.errorName === 'margin' },
    { key: 'output', name: 'Output', value: at(rows.outputs), title: several ? 'The selected output' : 'The output of the model' },
    { key: 'size', name: 'Total |attr.|', value: at(rows.total_abs), title: 'Sum of the absolute attributions to the selected output' },
    rows.gap && { key: 'gap', name: 'Gap', value: at(rows.gap), title: 'How far the attributions miss the output, relative to the outputs' },
    meta.parts[0].varied && { key: 'length', name: meta.parts[0].kind === 'text' ? 'Words' : 'Steps', value: (row) => (meta.parts[0].words ?? meta.parts[0].lengths)[row] },
  ];
  columns = all.filter(Boolean);
}

function cellText(column, row) {
  if (column.text) return column.text(row);
  if (['true', 'length'].includes(column.key)) return datum(column.value(row));
  return number(column.value(row), column.key === 'gap' ? 2 : 4, true);
}

const sortKey = (column) => column.sort ?? column.value ?? column.text;

function makeTable() {
  makeColumns();
  const heads = columns.map((column) =>
    element('th', { scope: 'col', 'data-key': column.key, title: column.title },
      element('button', { type: 'button', onclick: () => sortBy(column.key) }, column.name)));
  $('rows').tHead.rows[0].replaceChildren(...heads);
  $('sort').replaceChildren(...columns.map((column) => element('option', { value: column.key }, `Sort: ${column.name}`)));
  for (const [id, values, any] of [['predicted', meta.predicted, `${meta.predictedLabel}: any`], ['true', meta.predicted && meta.true, 'true: any']]) {
    if (!values) continue;
    const kinds = [...new Set(values)].sort((a, b) => String(a).localeCompare(String(b), 'en', { numeric: true }));
    $(`filter-${id}`).hidden = false;
    $(`filter-${id}`).replaceChildren(element('option', { value: '' }, any), ...kinds.map((kind) => element('option', { value: kind, title: kind }, `${id}: ${short(String(kind), 28)}`)));
    $(`filter-${id}`).value = '';
  }
  $('filter-wrong').hidden = !meta.wrong;
  $('filters').hidden = !meta.predicted && !meta.wrong;
  for (const id of ['filter-predicted', 'filter-true', 'filter-wrong']) $(id).onchange = fromTop;
  $('search').oninput = fromTop;
  $('sort').onchange = () => sortBy($('sort').value);
  $('direction').onclick = () => sortBy(state.sort);
  $('scroll').onscroll = () => requestAnimationFrame(drawLines);
  new ResizeObserver(drawLines).observe($('scroll'));
}

/** What is worth a look comes first: the largest numbers, but the smallest margins. */
const firstDescending = (column) => Boolean(column.value) && !column.ascending;

/** Sort by a column, largest number first; once more turns the order round. */
function sortBy(key) {
  const column = columns.find((each) => each.key === key);
  state.descending = state.sort === key ? !state.descending : firstDescending(column);
  state.sort = key;
  fromTop();
}

function fromTop() {
  $('scroll').scrollTop = 0;
  refreshTable();
}

function matches(row, wanted) {
  const asked = { predicted: $('filter-predicted').value, true: $('filter-true').value };
  if (asked.predicted && meta.predicted[row] !== asked.predicted) return false;
  if (asked.true && meta.true[row] !== asked.true) return false;
  if ($('filter-wrong').value && meta.wrong[row] !== ($('filter-wrong').value === 'wrong')) return false;
  return !wanted || wanted(fields(row));
}

/** What of an example is searched, each by itself: with its name in front, and whether the prediction is right. */
function fields(row) {
  const named = [['predicted', meta.predicted], ['true', meta.true]].filter(([, values]) => values).map(([name, values]) => `${name} ${values[row]}`);
  const verdict = meta.wrong ? [meta.wrong[row] ? 'wrong' : 'right'] : [];
  return [meta.ids[row], meta.parts[0].texts?.[row] ?? '', ...named, ...verdict].map((text) => String(text).toLowerCase());
}

/** Phrases between commas, each of which is found in some field. */
function asked(typed) {
  const phrases = typed.split(',').map(phrase).filter(Boolean);
  return phrases.length ? (texts) => phrases.every((wanted) => texts.some(wanted)) : null;
}

/** Words are whole words, next to each other in one field; the last one may be a beginning, unless it is a number. */
function phrase(typed) {
  const words = typed.toLowerCase().replace(/["“”:=]/g, ' ').split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const pattern = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('[\\s":=]+');
  const last = words[words.length - 1];
  const found = new RegExp(`(^|[^\\p{L}\\p{N}])${pattern}${/^\d+$/.test(last) ? '(?![\\p{L}\\p{N}])' : ''}`, 'u');
  return (text) => found.test(text);
}

function refreshTable() {
  const wanted = asked($('search').value);
  order = [];
  for (let row = 0; row < count; row++) if (matches(row, wanted)) order.push(row);
  const key = sortKey(columns.find((column) => column.key === state.sort));
  const keys = new Map(order.map((row) => [row, key(row)]));
  const turn = state.descending ? -1 : 1;
  const missing = (row) => Number.isNaN(keys.get(row));
  const compare = (a, b) => (typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b);
  order.sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : turn * compare(keys.get(a), keys.get(b))) || a - b);
  $('sort').value = state.sort;
  $('direction').textContent = state.descending ? '↓' : '↑';
  for (const head of $('rows').tHead.rows[0].cells) {
    const sorted = head.dataset.key === state.sort;
    head.setAttribute('aria-sort', sorted ? (state.descending ? 'descending' : 'ascending') : 'none');
  }
  $('count').textContent = order.length === count ? plural(count, 'example') : `${order.length.toLocaleString('en')} of ${plural(count, 'example')}`;
  $('rows').setAttribute('aria-rowcount', order.length + 1);
  drawLines();
}

/** Put the lines in sight into the page, between two empty ones that stand for the others. */
function drawLines() {
  const box = $('scroll');
  if (!box.clientHeight) return;
  const head = $('rows').tHead.offsetHeight;
  const first = Math.max(0, Math.floor((box.scrollTop - head) / LINE) - 8);
  const last = Math.min(order.length, Math.ceil((box.scrollTop + box.clientHeight) / LINE) + 8);
  const space = (n) => element('tr', { class: 'space', 'aria-hidden': 'true' }, element('td', { colspan: columns.length, style: `height:${n * LINE}px` }));
  const shown = order.slice(first, last).map((row, i) =>
    element('tr', { 'data-row': row, 'aria-rowindex': first + i + 2, 'aria-selected': String(row === state.example), class: meta.wrong?.[row] ? 'wrong' : '', onclick: () => choose({ example: row }) },
      ...columns.map((column) => element('td', { 'data-key': column.key, class: column.value ? 'number' : '', title: column.text ? cellText(column, row) : null }, column.text && column.key !== 'text' ? named(column.text(row)) : cellText(column, row)))));
  const none = element('tr', {}, element('td', { colspan: columns.length, class: 'none' }, 'No example matches.'));
  const before = first ? [space(first)] : [];
  const after = last < order.length ? [space(order.length - last)] : [];
  $('rows').tBodies[0].replaceChildren(...(order.length ? [...before, ...shown, ...after] : [none]));
}

/** Bring the chosen example into sight. */
function revealChosen() {
  const place = order.indexOf(state.example);
  const box = $('scroll');
  if (place >= 0 && box.clientHeight) {
    const head = $('rows').tHead.offsetHeight;
    const top = place * LINE;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + head + LINE > box.scrollTop + box.clientHeight) box.scrollTop = top + head + LINE - box.clientHeight;
  }
  drawLines();
}

/** The example `by` places further in the list; the first one if the chosen example is not in it. */
function neighbour(by) {
  const place = order.indexOf(state.example);
  return order.length ? order[place < 0 ? 0 : Math.max(0, Math.min(order.length - 1, place + by))] : state.example;
}
