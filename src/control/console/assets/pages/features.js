// The features of all jobs: search, what they are, and the live values of an entity.

import { h } from '../lib/dom.js';
import { get, listOf, path } from '../lib/api.js';
import * as f from '../lib/format.js';
import { chip, empty, fact, head, section, table, trouble } from '../lib/ui.js';

export async function load(ctx, signal) {
  const features = await ctx.slow.get('features', 8000, async () => listOf(await get('/features', signal), 'views'));
  const value = ctx.parts[2] && ctx.query.get('key') ? await read(ctx, signal) : null;
  return { views: features, value };
}

async function read(ctx, signal) {
  const keys = ctx.query.getAll('key').map((key) => `key=${encodeURIComponent(key)}`).join('&');
  try {
    return { row: await get(`${path('jobs', ctx.parts[1], 'features', ctx.parts[2], 'value')}?${keys}`, signal) };
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    return { error };
  }
}

export function view({ views, value }, ctx) {
  if (ctx.parts[2]) return one(views, value, ctx);
  const search = (ctx.state.search ?? ctx.query.get('q') ?? '').toLowerCase().split(/\s+/).filter(Boolean);
  const rows = views.flatMap((view) => view.features.map((feature) => ({ view, feature })));
  const text = ({ view, feature }) => `${view.job} ${view.view} ${view.kind} ${view.entity.map((e) => e.name).join(' ')} ${feature.name} ${feature.type} ${feature.description}`.toLowerCase();
  const shown = rows.filter((row) => { const own = text(row); return search.every((word) => own.includes(word)); });
  const most = 400;
  return [
    head('Features', `${f.count(rows.length)} in ${f.count(views.length)} views`, h('input', { type: 'search', class: 'search', placeholder: 'Search names, types, descriptions', 'aria-label': 'Search features', value: ctx.query.get('q') || '', on: { input: (event) => ctx.set({ search: event.target.value }) } })),
    !rows.length ? empty('No features yet', 'Features are the columns of a job’s views. Submit a job with `features`.')
      : !shown.length ? empty('No feature has these words', 'All words of the search must occur in its name, view, job, entity, type or description.')
        : table('Features', [
          { name: 'Feature', of: ({ feature }) => h('b', null, feature.name) },
          { name: 'View', of: ({ view }) => [view.view, view.kind === 'view' ? null : h('span', { class: 'sub' }, 'feature set')] },
          { name: 'Entity', of: ({ view }) => view.entity.map((e) => e.name).join(', ') },
          { name: 'Type', of: ({ feature }) => h('code', null, feature.type) },
          { name: 'What it is', cls: 'text', of: ({ feature }) => feature.description },
          { name: 'Job', of: ({ view }) => h('a', { href: `#/jobs/${encodeURIComponent(view.job)}` }, view.job) },
        ], shown.slice(0, most), { key: ({ view, feature }) => `${view.job}/${view.view}/${feature.name}`, open: ({ view }) => `#/features/${encodeURIComponent(view.job)}/${encodeURIComponent(view.view)}` }),
    shown.length > most ? h('p', { class: 'muted' }, `${f.count(shown.length - most)} more; search for them.`) : null,
  ];
}

function one(views, value, ctx) {
  const [, job, name] = ctx.parts;
  const found = views.find((view) => view.job === job && view.view === name);
  if (!found) return [head(name, null, h('a', { class: 'back', href: '#/features' }, '‹ Features')), empty('There is no such view', 'Its job may have been deleted, or its file changed.')];
  const values = new Map(value && value.row ? Object.entries(value.row.statuses).map(([key, status]) => [key, { status, value: value.row.features[key] }]) : []);
  const asked = new Map(ctx.query.getAll('key').map((key) => [key.slice(0, key.indexOf('=')), key.slice(key.indexOf('=') + 1)]));
  return [
    head(name, [
      fact('Job', h('a', { href: `#/jobs/${encodeURIComponent(job)}` }, job)), fact('Entity', found.entity.map((e) => `${e.name} (${e.type})`).join(', ')),
      fact('From', found.from), found.ttl_ms ? fact('Kept for', f.duration(found.ttl_ms), 'An entity whose last event is older is not served') : null,
      fact('Online', found.online || 'no online store'),
    ], h('a', { class: 'back', href: '#/features' }, '‹ Features')),
    found.online ? section('An entity, now', null,
      h('form', {
        class: 'entity', on: {
          submit: (event) => {
            event.preventDefault();
            const form = new FormData(event.currentTarget);
            const keys = found.entity.map((e) => `key=${encodeURIComponent(`${e.name}=${form.get(e.name).trim()}`)}`).join('&');
            ctx.go(`#/features/${encodeURIComponent(job)}/${encodeURIComponent(name)}?${keys}`);
          },
        },
      },
      found.entity.map((e) => h('label', null, h('span', null, e.name), h('input', { name: e.name, type: 'text', required: true, autocomplete: 'off', spellcheck: 'false', value: asked.get(e.name) || '' }))),
      h('button', { type: 'submit', class: 'button primary' }, 'Read')),
      value && value.error ? trouble(value.error) : null,
      value && value.row ? standing(value.row) : null) : null,
    section('Features', f.count(found.features.length), table(`Features of ${name}`, [
      { name: 'Feature', of: (feature) => h('b', null, feature.name) },
      value && value.row ? { name: 'Value', num: true, cls: 'value', of: (feature) => (feature.online ? shown(values.get(feature.name)) : h('span', { class: 'muted', title: 'It follows from the others and from the request' }, 'with a request')) } : null,
      { name: 'Type', of: (feature) => h('code', null, feature.type) },
      { name: 'What it is', cls: 'text', of: (feature) => feature.description },
    ].filter(Boolean), found.features, { key: (feature) => feature.name })),
  ];
}

function shown(feature) {
  if (!feature) return '–';
  if (feature.status !== 'PRESENT') return h('span', { class: 'muted' }, { NULL_VALUE: 'null', NOT_FOUND: 'not known', OUTSIDE_MAX_AGE: 'too old' }[feature.status] || feature.status);
  const { value } = feature;
  return typeof value === 'number' ? (Number.isInteger(value) ? f.count(value) : h('span', { title: String(value) }, f.number(value))) : typeof value === 'string' ? value : JSON.stringify(value);
}

function standing(row) {
  const words = { PRESENT: ['known', 'good'], NOT_FOUND: ['not known', 'warn'], OUTSIDE_MAX_AGE: ['older than its time to live', 'warn'], NULL_VALUE: ['known', 'good'] }[row.status] || [row.status, ''];
  const age = row.event_time && row.now ? f.millis(row.now) - f.millis(row.event_time) : null;
  return h('div', { class: 'facts' },
    fact('Entity', chip(words[0], words[1])),
    fact('Values', row.stale ? chip('stale', 'warn', 'The job’s clock has passed the time until which they hold: the job is behind, or stopped') : chip('hold', 'good')),
    fact('Last event', row.event_time ? [f.time(row.event_time), age !== null ? ` · ${f.duration(age)} before the job’s clock` : ''] : '–'),
    row.valid_until ? fact('Hold until', f.time(row.valid_until)) : null,
    fact('Job’s clock', f.time(row.now)));
}

