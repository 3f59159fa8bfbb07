// What was done with the job, and what it did by itself.

import { h } from '../../lib/dom.js';
import { get, listOf, path } from '../../lib/api.js';
import * as f from '../../lib/format.js';
import { empty, table } from '../../lib/ui.js';

export async function load({ id }, signal) {
  const told = await get(path('jobs', id, 'history'), signal);
  return { events: listOf(told, told && told.history ? 'history' : 'events') };
}

export function view({ own }) {
  const events = [...own.events].sort((a, b) => f.millis(b.at) - f.millis(a.at));
  if (!events.length) return empty('Nothing has happened yet', 'Submissions, starts, stops, upgrades, savepoints and deaths are told here.');
  return table('Events', [
    { name: 'When', of: (event) => f.time(event.at) },
    { name: 'What', of: (event) => h('b', null, event.what) },
    { name: 'Outcome', of: (event) => event.outcome },
    { name: 'By', of: (event) => event.who },
    { name: 'File', num: true, of: (event) => (event.version ? `version ${event.version}` : '') },
    { name: '', cls: 'text', of: (event) => event.detail },
  ], events);
}
