// The key map.

import { h } from '../lib/dom.js';
import { head, section } from '../lib/ui.js';
import { KEYS } from '../lib/keys.js';

export const once = true;
export const load = async () => ({});

export function view() {
  return [head('Keys'),
    section('Everywhere', 'in fields keys are what you type', h('dl', { class: 'keys' }, KEYS.map(([keys, what]) => [h('dt', null, keys.split(' ').map((key) => h('kbd', null, key))), h('dd', null, what)]))),
    section('More', null, h('p', null, 'Every page has an address of its own, so it can be kept and sent. The same data are at ', h('code', null, '/api/v1'), '; ', h('a', { href: '/openapi.json' }, '/openapi.json'), ' describes it, ', h('a', { href: '/metrics' }, '/metrics'), ' is for Prometheus.'))];
}
