// How the job's models do: accuracy, drift and quality by window, with thresholds and alerts.

import { h } from '../../lib/dom.js';
import { get, path } from '../../lib/api.js';
import * as f from '../../lib/format.js';
import { card, columns, legend, plot } from '../../lib/plot.js';
import { chip, empty, section, state, table } from '../../lib/ui.js';

export async function load({ id, ctx }, signal) {
  return ctx.slow.get('stats', 10000, () => get(path('jobs', id, 'stats'), signal));
}

export function view({ status, own, ctx }) {
  const models = own.models || [];
  if (!models.length) return empty('No statistics yet', own.missing || 'They are written by jobs with monitors, at the end of the first window.');
  const model = models.find((one) => one.model === ctx.state.model) || models[0];
  const { n, width } = columns(ctx.room());
  const spans = model.alerts.map((alert) => ({ from: f.millis(alert.start), to: alert.end === null ? undefined : f.millis(alert.end), name: `${alert.name}: ${alert.message}`, tone: alert.severity }));
  const drawn = (list) => h('div', { class: `plots n${n}` }, list.map((one) => chart(one, width, spans)));
  const firing = status ? status.alerts : [];
  const part = (title, note, list) => (list.length ? section(title, note, drawn(list)) : null);
  return [
    h('div', { class: 'bar-line' },
      models.length > 1 ? h('label', { class: 'small' }, 'Model ', h('select', { value: model.model, on: { change: (event) => ctx.set({ model: event.target.value }) } }, models.map((one) => h('option', { value: one.model, selected: one === model }, one.model)))) : h('b', null, model.model),
      h('span', { class: 'muted small' }, 'windows of ', f.duration(model.window / 1000), model.as_of ? [', known by ', f.time(model.as_of)] : null),
      model.versions.length > 1 ? legend(model.versions.map((version) => ({ name: version.name, tone: version.colour % 6 }))) : null),
    firing.length ? h('ul', { class: 'alerts-now' }, firing.map((alert) => h('li', null, state(alert.severity), h('b', null, alert.name), h('span', null, alert.text), h('span', { class: 'muted' }, 'since ', f.time(alert.since))))) : null,
    model.headline.length ? h('div', { class: 'tiles' }, model.headline.map(tile)) : null,
    part('Accuracy', 'by the window of the prediction; hollow points may still change as labels come', model.accuracy),
    model.heat ? section('Drift by column', 'each column’s worst statistic; 1 is at its threshold', heat(model.heat)) : null,
    part('Drift of single columns', model.columns_left_out ? `${f.count(model.columns_left_out)} more have none for want of room` : null, model.columns),
    part('Drift as a whole', null, model.drift),
    part('Errors, as change detectors see them', null, model.errors),
    model.confusion ? section('Labels against predictions', `newest window, ${model.confusion.version}`, confusion(model.confusion)) : null,
    model.segments.map((one) => section(`By ${one.column}`, `newest window, ${one.version}${one.left_out ? `, ${f.count(one.left_out)} more` : ''}`, segments(one))),
    model.quality ? section('Quality by column', null, quality(model.quality)) : null,
    part('Quality of rows', null, model.rows),
    part('Labels', null, model.labels),
    model.volume ? section('Volume', null, drawn([model.volume])) : null,
    part('How the job ran', 'by the wall clock', model.operation),
    h('p', { class: 'muted small' }, `From ${own.root || 'the job’s tables'}: ${(own.tables || []).map(([name, version]) => `${name} at version ${version}`).join(', ')}.`),
  ];
}

function chart(one, width, spans) {
  const form = (value) => f.inUnit(value, one.unit);
  const series = one.lines.map((line) => ({
    name: line.name, tone: line.colour % 6, kind: one.look === 'bars' ? 'bar' : 'line',
    points: line.points.map((p) => ({ x: f.millis(p.start), y: p.value, alarm: p.alarm, open: !p.complete, note: `${f.count(p.rows)} rows${p.first !== null && p.first !== undefined && p.first !== p.value ? `, told first as ${form(p.first)}` : ''}` })),
  }));
  const level = one.threshold !== null && one.threshold !== undefined ? [{ at: one.threshold, name: `threshold ${form(one.threshold)}` }] : [];
  return card(one.title, one.note, plot({ label: one.title, series, width, form, lines: level, spans, zero: one.unit === 'count' || one.look === 'bars' }), series.length > 1 ? legend(series) : null);
}

function tile(one) {
  const delta = one.before === null || one.before === undefined ? null : one.value - one.before;
  const good = delta && one.better !== 'neither' ? (delta > 0) === (one.better === 'more') : null;
  return h('div', { class: one.alarm ? 'tile bad' : 'tile' },
    h('span', { class: 'tile-name' }, one.title), h('span', { class: 'tile-value' }, f.inUnit(one.value, one.unit)),
    h('span', { class: 'tile-more' }, delta ? h('span', { class: good === null ? 'muted' : good ? 'good' : 'worse' }, `${delta > 0 ? '▲' : '▼'} ${f.inUnit(Math.abs(delta), one.unit)} `) : null, /^\d+$/.test(one.of) ? `version ${one.of}` : one.of, one.alarm ? ' · beyond its threshold' : '', one.open ? ' · may still change' : ''));
}

function step(cell) {
  if (!cell) return 'none';
  if (cell.ratio === null || cell.ratio === undefined) return cell.alarm ? 'h5' : 'h0';
  return `h${Math.max(0, Math.min(6, cell.alarm ? 4 + Math.floor(cell.ratio - 1) : Math.floor(cell.ratio * 4)))}`;
}

function heat(map) {
  const form = (time) => f.tick(f.millis(time), 4 * 86400e3);
  const every = Math.ceil(map.windows.length / 10);
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Drift by column and window' }, h('table', { class: 'heat' },
    h('thead', null, h('tr', null, h('th', null, 'Column'), map.windows.map(([start], i) => h('th', { class: 'num' }, i % every === 0 ? form(start) : '')))),
    h('tbody', null, map.rows.map(([name, cells]) => h('tr', null, h('th', { scope: 'row' }, name), cells.map((cell) => h('td', { class: step(cell), title: cell ? `${cell.metric} ${f.number(cell.value)}${cell.threshold !== null ? `, threshold ${f.number(cell.threshold)}` : ''}${cell.version ? `, ${cell.version}` : ''}` : 'no value' }, cell && cell.alarm ? '▲' : '')))))));
}

function confusion(one) {
  const total = one.counts.flat().reduce((sum, n) => sum + (n || 0), 0);
  return h('div', { class: 'scroll' }, h('table', { class: 'rows fit' },
    h('thead', null, h('tr', null, h('th', null, 'Label'), one.classes.map((name) => h('th', { class: 'num' }, `predicted ${name}`)))),
    h('tbody', null, one.counts.map((row, i) => h('tr', null, h('th', { scope: 'row' }, one.classes[i]), row.map((n) => h('td', { class: 'num' }, f.count(n), h('span', { class: 'sub' }, f.share((n || 0) / (total || 1))))))))));
}

const segments = (one) => table(`By ${one.column}`, [
  { name: one.column, of: (row) => row[0] }, { name: 'Rows', num: true, of: (row) => f.count(row[1]) },
  ...one.metrics.map((metric, i) => ({ name: metric, num: true, of: (row) => f.number(row[2][i]) })),
], one.rows);

function quality(one) {
  const newest = (line) => { const p = line && [...line.points].reverse().find((point) => point.value !== null); return p ? [f.number(p.value), p.alarm ? chip('▲', 'bad', 'beyond its threshold') : null] : h('span', { class: 'muted' }, '–'); };
  return table('Quality by column', [
    { name: 'Column', of: (row) => row.name },
    ...one.metrics.map((metric, i) => ({ name: metric.replace(/_/g, ' '), num: true, of: (row) => newest(row.values[i]) })),
    { name: 'New categories', cls: 'text', of: (row) => row.new_categories.map(([value, part]) => `${value} (${f.share(part)})`).join(', ') },
  ], one.columns);
}
