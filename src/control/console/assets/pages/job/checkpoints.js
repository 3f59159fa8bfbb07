// Checkpoints and savepoints.

import { h } from '../../lib/dom.js';
import { get, listOf, maybe, path, post } from '../../lib/api.js';
import * as f from '../../lib/format.js';
import { card, columns, legend, plot } from '../../lib/plot.js';
import { button, chip, confirm, empty, field, section, state, table } from '../../lib/ui.js';

export async function load({ id }, signal) {
  return { savepoints: listOf(await maybe(get(path('jobs', id, 'savepoints'), signal), []), 'savepoints') };
}

export function view({ job, status, own, ctx }) {
  const list = status ? status.checkpoints : [];
  const oldest = [...list].reverse();
  const { n, width } = columns(ctx.room(), 380);
  const points = (of) => oldest.map((one) => ({ x: f.millis(one.at), y: of(one), note: `epoch ${one.epoch}` }));
  return [
    list.length ? h('div', { class: `plots n${n}` },
      card('Size', 'bytes written for each', plot({ label: 'Checkpoint size', width, zero: true, form: f.bytes, series: sizes(points) }), legend(sizes(points))),
      card('Duration', 'from the cut to publication', plot({ label: 'Checkpoint duration', width, zero: true, form: f.duration, series: [{ name: 'took', tone: 2, points: points((c) => c.took_ms) }] }))) : null,
    list.length ? table('Checkpoints', [
      { name: 'Epoch', num: true, of: (c) => f.count(c.epoch) },
      { name: 'Committed', of: (c) => f.time(c.at) },
      { name: 'Took', num: true, of: (c) => f.duration(c.took_ms) },
      { name: 'Written', num: true, of: (c) => f.bytes(c.bytes) },
      { name: 'Builds on', num: true, title: 'Bytes of all that it needs, its own among them', of: (c) => f.bytes(c.bytes_total) },
      { name: 'Kind', of: (c) => (c.whole ? 'whole' : 'changes') },
      { name: 'Tick', num: true, of: (c) => f.count(c.tick) },
      { name: 'Generation', num: true, of: (c) => f.count(c.generation) },
      { name: '', of: (c) => (c.published ? chip('published', 'good') : chip('not yet visible', 'warn')) },
    ], list, { key: (c) => c.epoch }) : empty('No checkpoints to show', status ? 'The first comes at the end of the first epoch. A job without a state directory has none.' : 'They are told by a job that runs.'),
    section('Savepoints', 'copies of the state, complete in themselves', button('Take a savepoint', () => take(job, ctx), { kind: 'small' }),
      own.savepoints.length ? table('Savepoints', [
        { name: 'Trigger', of: (one) => one.trigger },
        { name: 'State', of: (one) => [state(one.state), one.error ? h('span', { class: 'sub' }, one.error) : null] },
        { name: 'Epoch', num: true, of: (one) => f.count(one.epoch) },
        { name: 'File', num: true, of: (one) => `version ${one.version}` },
        { name: 'Asked for', of: (one) => f.time(one.asked) },
        { name: 'Place', cls: 'path', of: (one) => one.place },
      ], own.savepoints, { key: (one) => one.trigger }) : h('p', { class: 'muted' }, 'None. One is taken here, by a stop with a savepoint, or by an upgrade.')),
  ];
}

const sizes = (points) => [{ name: 'written', tone: 0, points: points((c) => c.bytes) }, { name: 'with all that it builds on', tone: 1, dash: true, points: points((c) => c.bytes_total) }];

function take(job, ctx) {
  confirm({
    title: 'Take a savepoint', action: 'Take it',
    fields: [
      field('Place', h('input', { name: 'place', type: 'text', spellcheck: 'false' }), 'A new directory, or an address such as s3://bucket/path. Left empty: a directory of the job’s own.'),
      field('Trigger', h('input', { name: 'trigger', type: 'text', spellcheck: 'false', pattern: '[A-Za-z0-9][A-Za-z0-9_.\\-]{0,63}' }), 'A name for the request: the same name twice is one savepoint.'),
    ],
    act: async (form) => {
      const body = {};
      for (const name of ['place', 'trigger']) if (form.get(name).trim()) body[name] = form.get(name).trim();
      const made = await post(path('jobs', job.id, 'savepoints'), body);
      ctx.refresh();
      return `Savepoint ${made && made.trigger ? made.trigger : ''} is being written`;
    },
  });
}
