// The dataflow graph, and what is known of the node that is chosen.

import { h } from '../../lib/dom.js';
import * as f from '../../lib/format.js';
import { graph } from '../../lib/graph.js';
import { bar, button, pairs, section, state } from '../../lib/ui.js';
import { asleep, pressureBar } from './shared.js';

export const load = async () => ({});

export function view({ job, status, ctx }) {
  if (!status) return asleep(job);
  const { nodes, edges } = status.graph;
  const node = nodes.find((one) => one.id === ctx.state.node);
  return [
    h('div', { class: 'graph-top' },
      h('div', { class: 'legend' },
        h('span', null, h('i', { class: 'key t0' }), 'busy below 60 %'), h('span', null, h('i', { class: 'key warm' }), '60 to 90 %'), h('span', null, h('i', { class: 'key hot' }), 'above: it holds the others up'),
        h('span', { class: 'muted' }, 'Lines are as wide as rows flow.')),
      h('div', { class: 'legend' }, h('span', null, 'Ticks in flight ', h('b', { class: 'num' }, `${f.count(status.ticks_in_flight)} of ${f.count(status.ticks_in_flight_max)}`)), h('span', null, 'Backpressure ', pressureBar(status.backpressure)))),
    h('div', { class: node ? 'graph-room with-side' : 'graph-room' },
      graph(nodes, edges, ctx.state.node, (id) => ctx.set({ node: ctx.state.node === id ? null : id })),
      node ? details(node, status, ctx) : null),
    h('p', { class: 'muted small' }, node ? '' : 'Choose a node to see more of it.'),
  ];
}

function details(node, status, ctx) {
  const named = (id) => status.graph.nodes.find((one) => one.id === id)?.name || id;
  const model = node.kind === 'model' && status.models.find((one) => one.name === node.name);
  const source = node.kind === 'source' && status.sources.find((one) => one.name === node.name);
  const from = status.graph.edges.filter((edge) => edge.to === node.id).map((edge) => named(edge.from));
  const to = status.graph.edges.filter((edge) => edge.from === node.id).map((edge) => named(edge.to));
  return h('aside', { class: 'side-panel', 'aria-label': `About ${node.name}` },
    h('div', { class: 'panel-head' }, h('div', null, h('span', { class: 'kind' }, node.kind), h('h3', null, node.name)), button('Close', () => ctx.set({ node: null }), { kind: 'small' })),
    pairs([
      ['Rows in', `${f.rate(node.rate_in)} · ${f.count(node.rows_in)} so far`],
      [node.kind === 'sink' ? 'Written' : 'Rows out', `${f.rate(node.rate_out)} · ${f.count(node.rows_out)} so far`],
      ['Queued', `${f.count(node.queued)} rows`],
      ['Busy', h('span', { class: 'bar-with' }, bar(node.busy, node.busy >= 0.9 ? 'hot' : node.busy >= 0.6 ? 'warm' : ''), h('span', { class: 'num' }, f.share(node.busy)))],
      node.keys !== undefined && node.keys !== null ? ['Keys', f.count(node.keys)] : null,
      node.state_bytes !== undefined && node.state_bytes !== null ? ['State', f.bytes(node.state_bytes)] : null,
      node.keys && node.state_bytes ? ['A key takes', f.bytes(node.state_bytes / node.keys)] : null,
      from.length ? ['From', from.join(', ')] : null,
      to.length ? ['To', to.join(', ')] : null,
      source ? ['Late', `${f.count(source.late)} rows`] : null,
      source ? ['Dead letters', `${f.count(source.dead)} rows`] : null,
      model && model.latency_ms ? ['Latency', `${f.duration(model.latency_ms.p50)} median, ${f.duration(model.latency_ms.p99)} p99`] : null,
      model ? ['Not scored', `${f.count(model.unscored)} rows`] : null,
    ]),
    model ? section('Routes', null, h('ul', { class: 'plain-list' }, model.routes.map((route) => h('li', null, h('b', null, route.version), ` ${route.role} `, route.role === 'shadow' ? '' : f.share(route.share))))) : null,
    node.kind === 'monitor' && status.alerts.length ? section('Alerts', null, h('ul', { class: 'plain-list' }, status.alerts.map((alert) => h('li', null, state(alert.severity), ' ', h('b', null, alert.name), h('p', null, alert.text))))) : null);
}
