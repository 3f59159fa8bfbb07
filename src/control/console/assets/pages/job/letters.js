// Late rows and dead letters, with the rows as they came.

import { h } from '../../lib/dom.js';
import { get, listOf, path } from '../../lib/api.js';
import { decode, hex, visible } from '../../lib/bytes.js';
import * as f from '../../lib/format.js';
import { chip, empty, save, button } from '../../lib/ui.js';

const NEWEST = 200;

export async function load({ id, ctx }, signal) {
  const told = await ctx.slow.get('letters', 4000, () => get(`${path('jobs', id, 'dead-letters')}?limit=${NEWEST}`, signal));
  return { letters: listOf(told, 'letters'), from: told && told.from };
}

export function view({ status, own, ctx }) {
  const kinds = new Map();
  for (const letter of own.letters) kinds.set(letter.kind, (kinds.get(letter.kind) || 0) + 1);
  const wanted = ctx.state.kind;
  const search = (ctx.state.search || '').toLowerCase();
  const shown = own.letters.filter((one) => (!wanted || one.kind === wanted) && (!search || `${one.source} ${one.reason} ${one.text || ''}`.toLowerCase().includes(search)));
  const late = status ? status.sources.filter((source) => source.late > 0) : [];
  return [
    late.length ? h('p', { class: 'remark' }, `Late rows that were dropped: ${late.map((s) => `${s.name} ${f.count(s.late)}`).join(', ')}. Those that are kept are below, as kind “late”.`) : null,
    own.letters.length === 0 ? empty('No dead letters', 'Every row could be read and passed its checks. A row that cannot is kept here with its bytes, its position and the reason.') : [
      h('div', { class: 'bar-line' },
        h('input', { type: 'search', class: 'search', placeholder: 'Search reasons and content', 'aria-label': 'Search dead letters', on: { input: (event) => ctx.set({ search: event.target.value }) } }),
        h('div', { class: 'chips', role: 'group', 'aria-label': 'Kinds' }, [...kinds].sort((a, b) => b[1] - a[1]).map(([kind, n]) => h('button', { type: 'button', class: `chip as-button ${wanted === kind ? 'on' : ''}`, 'aria-pressed': String(wanted === kind), on: { click: () => ctx.set({ kind: wanted === kind ? null : kind }) } }, kind, h('span', { class: 'num' }, ` ${f.count(n)}`)))),
        h('span', { class: 'muted small' }, own.from === 'tables' ? `the newest ${f.count(own.letters.length)} of the tables` : `the newest ${f.count(own.letters.length)} that the job has in memory`)),
      shown.length ? h('ul', { class: 'letters' }, shown.map((letter) => one(letter, ctx))) : empty('None of these', 'Clear the search or choose another kind.'),
    ],
  ];
}

function one(letter, ctx) {
  const key = `${letter.source}/${letter.partition}/${letter.offset}/${letter.kind}`;
  const bytes = decode(letter.bytes_base64 || '');
  const asHex = ctx.state[`hex ${key}`] || letter.text === undefined || letter.text === null;
  return h('li', { key },
    h('details', null,
      h('summary', null,
        h('span', { class: 'letter-kind' }, chip(letter.kind, 'warn')),
        h('span', { class: 'letter-reason' }, visible(letter.reason)),
        h('span', { class: 'letter-where num muted' }, `${letter.source} · ${f.count(letter.partition)} · ${f.count(letter.offset)}`),
        h('span', { class: 'letter-when' }, f.ago(letter.at))),
      h('div', { class: 'letter-body' },
        h('div', { class: 'bar-line small' },
          h('span', null, 'Source ', h('b', null, letter.source)), h('span', null, 'partition ', h('b', { class: 'num' }, f.count(letter.partition))), h('span', null, 'offset ', h('b', { class: 'num' }, f.count(letter.offset))),
          letter.event_time ? h('span', null, 'event time ', f.time(letter.event_time)) : null,
          h('span', null, 'noted ', f.time(letter.at)),
          h('span', null, f.bytes(letter.bytes ?? bytes.length), letter.bytes > bytes.length ? ', cut' : ''),
          letter.text !== undefined && letter.text !== null ? button(asHex ? 'As text' : 'As bytes', () => ctx.set({ [`hex ${key}`]: !asHex }), { kind: 'small' }) : chip('no UTF-8', 'warn'),
          button('Save', () => save(`${letter.source}-${letter.partition}-${letter.offset}.bin`, bytes, 'application/octet-stream'), { kind: 'small' })),
        h('pre', { class: 'code-block letter-text', tabindex: 0, 'aria-label': 'Content' }, asHex ? hex(bytes) : visible(letter.text)))));
}
