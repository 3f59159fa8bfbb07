// The dataflow graph of a job, laid out from left to right.

import { h, s } from './dom.js';
import * as f from './format.js';

const W = 168;
const H = 72;
const GAP_X = 56;
const GAP_Y = 18;
// Room for an edge that passes through a layer on its way.
const LANE = 10;

/**
 * Where each node stands: by its longest way from a source, then near those that it is joined to. An edge that passes
 * layers has a lane in each, so that it goes around the nodes there.
 */
export function layout(nodes, edges) {
  const known = new Set(nodes.map((node) => node.id));
  const seen = new Set();
  const real = edges.filter((edge) => {
    const key = `${edge.from}>${edge.to}`;
    const good = known.has(edge.from) && known.has(edge.to) && edge.from !== edge.to && !seen.has(key);
    seen.add(key);
    return good;
  });
  const layer = depths(nodes, real);
  const layers = [];
  for (const node of nodes) (layers[layer.get(node.id)] ||= []).push(node.id);
  const [into, out] = [new Map(), new Map()];
  const join = (a, b) => { if (!out.has(a)) out.set(a, []); if (!into.has(b)) into.set(b, []); out.get(a).push(b); into.get(b).push(a); };
  const lanes = new Map();
  for (const edge of real) {
    const stops = [edge.from];
    for (let l = layer.get(edge.from) + 1; l < layer.get(edge.to); l += 1) {
      const lane = `lane ${edge.from}>${edge.to} ${l}`;
      layers[l].push(lane);
      stops.push(lane);
    }
    stops.push(edge.to);
    stops.slice(1).forEach((stop, i) => join(stops[i], stop));
    lanes.set(`${edge.from}>${edge.to}`, stops.slice(1, -1));
  }
  const tall = (id) => (known.has(id) ? H : LANE);
  const middle = new Map();
  const stack = (ids) => {
    const whole = ids.reduce((sum, id) => sum + tall(id) + GAP_Y, -GAP_Y);
    let y = -whole / 2;
    for (const id of ids) { middle.set(id, y + tall(id) / 2); y += tall(id) + GAP_Y; }
    return whole;
  };
  layers.forEach(stack);
  for (let round = 0; round < 8; round += 1) {
    const [list, side] = round % 2 === 0 ? [layers, into] : [[...layers].reverse(), out];
    for (const ids of list) {
      const weight = new Map(ids.map((id) => { const near = side.get(id) || []; return [id, near.length ? near.reduce((sum, one) => sum + middle.get(one), 0) / near.length : middle.get(id)]; }));
      ids.sort((a, b) => weight.get(a) - weight.get(b));
      stack(ids);
    }
  }
  const height = Math.max(H, ...layers.map(stack));
  const place = new Map();
  layers.forEach((ids, l) => ids.forEach((id) => place.set(id, { x: l * (W + GAP_X), y: height / 2 + middle.get(id) - tall(id) / 2, layer: l })));
  const ways = new Map([...lanes].map(([key, stops]) => [key, stops.map((stop) => { const { x, y } = place.get(stop); return { x, y: y + LANE / 2 }; })]));
  return { place, edges: real, ways, width: layers.length * (W + GAP_X) - GAP_X, height };
}

function depths(nodes, edges) {
  const into = new Map(nodes.map((node) => [node.id, []]));
  for (const edge of edges) into.get(edge.to).push(edge.from);
  const layer = new Map();
  const path = new Set();
  const depth = (id) => {
    if (layer.has(id)) return layer.get(id);
    if (path.has(id)) return 0;
    path.add(id);
    const at = Math.max(-1, ...into.get(id).map(depth)) + 1;
    path.delete(id);
    layer.set(id, at);
    return at;
  };
  nodes.forEach((node) => depth(node.id));
  return layer;
}

// From the right side of a node through its lanes to the left side of another.
function way(from, to, lanes) {
  const stops = [{ x: from.x + W, y: from.y + H / 2 }];
  for (const lane of lanes) stops.push({ x: lane.x, y: lane.y }, { x: lane.x + W, y: lane.y });
  stops.push({ x: to.x - 5, y: to.y + H / 2 });
  let path = `M${stops[0].x} ${stops[0].y.toFixed(1)}`;
  for (let i = 1; i < stops.length; i += 1) {
    const [a, b] = [stops[i - 1], stops[i]];
    const y = b.y.toFixed(1);
    if (i % 2 === 0) path += `H${b.x}`;
    else { const bend = (b.x - a.x) / 2; path += `C${a.x + bend} ${a.y.toFixed(1)} ${b.x - bend} ${y} ${b.x} ${y}`; }
  }
  return path;
}

/** How hard a node is pressed: by how busy it is and by what waits for it. */
export function pressure(node) {
  const busy = Number(node.busy) || 0;
  if (busy >= 0.9) return 'hot';
  return busy >= 0.6 ? 'warm' : '';
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// A sink says what it is and what it writes: `table/features/customer`.
function called(node) {
  const name = String(node.name);
  const at = node.kind === 'sink' ? name.indexOf('/') : -1;
  return at < 0 ? [node.kind, name] : [`${node.kind} · ${name.slice(0, at)}`, name.slice(at + 1)];
}

/** The graph as SVG; `chosen` is a node's id, `choose(id)` is called with another. */
export function graph(nodes, edges, chosen, choose) {
  const { place, edges: real, ways, width, height } = layout(nodes, edges);
  const by = new Map(nodes.map((node) => [node.id, node]));
  const most = Math.max(1, ...nodes.map((node) => node.rate_out || 0));
  const lines = real.map((edge) => {
    const key = `${edge.from}>${edge.to}`;
    const flow = by.get(edge.from).rate_out || 0;
    const tone = pressure(by.get(edge.to));
    return s('path', {
      key, class: `edge ${flow > 0 ? 'flows' : ''} ${tone}`, 'marker-end': 'url(#arrow)',
      'stroke-width': (1 + 2.2 * Math.sqrt(flow / most)).toFixed(2), d: way(place.get(edge.from), place.get(edge.to), ways.get(key)),
    }, s('title', null, `${by.get(edge.from).name} to ${by.get(edge.to).name}: ${f.rate(flow)}`));
  });
  const boxes = nodes.map((node) => {
    const { x, y } = place.get(node.id);
    const busy = Math.max(0, Math.min(1, Number(node.busy) || 0));
    const tone = pressure(node);
    const [kind, name] = called(node);
    const keyed = node.keys !== undefined && node.keys !== null;
    const texts = [kind, node.queued ? `${f.brief(node.queued)} queued` : '', cut(name, 20), f.rate(node.kind === 'sink' ? node.rate_in : node.rate_out), keyed ? `${f.brief(node.keys)} keys` : ''];
    const says = `${node.kind} ${node.name}: ${f.rate(node.rate_out)} out, ${f.count(node.queued)} queued, ${f.share(busy)} busy${keyed ? `, ${f.count(node.keys)} keys` : ''}`;
    return s('g', {
      key: node.id, class: ['node', `k-${node.kind}`, tone, node.id === chosen && 'on'], transform: `translate(${x} ${y})`,
      tabindex: 0, role: 'button', 'aria-label': `${texts.filter(Boolean).join(' ')}, ${f.share(busy)} busy`, 'aria-pressed': String(node.id === chosen), 'data-id': node.id,
      on: {
        click: () => choose(node.id),
        keydown: (event) => {
          if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); choose(node.id); }
          else walk(event, node.id, place);
        },
      },
    },
    s('rect', { class: 'box', width: W, height: H, rx: 6 }),
    s('path', { class: 'stripe', d: `M0 6q0-6 6-6v${H}q-6 0-6-6z` }),
    s('text', { class: 'kind', x: 14, y: 17 }, texts[0]),
    s('text', { class: 'queue', x: W - 10, y: 17, 'text-anchor': 'end' }, texts[1]),
    s('text', { class: 'name', x: 14, y: 35 }, texts[2]),
    s('text', { class: 'rate', x: 14, y: 54 }, texts[3]),
    s('text', { class: 'rate muted', x: W - 10, y: 54, 'text-anchor': 'end' }, texts[4]),
    s('rect', { class: 'busy-room', x: 14, y: 61, width: W - 24, height: 4, rx: 2 }),
    s('rect', { class: 'busy', x: 14, y: 61, width: ((W - 24) * busy).toFixed(1), height: 4, rx: 2 }),
    s('title', null, says));
  });
  const arrow = s('defs', null, s('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 6, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: 'userSpaceOnUse', orient: 'auto' }, s('path', { class: 'head-of-edge', d: 'M0 .5 7.5 4 0 7.5z' })));
  return h('div', { class: 'graph scroll', role: 'region', 'aria-label': 'Dataflow graph' },
    s('svg', { vars: { '--w': `${width + 8}px` }, viewBox: `-4 -6 ${width + 8} ${height + 12}`, width: width + 8, height: height + 12, role: 'group', 'aria-label': 'Nodes, from sources to sinks; arrow keys go from one to the next' }, arrow, lines, boxes));
}

// The nearest node in the direction of the key.
function walk(event, id, place) {
  const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  if (!way) return;
  event.preventDefault();
  const own = place.get(id);
  let best = null;
  for (const [other, at] of place) {
    const [dx, dy] = [at.x - own.x, at.y - own.y];
    const ahead = dx * way[0] + dy * way[1];
    if (ahead <= 0 || other.startsWith('lane ')) continue;
    const far = ahead + 2 * Math.abs(dx * way[1] + dy * way[0]);
    if (!best || far < best.far) best = { other, far };
  }
  if (best) event.currentTarget.parentNode.querySelector(`[data-id="${CSS.escape(best.other)}"]`).focus();
}
