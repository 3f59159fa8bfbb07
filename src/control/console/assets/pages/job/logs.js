// The end of the job's log.

import { h } from '../../lib/dom.js';
import { get, path } from '../../lib/api.js';
import { empty, save, button } from '../../lib/ui.js';

export async function load({ id, ctx }, signal) {
  const told = await get(`${path('jobs', id, 'logs')}?tail=${ctx.state.tail || 400}`, signal);
  return { lines: typeof told === 'string' ? told.split('\n') : told.lines || [] };
}

const LEVEL = /\b(ERROR|WARN|INFO|DEBUG|TRACE)\b/;

export function view({ job, own, ctx }) {
  const search = (ctx.state.search || '').toLowerCase();
  const shown = own.lines.filter((line) => !search || line.toLowerCase().includes(search));
  return [
    h('div', { class: 'bar-line' },
      h('input', { type: 'search', class: 'search', placeholder: 'Search these lines', 'aria-label': 'Search the log', on: { input: (event) => ctx.set({ search: event.target.value }) } }),
      h('label', { class: 'small' }, 'Lines ', h('select', { on: { change: (event) => { ctx.set({ tail: Number(event.target.value) }); ctx.refresh(); } } }, [100, 400, 2000].map((n) => h('option', { value: n, selected: n === (ctx.state.tail || 400) }, n)))),
      button('Save', () => save(`${job.id}.log`, own.lines.join('\n')), { kind: 'small' }),
      h('span', { class: 'muted small' }, 'newest last')),
    own.lines.length ? h('pre', { class: 'log', tabindex: 0, 'aria-label': 'Log' }, shown.map((line) => {
      const level = (LEVEL.exec(line.slice(0, 80)) || [])[1];
      return h('span', { class: level ? `l-${level.toLowerCase()}` : null }, `${line}\n`);
    })) : empty('The log is empty', 'A job writes to it when something is worth telling.'),
  ];
}
