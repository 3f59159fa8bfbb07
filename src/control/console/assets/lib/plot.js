// Plots by hand, in SVG: lines, bars and bands over time, with thresholds, alerts, and a reading under the pointer or the
// arrow keys.

import { h, s } from './dom.js';
import { tick } from './format.js';

const TOP = 8;
const BOTTOM = 20;
const RIGHT = 10;

/** The columns of a grid of plots in so much room, and how wide each plot is. */
export function columns(room, least = 340, gap = 12, padding = 28) {
  const n = Math.max(1, Math.floor((room + gap) / (least + gap)));
  return { n, width: Math.floor((room - gap * (n - 1)) / n) - padding };
}

function steps(low, high, most) {
  const raw = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((one) => one >= raw) || raw || 1;
  const out = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) out.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return out;
}

const SPANS = [1e3, 5e3, 15e3, 30e3, 60e3, 300e3, 900e3, 1800e3, 3600e3, 3 * 3600e3, 6 * 3600e3, 12 * 3600e3, 86400e3, 2 * 86400e3, 7 * 86400e3, 14 * 86400e3, 30 * 86400e3, 91 * 86400e3, 365 * 86400e3];

function timeSteps(low, high, most) {
  const length = high - low;
  const step = SPANS.find((one) => length / one <= most) || length;
  const out = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) out.push(at);
  return out;
}

/**
 * A plot. `series`: [{name, tone, points: [{x, y, low, high, alarm, open}], dash, kind: line|step|bar}], x in milliseconds.
 * `lines`: levels with names; `spans`: [{from, to, name}]; `form(value)` writes a value; `xForm` writes x where it is no time.
 */
export function plot({ label, series, width, height = 150, form, xForm, lines = [], spans = [], zero = false, least = null, most = null }) {
  const all = series.flatMap((one) => one.points).filter((p) => p.y !== null && p.y !== undefined && Number.isFinite(p.y));
  if (!all.length) return h('p', { class: 'no-plot muted' }, 'No values yet.');
  const values = all.flatMap((p) => [p.y, p.low, p.high]).filter((v) => v !== null && v !== undefined && Number.isFinite(v));
  for (const line of lines) values.push(line.at);
  if (zero) values.push(0);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) { const pad = Math.abs(low) * 0.1 || 1; low -= zero && low >= 0 ? 0 : pad; high += pad; }
  const pad = (high - low) * 0.06;
  if (!(zero && low === 0)) low -= pad;
  high += pad;
  if (least !== null) low = Math.max(low, least);
  if (most !== null) high = Math.min(high, most);
  const bars = series.some((one) => one.kind === 'bar');
  const xs = all.map((p) => p.x);
  let [first, last] = [Math.min(...xs), Math.max(...xs)];
  for (const span of spans) last = Math.max(last, Math.min(span.to ?? last, last));
  if (first === last) { first -= 0.5; last += 0.5; }
  const ys = steps(low, high, Math.max(2, Math.round(height / 42)));
  const written = ys.map(form);
  const left = Math.min(90, Math.max(30, 10 + 6.1 * Math.max(...written.map((t) => t.length))));
  const w = Math.max(160, width);
  const slot = bars ? (w - left - RIGHT) / Math.max(1, new Set(xs).size) : 0;
  const x = (at) => left + slot / 2 + ((at - first) / (last - first)) * (w - left - RIGHT - slot);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM);
  const fixed = (n) => Number(n.toFixed(1));
  const parts = [];
  ys.forEach((value, i) => parts.push(
    s('path', { class: 'rule', d: `M${left} ${fixed(y(value))}H${w - RIGHT}` }),
    s('text', { class: 'axis', x: left - 6, y: fixed(y(value) + 3.5), 'text-anchor': 'end' }, written[i])));
  const room = Math.max(2, Math.floor((w - left) / 84));
  const marks = xForm ? steps(first, last, room).filter(Number.isInteger) : timeSteps(first, last, room);
  for (const at of marks) {
    const text = xForm ? xForm(at) : tick(at, last - first);
    const half = text.length * 2.9;
    const px = Math.min(w - half, Math.max(left + half - 24, x(at)));
    parts.push(s('text', { class: 'axis', x: fixed(px), y: height - 5, 'text-anchor': 'middle' }, text));
  }
  for (const span of spans) {
    const from = Math.max(first, span.from);
    const to = Math.min(last, span.to ?? last);
    if (to >= from) parts.push(s('rect', { class: `span ${span.tone || ''}`, x: fixed(x(from)), y: TOP, width: fixed(Math.max(2, x(to) - x(from))), height: height - TOP - BOTTOM }, s('title', null, span.name)));
  }
  for (const one of series) parts.push(drawn(one, { x, y, fixed, slot, base: y(Math.max(low, Math.min(0, high))) }));
  for (const line of lines) {
    parts.push(s('path', { class: `level ${line.tone || ''}`, d: `M${left} ${fixed(y(line.at))}H${w - RIGHT}` }));
    if (line.name) parts.push(s('text', { class: 'axis level-name', x: w - RIGHT - 2, y: fixed(y(line.at) - 4), 'text-anchor': 'end' }, line.name));
  }
  parts.push(s('path', { class: 'cursor', d: `M-9 ${TOP}V${height - BOTTOM}` }));
  const sorted = [...new Set(xs)].sort((a, b) => a - b);
  const newest = series.map((one) => [...one.points].reverse().find((p) => Number.isFinite(p.y) && p.y !== null)).map((p, i) => p && `${series[i].name || 'newest'} ${form(p.y)}`).filter(Boolean).join(', ');
  return s('svg', {
    class: 'plot', viewBox: `0 0 ${w} ${height}`, width: w, height, role: 'img', tabindex: 0,
    'aria-label': `${label}: ${newest}. Arrow keys read values.`,
    data: { xs: sorted, px: sorted.map(x), series, form, xForm, label },
    on: {
      pointermove: (event) => read(event.currentTarget, event.offsetX * (w / (event.currentTarget.clientWidth || w))),
      pointerleave: hide, blur: hide, keydown: step,
    },
  }, parts);
}

function drawn(one, { x, y, fixed, slot, base }) {
  const valued = (p) => p.y !== null && p.y !== undefined && Number.isFinite(p.y);
  if (one.kind === 'bar') {
    return one.points.filter(valued).map((p) => s('rect', { class: `b t${one.tone}`, x: fixed(x(p.x) - slot * 0.38), width: fixed(Math.max(1, slot * 0.76)), y: fixed(Math.min(y(p.y), base)), height: fixed(Math.max(1, Math.abs(base - y(p.y)))) }));
  }
  const parts = [];
  const banded = one.points.filter((p) => valued(p) && Number.isFinite(p.low) && Number.isFinite(p.high) && p.low !== null && p.high !== null);
  if (banded.length > 1) {
    const up = banded.map((p) => `${fixed(x(p.x))} ${fixed(y(p.high))}`);
    const down = [...banded].reverse().map((p) => `${fixed(x(p.x))} ${fixed(y(p.low))}`);
    parts.push(s('path', { class: `band t${one.tone}`, d: `M${up.join('L')}L${down.join('L')}Z` }));
  }
  let path = '';
  let pen = false;
  let before = null;
  for (const p of one.points) {
    if (!valued(p)) { pen = false; continue; }
    const at = `${fixed(x(p.x))} ${fixed(y(p.y))}`;
    path += !pen ? `M${at}` : one.kind === 'step' ? `H${fixed(x(p.x))}V${fixed(y(p.y))}` : `L${at}`;
    pen = true;
    before = p;
  }
  parts.push(s('path', { class: ['line', `t${one.tone}`, one.dash && 'dash'], d: path }));
  const dots = one.points.filter((p) => valued(p) && (p.alarm || p.open || one.points.length < 25));
  for (const p of dots) {
    // An alarm is a triangle, what may still change is hollow.
    const [cx, cy] = [fixed(x(p.x)), fixed(y(p.y))];
    if (p.alarm) parts.push(s('path', { class: 'alarm', d: `M${cx} ${cy - 5.5}l5 8.6h-10z` }));
    else parts.push(s('circle', { class: `dot t${one.tone}${p.open ? ' open' : ''}`, cx, cy, r: p.open ? 2.6 : 2.1 }));
  }
  return before ? parts : null;
}

let tip = null;

function hide() {
  if (tip) tip.hidden = true;
  for (const cursor of document.querySelectorAll('.cursor.on')) cursor.classList.remove('on');
}

function read(svg, px) {
  const { px: places } = svg.$data;
  let best = 0;
  places.forEach((place, i) => { if (Math.abs(place - px) < Math.abs(places[best] - px)) best = i; });
  show(svg, best);
}

function show(svg, index) {
  const { xs, px, series, form, xForm, label } = svg.$data;
  svg.$at = index;
  const at = xs[index];
  if (!tip) document.body.append(tip = h('div', { class: 'tip', role: 'status' }));
  const rows = series.map((one) => {
    const p = one.points.find((point) => point.x === at);
    if (!p || p.y === null || p.y === undefined) return null;
    const range = p.low !== undefined && p.low !== null && p.high !== null ? ` (${form(p.low)} to ${form(p.high)})` : '';
    const more = [p.alarm && 'beyond its threshold', p.open && 'may still change', p.note].filter(Boolean).join(', ');
    return h('div', null, h('i', { class: `key t${one.tone}` }), one.name ? `${one.name} ` : '', h('b', null, form(p.y) + range), more ? h('span', { class: 'muted' }, ` ${more}`) : null);
  });
  const when = xForm ? xForm(at) : new Date(at).toISOString().slice(0, 19).replace('T', ' ') + ' UTC';
  tip.replaceChildren(h('div', { class: 'tip-title' }, `${label} · ${when}`), ...rows.filter(Boolean));
  tip.hidden = false;
  const box = svg.getBoundingClientRect();
  const scale = box.width / svg.viewBox.baseVal.width;
  const x = box.left + px[index] * scale;
  const wide = tip.offsetWidth;
  tip.style.left = `${Math.max(6, Math.min(innerWidth - wide - 6, x + (x + wide + 20 > innerWidth ? -wide - 12 : 12)))}px`;
  tip.style.top = `${Math.max(6, box.top + scrollY + 4)}px`;
  const cursor = svg.querySelector('.cursor');
  cursor.setAttribute('d', cursor.getAttribute('d').replace(/^M[-\d.]+/, `M${px[index].toFixed(1)}`));
  cursor.classList.add('on');
}

function step(event) {
  const svg = event.currentTarget;
  const last = svg.$data.xs.length - 1;
  const at = svg.$at ?? last;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
  if (event.key === 'Escape') hide();
  if (to === undefined) return;
  event.preventDefault();
  show(svg, Math.max(0, Math.min(last, to)));
}

/** What the colours of a plot stand for. */
export function legend(series, more = []) {
  return h('div', { class: 'legend' }, series.map((one) => h('span', null, h('i', { class: `key t${one.tone}` }), one.name)), more.map(([cls, text]) => h('span', null, h('i', { class: `key ${cls}` }), text)));
}

/** A plot with its title in a frame. */
export function card(title, note, body, foot) {
  return h('figure', { class: 'card' }, h('figcaption', null, h('b', null, title), note && h('span', { class: 'muted' }, note)), body, foot);
}

/** A line of values without axes. */
export function spark(values, label, width = 84, height = 20) {
  const known = values.filter((v) => v !== null && Number.isFinite(v));
  if (known.length < 2) return h('span', { class: 'muted' }, '');
  const high = Math.max(...known, 1e-9);
  const at = (v, i) => `${((i / (values.length - 1)) * (width - 2) + 1).toFixed(1)} ${(height - 2 - (Math.max(0, v || 0) / high) * (height - 4)).toFixed(1)}`;
  return s('svg', { class: 'spark', viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label }, s('path', { class: 'line t0', d: `M${values.map(at).join('L')}` }));
}
